"""Memory use: requests leave no reference cycles, and workers free the memory of large bodies."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView

from messages_app.store import messages
from tests.conftest import Answer, Api, Served

V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}
KEY = {"HTTP_IDEMPOTENCY_KEY": "one-key"}
GOOD = {"role": "user", "content": "x", "file_ids": ["file-1"]}
MESSAGES = "/threads/{thread_id}/messages"
MESSAGE = "/threads/{thread_id}/messages/{message_id}"

REQUESTS: dict[str, tuple[int, str, str, Any, dict[str, str]]] = {
    "create thread": (200, "POST", "/threads", b"", {}),
    "create message": (200, "POST", MESSAGES, GOOD, {}),
    "create message, v2": (200, "POST", MESSAGES, GOOD, V2),
    "create message, key": (200, "POST", MESSAGES, GOOD, KEY),
    "replay": (200, "POST", MESSAGES, GOOD, KEY),
    "key reused": (422, "POST", MESSAGES, {**GOOD, "content": "y"}, KEY),
    "retrieve": (200, "GET", MESSAGE, b"", {}),
    "retrieve, v2": (200, "GET", MESSAGE, b"", V2),
    "HEAD": (200, "HEAD", MESSAGE, b"", {}),
    "list": (200, "GET", MESSAGES, b"", {}),
    "list files": (200, "GET", f"{MESSAGE}/files", b"", {}),
    "modify": (200, "POST", MESSAGE, {"metadata": {"topic": "ai"}}, {}),
    "bad field": (422, "POST", MESSAGES, {"role": 1}, {}),
    "bad field, v2": (422, "POST", MESSAGES, {"role": 1}, V2),
    "bad query": (422, "GET", f"{MESSAGES}?limit=0", b"", {}),
    "bad cursor": (422, "GET", f"{MESSAGES}?after=x", b"", {}),
    "bad JSON": (422, "POST", "/threads", b"{", {}),
    "bad UTF-8": (400, "POST", "/threads", b"\xff", {}),
    "unknown thread": (404, "GET", "/threads/x", b"", {}),
    "unknown thread, v2": (404, "GET", "/threads/x", b"", V2),
    "unknown thread of a message": (404, "POST", "/threads/x/messages", GOOD, {}),
    "unknown path": (404, "GET", "/threads/x/y/z", b"", {}),
    "unknown method": (405, "PUT", "/threads", b"", {}),
    "bad key": (401, "GET", MESSAGE, b"", {"HTTP_AUTHORIZATION": "Bearer tsk_x"}),
    "foreign origin": (403, "POST", "/threads", {}, {"HTTP_ORIGIN": "https://evil.example"}),
    "foreign host": (400, "GET", "/threads", b"", {"HTTP_HOST": "evil.example"}),
    "delete": (200, "DELETE", MESSAGE, b"", {}),
    "bug": (500, "POST", MESSAGES, GOOD, {}),
}


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """Disable automatic garbage collection. Otherwise it could remove garbage before the test inspects it."""
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def belongs_to_a_request(value: Any) -> bool:
    kinds = (APIView, Request, HttpRequest, HttpResponseBase)
    return isinstance(value, kinds) or type(value).__module__.startswith(("threadsvc.", "messages_app."))


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize("name", REQUESTS)
def test_request_leaves_no_reference_cycle(
    api: Api, thread_id: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, method, path, body, headers = REQUESTS[name]
    message_id = api.post(f"/threads/{thread_id}/messages", GOOD).body["id"]
    path = path.format(thread_id=thread_id, message_id=message_id)
    if name in ("replay", "key reused"):
        api.post(path, GOOD, **KEY)
    if name == "bug":
        monkeypatch.setattr(messages, "append", lambda *_, **__: 1 / 0)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    answer = api.call(method, path, body, **headers)
    gc.collect()
    gc.set_debug(0)
    assert answer.status == status
    assert [repr(value) for value in gc.garbage if belongs_to_a_request(value)] == []


MAX_MB = 250


def resident_mb(pid: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024 / 1e6


def test_worker_frees_the_memory_of_large_bodies(serve: Callable[..., Served]) -> None:
    service = serve(WEB_CONCURRENCY="1")
    (worker,) = service.children()
    body = b'{"messages": [' + b",".join([b"{}"] * 1_000_000) + b"]}"

    def send() -> Answer:
        return service.call("POST", "/threads", body, Content_Type="application/json")

    for _ in range(12):
        assert send().status == 422
    assert resident_mb(worker) < MAX_MB
