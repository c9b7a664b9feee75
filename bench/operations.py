"""What is asked for, of service and yardstick alike, and what a right answer is."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

SAID = "How does AI work? Explain it in simple words"
V2 = {"OpenAI-Beta": "assistants=v2"}

# What two answers to the same POST do not share.
OF_ITS_OWN = ("_id", "id", "created_at")


class Wrong(Exception):
    """Something answered wrongly, or not at all: there is nothing to measure."""


class Request(NamedTuple):
    method: str
    path: str
    body: str = ""


class Operation(NamedTuple):
    """Requests that are sent one after the other and then from the start; a right answer has the `expected` text."""

    name: str
    requests: list[Request]
    expected: str


# Sends a request and gives back the answer's JSON; raises Wrong where that is not a 200.
Ask = Callable[[Request], Any]


def create(thread_ids: list[str]) -> Operation:
    body = json.dumps({"role": "user", "content": SAID}, separators=(",", ":"))
    requests = [Request("POST", f"/threads/{thread_id}/messages", body) for thread_id in thread_ids]
    return Operation("create message", requests, f'"value":"{SAID}"')


def retrieve(messages: list[list[str]]) -> Operation:
    requests = [Request("GET", f"/threads/{thread_id}/messages/{message_id}") for thread_id, message_id in messages]
    return Operation("retrieve message", requests, '"object":"thread.message"')


def list_20(thread_ids: list[str]) -> Operation:
    """Of threads that have more than that."""
    requests = [Request("GET", f"/threads/{thread_id}/messages") for thread_id in thread_ids]
    return Operation("list of 20", requests, '"has_more":true')


def of_sample(sample: dict[str, Any]) -> list[Operation]:
    """The three that are compared, on what `python -m bench.contents sample` found in a store.

    No thread is both written to and listed: who creates more would list other messages, of another length.
    """
    listed = sample["long_threads"][: len(sample["long_threads"]) // 2]
    written = [thread_id for thread_id in sample["threads"] if thread_id not in set(listed)]
    return [create(written), retrieve(sample["messages"]), list_20(listed)]


def mixed(operations: list[Operation]) -> Operation:
    """One of each in turn."""
    count = max(len(operation.requests) for operation in operations)
    requests = [op.requests[number % len(op.requests)] for number in range(count) for op in operations]
    return Operation("a mix of create, retrieve and list", requests, '"object":"')


def compare(service: Ask, yardstick: Ask, operations: list[Operation]) -> None:
    """Raises Wrong unless both answer the first of each alike, but for ids and times of what is created."""
    for operation in operations:
        request = operation.requests[0]
        left, right = service(request), yardstick(request)
        if request.method == "POST":
            left, right = ({k: v for k, v in body.items() if k not in OF_ITS_OWN} for body in (left, right))
        if left != right:
            raise Wrong(f"{operation.name}: the service answers {left!s:.400}, and the yardstick {right!s:.400}")
