"""The yardstick in bench/ returns the same responses as the service, and stores the same messages."""

from pathlib import Path
from typing import Any

import pytest

from bench.inside import yardstick_in_process
from bench.operations import CONTENT, Request, compare, sample_operations
from bench.stores import Store
from tests import engines
from tests.conftest import Api, connection

QUESTIONS = [f"Question {number}" for number in range(24)]
LAST = {"role": "user", "content": "Größe?", "metadata": {"topic": "ai"}, "file_ids": ["file-1", "file-2"]}


@pytest.mark.process
def test_yardstick_responds_and_stores_like_the_service(api: Api, tmp_path: Path) -> None:
    def ask(request: Request) -> Any:
        answer = api.call(request.method, request.path, request.body.encode())
        assert answer.status == 200
        return answer.body

    sent = [*({"role": "user", "content": text} for text in QUESTIONS), LAST]
    listed, written = (api.post("/threads", {"messages": sent}).body["id"] for _ in range(2))
    shown = ask(Request("GET", f"/threads/{listed}/messages"))["data"]
    messages = [[listed, message["id"]] for message in shown]
    operations = sample_operations({"threads": [written], "long_threads": [listed, written], "messages": messages})
    name = connection.settings_dict["NAME"]
    store = Store(tmp_path / "data", engines.server.url(name) if engines.server else f"sqlite:///{name}")
    with yardstick_in_process(store) as yardstick:
        compare(ask, yardstick.ask, operations)
        page = yardstick.ask(Request("GET", f"/threads/{written}/messages"))
    assert page == ask(Request("GET", f"/threads/{written}/messages"))
    texts = [message["content"][0]["text"]["value"] for message in page["data"]]
    assert texts == [CONTENT] * 2 + ["Größe?", *QUESTIONS[:-18:-1]]
