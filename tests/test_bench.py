"""The yardstick of bench/ must do the same work: what it answers is what the service answers."""

from pathlib import Path
from typing import Any

import pytest

from bench.inside import yardstick_inside
from bench.operations import SAID as CREATED
from bench.operations import Request, compare, of_sample
from bench.stores import Store
from tests import engines
from tests.conftest import Api, connection

SAID = [f"Question {number}" for number in range(24)]
LAST = {"role": "user", "content": "Größe?", "metadata": {"topic": "ai"}, "file_ids": ["file-1", "file-2"]}


@pytest.mark.process
def test_the_yardstick_answers_what_the_service_answers_and_stores_as_much(api: Api, tmp_path: Path) -> None:
    def ask(request: Request) -> Any:
        answer = api.call(request.method, request.path, request.body.encode())
        assert answer.status == 200
        return answer.body

    said = [*({"role": "user", "content": text} for text in SAID), LAST]
    listed, written = (api.post("/threads", {"messages": said}).body["id"] for _ in range(2))
    shown = ask(Request("GET", f"/threads/{listed}/messages"))["data"]
    messages = [[listed, message["id"]] for message in shown]
    operations = of_sample({"threads": [written], "long_threads": [listed, written], "messages": messages})
    name = connection.settings_dict["NAME"]
    store = Store(tmp_path / "data", engines.server.url(name) if engines.server else f"sqlite:///{name}")
    with yardstick_inside(store) as yardstick:
        compare(ask, yardstick.ask, operations)
        page = yardstick.ask(Request("GET", f"/threads/{written}/messages"))
    assert page == ask(Request("GET", f"/threads/{written}/messages"))
    texts = [message["content"][0]["text"]["value"] for message in page["data"]]
    assert texts == [CREATED] * 2 + ["Größe?", *SAID[:-18:-1]]
