"""Replay recorded requests of real SDKs, byte for byte, and compare each complete response with the contract.

tests/contract/recorded/ contains the requests of openai-python 1.6.1 and 3.54.0 and of openai-node 7.57.0, with the
name of each SDK call. A replay changes only the ids of stored objects, the host, and the idempotency key.
"""

import http.client
import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT, Answer, Served, detail_of

RECORDED: list[tuple[str, dict[str, Any]]] = [
    (path.stem, recorded)
    for path in sorted((ROOT / "tests/contract/recorded").glob("*.json"))
    for recorded in json.loads(path.read_text(encoding="utf-8"))
]
# The arguments for `json.dumps` that give the bytes of each SDK. openai-python 1.6.1 uses the defaults. The others send
# JSON without spaces and without escapes for non-ASCII characters.
COMPACT = {"ensure_ascii": False, "separators": (",", ":")}
ENCODINGS: dict[str, dict[str, Any]] = {
    "openai-python-1.6.1": {},
    "openai-python-3.54.0": COMPACT,
    "openai-node-7.57.0": COMPACT,
}


def body_of(sdk: str, recorded: dict[str, Any]) -> bytes:
    """Return the bytes of a recorded body. Fails if their first bytes or their length differ from the recording."""
    value = recorded["body"]
    match value:
        case None:
            raw = b""
        case {"__raw__": text}:
            raw = text.encode()
        case _:
            raw = json.dumps(value, **ENCODINGS[sdk]).encode()
    headers = {name.lower(): text for name, text in recorded["headers"].items()}
    assert raw[:80] == recorded["raw_body_prefix"].encode("latin-1")
    assert len(raw) == int(headers.get("content-length", "0"))
    return raw


class Stored(NamedTuple):
    """A stored thread.

    `sent` contains the bodies that created its messages. `shown` contains the messages in the default shape. Both are
    oldest first.
    """

    thread: dict[str, Any]
    sent: list[dict[str, Any]]
    shown: list[dict[str, Any]]

    @property
    def ids(self) -> dict[str, str]:
        """The real ids. The keys are the ids in the recordings, which a replay replaces."""
        first, *_, last, one = [message["id"] for message in self.shown]
        return {"thread_1": self.thread["id"], "msg_1": one, "msg_a": first, "msg_b": last, "a": first, "b": last}


@pytest.fixture
def stored(served: Served) -> Stored:
    """A thread with these messages: msg_a, two without a run, two in run_1, two in r, msg_b, and msg_1 with a file."""
    sent: list[dict[str, Any]] = [{"role": "user", "content": "msg_a"}]
    for run_id in (None, "run_1", "r"):
        sent += [{"role": "assistant", "content": f"{run_id} {i}", "run_id": run_id} for i in (1, 2)]
    sent += [{"role": "user", "content": "msg_b"}]
    sent += [{"role": "user", "content": "msg_1", "file_ids": ["file-1"], "metadata": {"a": "0", "z": "1"}}]
    body = {"messages": sent, "metadata": {"y": "2"}}
    thread = served.call("POST", "/threads", body, OpenAI_Beta="assistants=v2").body
    shown = served.call("GET", f"/threads/{thread['id']}/messages?order=asc").body["data"]
    return Stored(thread, sent, shown)


def identity_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row that the service generated: its ids and its time."""
    return {name: row[name] for name in ("_id", "id", "created_at")}


class Exchange(NamedTuple):
    """A recorded call, the objects that were stored before it, and its response."""

    stored: Stored
    recorded: dict[str, Any]
    answer: Answer

    @property
    def v2(self) -> bool:
        return ("openai-beta", "assistants=v2") in {(name.lower(), v) for name, v in self.recorded["headers"].items()}

    def new(self, prefix: str) -> dict[str, Any]:
        """Return the ids and the time of the row that this call created. Fails if their format is wrong."""
        generated = identity_of(self.answer.body)
        assert re.fullmatch("[0-9a-f]{24}", generated["_id"])
        assert re.fullmatch(f"{prefix}_[0-9a-z]+", generated["id"])
        assert type(generated["created_at"]) is int
        assert abs(time.time() - generated["created_at"]) < 60
        return generated

    def thread(self, identity: dict[str, Any], metadata: dict[str, str]) -> dict[str, Any]:
        return {
            **identity,
            "object": "thread",
            "metadata": metadata,
            **({"tool_resources": None} if self.v2 else {}),
        }

    def message(self, identity: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
        """Return the expected message in the shape of this call. `sent` is the body that created the message."""
        content = sent["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        files = [{"file_id": file_id, "tools": []} for file_id in sent.get("file_ids", [])]
        attachments = sent.get("attachments", []) + files
        absent = None if self.v2 else ""
        v2 = {
            "status": "completed",
            "completed_at": identity["created_at"],
            "incomplete_at": None,
            "incomplete_details": None,
            "attachments": attachments,
        }
        return {
            **identity,
            "object": "thread.message",
            "thread_id": self.stored.thread["id"],
            "role": sent["role"],
            "content": [
                {"type": "text", "text": {"value": part["text"], "annotations": []}} if part["type"] == "text" else part
                for part in parts
            ],
            "assistant_id": absent,
            "run_id": sent.get("run_id") or absent,
            "file_ids": [attachment["file_id"] for attachment in attachments],
            "metadata": sent.get("metadata", {}),
            **(v2 if self.v2 else {}),
        }

    def stored_message(self, index: int, **changes: Any) -> dict[str, Any]:
        """Return the expected form of the stored message with this index, after `changes` of its fields."""
        return self.message(identity_of(self.stored.shown[index]), {**self.stored.sent[index], **changes})

    def refused(self, detail: Any, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        return {"detail": detail, **({"error": error} if self.v2 else {})}


Expected = tuple[int, Any]
MSG_1 = 8  # the index of msg_1 in `Stored.sent` and `Stored.shown`


def page(data: list[dict[str, Any]], has_more: bool) -> Expected:
    return 200, {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
        "has_more": has_more,
    }


def not_found(call: Exchange) -> Expected:
    return 404, call.refused("Not Found", "Not Found")


def not_served(call: Exchange) -> Expected:
    """Return the 404 for a path of OpenAI's API that the service does not have.

    tests/test_v2.py checks the full message.
    """
    message = "Not Found"
    if call.v2:
        message = call.answer.body["error"]["message"]
        assert re.match(r"Not Found: '(runs|assistants)' is not part of this service", message)
    return 404, call.refused("Not Found", message)


def no_thread(thread_id: str) -> Callable[[Exchange], Expected]:
    detail = f"Thread with ID '{thread_id}' not found"
    return lambda call: (404, call.refused(detail, detail))


def thread_created(call: Exchange) -> Expected:
    assert "idempotent-replayed" not in call.answer.headers
    return 200, call.thread(call.new("thread"), call.recorded["body"].get("metadata", {}))


def thread_retrieved(call: Exchange) -> Expected:
    return 200, call.thread(identity_of(call.stored.thread), {"y": "2"})


def thread_updated(call: Exchange) -> Expected:
    metadata = {"y": "2", **call.recorded["body"]["metadata"]}
    return 200, call.thread(identity_of(call.stored.thread), metadata)


def thread_deleted(call: Exchange) -> Expected:
    return 200, {"id": call.stored.thread["id"], "object": "thread.deleted", "deleted": True}


def message_created(call: Exchange) -> Expected:
    return 200, call.message(call.new("msg"), call.recorded["body"])


def message_of_parts_created(call: Exchange) -> Expected:
    if call.v2:
        return message_created(call)
    return 422, {"detail": [detail_of("str", "content")]}


def messages_listed(call: Exchange) -> Expected:
    target = call.recorded["target"]
    if "?" not in target:
        return page([call.stored_message(index) for index in range(MSG_1, -1, -1)], has_more=False)
    if "run_id=run_1" in target:
        return page([call.stored_message(3), call.stored_message(4)], has_more=False)
    if "run_id=r" in target:
        return page([call.stored_message(5), call.stored_message(6)], has_more=False)
    # Six messages match, but the recorded call has limit=5.
    return page([call.stored_message(index) for index in range(1, 6)], has_more=True)


def message_updated(call: Exchange) -> Expected:
    return 200, call.stored_message(MSG_1, metadata={"z": "1", **call.recorded["body"]["metadata"]})


def message_deleted(call: Exchange) -> Expected:
    return 200, {"id": call.stored.ids["msg_1"], "object": "thread.message.deleted", "deleted": True}


def file_of(call: Exchange) -> dict[str, Any]:
    one = call.stored.shown[MSG_1]
    return {
        "id": "file-1",
        "object": "thread.message.file",
        "created_at": one["created_at"],
        "message_id": one["id"],
    }


def odd_id(call: Exchange) -> Expected:
    """Return the 404 for a thread id that contains a slash.

    openai-python 1.6.1 does not escape the slash, so its path is unknown. Version 3.54.0 sends %2F. For %2F, the
    contract permits both kinds of 404.
    """
    if call.v2 and call.answer.body["detail"] != "Not Found":
        return no_thread("th/re ad?x")(call)
    return not_found(call)


NOT_IMPLEMENTED = [
    "beta.threads.create_and_run",
    "beta.threads.runs.create",
    "beta.threads.runs.list",
    "beta.threads.runs.retrieve",
    "beta.threads.runs.update",
    "beta.threads.runs.cancel",
    "beta.threads.runs.submit_tool_outputs",
    "beta.threads.runs.steps.list",
    "beta.threads.runs.steps.retrieve",
    "beta.assistants.create",
    "beta.assistants.list",
    "beta.assistants.retrieve",
    "beta.assistants.update",
    "beta.assistants.delete",
    "beta.assistants.files.create",
    "beta.assistants.files.list",
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "conversations.create",
    "conversations.retrieve",
    "conversations.update",
    "conversations.delete",
    "conversations.items.create",
    "conversations.items.list",
    "conversations.items.retrieve",
    "conversations.items.delete",
]
# Functions that return the expected response. The keys are the names of the calls in the recordings.
RESPONSES: dict[str, Callable[[Exchange], Expected]] = {
    "beta.threads.create": thread_created,
    "beta.threads.retrieve": thread_retrieved,
    "beta.threads.update": thread_updated,
    "beta.threads.delete": thread_deleted,
    "beta.threads.messages.create": message_created,
    "beta.threads.messages.create#parts": message_of_parts_created,
    "beta.threads.messages.list": messages_listed,
    "beta.threads.messages.retrieve": lambda call: (200, call.stored_message(MSG_1)),
    "beta.threads.messages.update": message_updated,
    "beta.threads.messages.delete": message_deleted,
    "beta.threads.messages.files.list": lambda call: page([file_of(call)], has_more=False),
    "beta.threads.messages.files.retrieve": lambda call: (200, file_of(call)),
    "explicit Idempotency-Key": thread_created,
    "quote-id": odd_id,
    "empty-id": not_found,
    "base_url with trailing slash": no_thread("t"),
    "base_url without /v1": no_thread("t"),
    **dict.fromkeys(NOT_IMPLEMENTED, not_served),
}


def replay(served: Served, sdk: str, recorded: dict[str, Any], ids: dict[str, str]) -> Answer:
    """Send a recorded request over its own connection, and return the response."""
    names = "|".join(ids)
    target = re.sub(rf"(?<=[/=])({names})(?=[/?&]|$)", lambda found: ids[found[1]], recorded["target"])
    # Two SDKs were recorded with the same idempotency key. Each SDK gets a key of its own here. Otherwise, the service
    # would treat the second request as a retry in another shape.
    replaced = {"host": f"127.0.0.1:{served.port}", "idempotency-key": f"k1-{sdk}"}
    headers = [f"{name}: {replaced.get(name.lower(), value)}" for name, value in recorded["headers"].items()]
    head = [f"{recorded['method']} {target} HTTP/1.1", *headers, "", ""]
    with served.connect() as connection, closing(http.client.HTTPResponse(connection)) as response:
        connection.sendall("\r\n".join(head).encode() + body_of(sdk, recorded))
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, json.loads(response.read()), found)


@pytest.mark.parametrize(
    ("sdk", "recorded"),
    [pytest.param(sdk, each, id=f"{sdk}: {each['call']} {each['target']}") for sdk, each in RECORDED],
)
def test_recorded_request_gets_the_response_of_the_contract(
    served: Served, stored: Stored, sdk: str, recorded: dict[str, Any]
) -> None:
    answer = replay(served, sdk, recorded, stored.ids)
    status, body = RESPONSES[recorded["call"]](Exchange(stored, recorded, answer))
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


@pytest.mark.stateless
def test_recordings_have_exactly_the_expected_calls() -> None:
    assert {recorded["call"] for _, recorded in RECORDED} == set(RESPONSES)
    assert {sdk for sdk, _ in RECORDED} == set(ENCODINGS)


@pytest.mark.parametrize(
    ("sdk", "recorded"),
    [(sdk, each) for sdk, each in RECORDED if each["call"] == "beta.threads.create" and "messages" in each["body"]],
    ids=lambda value: value if isinstance(value, str) else value["call"],
)
def test_messages_of_a_recorded_thread_are_stored(
    served: Served, stored: Stored, sdk: str, recorded: dict[str, Any]
) -> None:
    thread_id = replay(served, sdk, recorded, stored.ids).body["id"]
    (message,) = served.call("GET", f"/threads/{thread_id}/messages").body["data"]
    assert message["content"] == [{"type": "text", "text": {"value": "héllo 😀", "annotations": []}}]
    assert (message["thread_id"], message["role"]) == (thread_id, "user")
    assert (message["file_ids"], message["metadata"]) == (["file-1"], {"k": "v"})


@pytest.mark.parametrize(
    ("sdk", "recorded"),
    [(sdk, each) for sdk, each in RECORDED if each["call"] in ("beta.threads.delete", "beta.threads.messages.delete")],
    ids=lambda value: value if isinstance(value, str) else value["call"],
)
def test_recorded_delete_removes_only_its_object(
    served: Served, stored: Stored, sdk: str, recorded: dict[str, Any]
) -> None:
    replay(served, sdk, recorded, stored.ids)
    listed = served.call("GET", f"/threads/{stored.thread['id']}/messages?order=asc")
    if recorded["call"] == "beta.threads.delete":
        assert listed.status == 404
    else:
        assert listed.body["data"] == stored.shown[:MSG_1]
