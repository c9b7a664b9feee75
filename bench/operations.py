"""The requests to the service and the yardstick, and the expected responses."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

CONTENT = "How does AI work? Explain it in simple words"
V2 = {"OpenAI-Beta": "assistants=v2"}

# Fields that always differ between two responses to the same POST. The comparison ignores them.
GENERATED = ("_id", "id", "created_at")


class WrongResult(Exception):
    """A response or a store is wrong, or there is no response. This error ends the run."""


class Request(NamedTuple):
    method: str
    path: str
    body: str = ""


class Operation(NamedTuple):
    """A list of requests. They are sent in order and then repeated. Each response must contain the text `expected`."""

    name: str
    requests: list[Request]
    expected: str


# Sends a request and returns the JSON of the response. Raises WrongResult if the status is not 200.
Ask = Callable[[Request], Any]


def create(thread_ids: list[str]) -> Operation:
    body = json.dumps({"role": "user", "content": CONTENT}, separators=(",", ":"))
    requests = [Request("POST", f"/threads/{thread_id}/messages", body) for thread_id in thread_ids]
    return Operation("create message", requests, f'"value":"{CONTENT}"')


def retrieve(messages: list[list[str]]) -> Operation:
    requests = [Request("GET", f"/threads/{thread_id}/messages/{message_id}") for thread_id, message_id in messages]
    return Operation("retrieve message", requests, '"object":"thread.message"')


def list_20(thread_ids: list[str]) -> Operation:
    """Return the operation that lists 20 messages of a thread. Each thread must have more than 20 messages."""
    requests = [Request("GET", f"/threads/{thread_id}/messages") for thread_id in thread_ids]
    return Operation("list of 20", requests, '"has_more":true')


def sample_operations(sample: dict[str, Any]) -> list[Operation]:
    """Return the three operations to compare, for ids from `python -m bench.contents sample`.

    Creates and lists use different threads. Otherwise, the application that is faster at creates would add more
    messages, and its lists would return other messages.
    """
    listed = sample["long_threads"][: len(sample["long_threads"]) // 2]
    written = [thread_id for thread_id in sample["threads"] if thread_id not in set(listed)]
    return [create(written), retrieve(sample["messages"]), list_20(listed)]


def mixed(operations: list[Operation]) -> Operation:
    """Return one operation that sends one request of each operation in turn."""
    count = max(len(operation.requests) for operation in operations)
    requests = [op.requests[number % len(op.requests)] for number in range(count) for op in operations]
    return Operation("a mix of create, retrieve and list", requests, '"object":"')


def compare(service: Ask, yardstick: Ask, operations: list[Operation]) -> None:
    """Raise WrongResult if the responses to the first request of an operation differ.

    The ids and times of created messages may differ.
    """
    for operation in operations:
        request = operation.requests[0]
        left, right = service(request), yardstick(request)
        if request.method == "POST":
            left, right = ({k: v for k, v in body.items() if k not in GENERATED} for body in (left, right))
        if left != right:
            raise WrongResult(f"{operation.name}: the service responds {left!s:.400}, and the yardstick {right!s:.400}")
