"""openai_current.py BASE_URL: test a running service with every thread and message call of the newest openai-python.

The program also validates each response strictly with the SDK's own models, because the SDK does not validate
responses. It prints one line per check. It exits with status 1 if a check fails. tests/test_clients.py runs the same
checks.
"""

import asyncio
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar
from uuid import uuid4

from openai import (
    AsyncOpenAI,
    BaseModel,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
    NotFoundError,
    OpenAI,
    UnprocessableEntityError,
)
from openai.pagination import SyncCursorPage
from openai.types import ErrorObject
from openai.types.beta import Thread, ThreadDeleted
from openai.types.beta.threads import Message, MessageDeleted, TextContentBlock

Check = Callable[[OpenAI], None]
Order = Literal["asc", "desc"]
AnyError = TypeVar("AnyError", bound=Exception)

ORDERS: list[Order] = ["asc", "desc"]
TEXTS = [
    "hello",
    " spaced \n",
    "héllo 😀",
    "e\u0301 is not é",
    "שלום\u200f",
    "\u2028\u2029\ufeff\uffff",
    "{}",
    "😀" * 256000,
]
# The maximum number of responses in one check. It stops a check whose list never ends.
MANY = 1000


class ErrorBody(BaseModel):
    """The body of an error response in the v2 shape."""

    detail: str | list[Any]
    error: ErrorObject


MODELS: dict[str, type[BaseModel]] = {
    "thread": Thread,
    "thread.deleted": ThreadDeleted,
    "thread.message": Message,
    "thread.message.deleted": MessageDeleted,
    "list": SyncCursorPage[Message],
}


def validate(answer: Any, is_success: bool) -> None:
    """Validate a response strictly. Raise if the SDK has no model for the object or if the model rejects it."""
    model = MODELS[answer["object"]] if is_success else ErrorBody
    model.model_validate(answer, strict=True)


@contextmanager
def validating_client(base_url: str) -> Iterator[OpenAI]:
    """Yield a client that raises if a response is invalid. At the end, raise if no request succeeded."""
    validated = []

    def on_response(response: Any) -> None:
        response.read()
        validate(response.json(), response.is_success)
        if response.is_success:
            validated.append(response)
        assert len(validated) < MANY, "a list has no end"

    http_client = DefaultHttpxClient(event_hooks={"response": [on_response]}, trust_env=False)
    with (
        warnings.catch_warnings(),
        OpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=http_client) as client,
    ):
        warnings.filterwarnings(
            "ignore", "The Assistants API is deprecated in favor of the Responses API", DeprecationWarning
        )
        yield client
    assert validated, "no response was validated"


def refusal(expected: type[AnyError], call: Callable[[], object]) -> AnyError:
    """Return the expected exception that a call raises. Raise AssertionError if the call succeeds."""
    try:
        call()
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was not raised")


def thread_of(client: OpenAI, texts: Iterable[object]) -> str:
    """Create a thread with one message per text. Return the thread's id."""
    return client.beta.threads.create(messages=[{"role": "user", "content": str(text)} for text in texts]).id


def texts_of(messages: Iterable[Message]) -> list[str]:
    parts = [part for message in messages for part in message.content]
    return [part.text.value for part in parts if isinstance(part, TextContentBlock)]


CHECKS: list[Check] = []


def check(function: Check) -> Check:
    CHECKS.append(function)
    return function


# Threads


@check
def empty_thread_is_created_and_retrieved(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    assert thread.id.startswith("thread_")
    assert (thread.metadata, thread.tool_resources) == ({}, None)
    assert client.beta.threads.retrieve(thread.id) == thread
    assert client.beta.threads.messages.list(thread.id).data == []


@check
def thread_is_created_with_messages_metadata_and_tool_resources(client: OpenAI) -> None:
    thread = client.beta.threads.create(
        messages=[
            {"role": "user", "content": "one", "metadata": {"n": "1"}},
            {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
            {
                "role": "user",
                "content": "3",
                "attachments": [{"file_id": "file-1", "tools": [{"type": "file_search"}]}],
            },
        ],
        metadata={"a": "b", "é": "😀"},
        tool_resources={"code_interpreter": {"file_ids": ["file-1"]}},
    )
    assert (thread.metadata, thread.tool_resources) == ({"a": "b", "é": "😀"}, None)
    messages = client.beta.threads.messages.list(thread.id, order="asc").data
    assert texts_of(messages) == ["one", "two", "3"]
    assert [message.role for message in messages] == ["user", "assistant", "user"]
    assert [message.metadata for message in messages] == [{"n": "1"}, {}, {}]
    assert [message.thread_id for message in messages] == [thread.id] * 3
    assert [message.to_dict()["attachments"] for message in messages] == [
        [],
        [],
        [{"file_id": "file-1", "tools": [{"type": "file_search"}]}],
    ]


@check
def thread_with_one_bad_message_is_refused(client: OpenAI) -> None:
    error = refusal(UnprocessableEntityError, lambda: thread_of(client, ["good", "", "good"]))
    assert (error.param, error.code) == ("messages.1.content", "value_error.any_str.min_length")
    assert thread_of(client, ["good", "good"])


@check
def thread_metadata_is_merged_key_by_key(client: OpenAI) -> None:
    thread = client.beta.threads.create(metadata={"a": "1", "b": "2"})
    changed = client.beta.threads.update(thread.id, metadata={"b": "3", "c": "4"}, tool_resources={"file_search": {}})
    assert changed.metadata == {"a": "1", "b": "3", "c": "4"}
    removed = client.beta.threads.update(thread.id, extra_body={"metadata": {"a": None, "nowhere": None, "d": "5"}})
    assert removed.metadata == {"b": "3", "c": "4", "d": "5"}
    assert client.beta.threads.update(thread.id) == removed
    assert client.beta.threads.update(thread.id, metadata=None) == removed
    assert client.beta.threads.retrieve(thread.id) == removed


@check
def deleted_thread_and_its_messages_are_not_found(client: OpenAI) -> None:
    thread_id = thread_of(client, ["x"])
    (message,) = client.beta.threads.messages.list(thread_id).data
    assert client.beta.threads.delete(thread_id).to_dict() == {
        "id": thread_id,
        "object": "thread.deleted",
        "deleted": True,
    }
    calls: list[Callable[[], object]] = [
        lambda: client.beta.threads.retrieve(thread_id),
        lambda: client.beta.threads.update(thread_id, metadata={"a": "b"}),
        lambda: client.beta.threads.delete(thread_id),
        lambda: client.beta.threads.messages.list(thread_id),
        lambda: client.beta.threads.messages.create(thread_id, role="user", content="x"),
        lambda: client.beta.threads.messages.retrieve(message.id, thread_id=thread_id),
        lambda: client.beta.threads.messages.update(message.id, thread_id=thread_id, metadata={"a": "b"}),
        lambda: client.beta.threads.messages.delete(message.id, thread_id=thread_id),
    ]
    for call in calls:
        error = refusal(NotFoundError, call)
        assert error.response.json()["detail"] == f"Thread with ID '{thread_id}' not found"


# Messages: create, retrieve, change, delete


@check
def text_is_returned_unchanged(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    for text in TEXTS:
        created = client.beta.threads.messages.create(thread.id, role="user", content=text, metadata={"k": text[:512]})
        assert texts_of([created]) == [text]
        assert created.metadata == {"k": text[:512]}
        assert (created.thread_id, created.role, created.status) == (thread.id, "user", "completed")
        assert (created.completed_at, created.incomplete_at) == (created.created_at, None)
        assert (created.assistant_id, created.run_id, created.attachments) == (None, None, [])
        assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == created
    assert texts_of(client.beta.threads.messages.list(thread.id, order="asc")) == TEXTS


@check
def content_parts_keep_their_order_and_values(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    created = client.beta.threads.messages.create(
        thread.id,
        role="user",
        content=[
            {"type": "text", "text": "look 😀"},
            {"type": "image_file", "image_file": {"file_id": "file-1"}},
            {"type": "image_file", "image_file": {"file_id": "file-2", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/ä.png", "detail": "auto"}},
            {"type": "text", "text": "and tell"},
        ],
    )
    assert created.to_dict()["content"] == [
        {"type": "text", "text": {"value": "look 😀", "annotations": []}},
        {"type": "image_file", "image_file": {"file_id": "file-1"}},
        {"type": "image_file", "image_file": {"file_id": "file-2", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/ä.png", "detail": "auto"}},
        {"type": "text", "text": {"value": "and tell", "annotations": []}},
    ]
    assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == created


@check
def attachments_keep_their_order_and_tools(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    created = client.beta.threads.messages.create(
        thread.id,
        role="user",
        content="read these",
        attachments=[
            {"file_id": "file-2", "tools": [{"type": "code_interpreter"}, {"type": "file_search"}]},
            {"file_id": "file-1"},
        ],
        extra_body={"file_ids": ["file-3", "file-1"]},
    )
    shown = created.to_dict()
    assert shown["attachments"] == [
        {"file_id": "file-2", "tools": [{"type": "code_interpreter"}, {"type": "file_search"}]},
        {"file_id": "file-1", "tools": []},
        {"file_id": "file-3", "tools": []},
    ]
    assert shown["file_ids"] == ["file-2", "file-1", "file-3"]
    assert client.beta.threads.messages.create(thread.id, role="user", content="x", attachments=None).attachments == []


@check
def assistant_message_has_assistant_id_and_run_id(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    fields = {"assistant_id": "asst_1", "run_id": "run_1"}
    created = client.beta.threads.messages.create(thread.id, role="assistant", content="x", extra_body=fields)
    assert (created.role, created.assistant_id, created.run_id) == ("assistant", "asst_1", "run_1")
    assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == created
    without_ids = client.beta.threads.messages.create(
        thread.id, role="assistant", content="x", extra_body={"assistant_id": "", "run_id": None}
    )
    assert (without_ids.role, without_ids.assistant_id, without_ids.run_id) == ("assistant", None, None)


@check
def retry_with_the_same_idempotency_key_is_stored_once(client: OpenAI) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first, again = (client.beta.threads.create(metadata={"a": "b"}, extra_headers=key) for _ in range(2))
    assert first == again
    messages = client.beta.threads.messages
    sent = [messages.create(first.id, role="user", content="once", extra_headers=key) for _ in range(2)]
    assert sent[0] == sent[1]
    assert messages.list(first.id).data == sent[:1]
    error = refusal(
        UnprocessableEntityError,
        lambda: messages.create(first.id, role="user", content="other", extra_headers=key),
    )
    assert error.code == "value_error.idempotency_key"


@check
def message_metadata_is_merged_key_by_key(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    created = client.beta.threads.messages.create(thread.id, role="user", content="x", metadata={"a": "1", "b": "2"})
    changed = client.beta.threads.messages.update(created.id, thread_id=thread.id, metadata={"b": "3", "c": "4"})
    assert changed.metadata == {"a": "1", "b": "3", "c": "4"}
    removed = client.beta.threads.messages.update(
        created.id, thread_id=thread.id, extra_body={"metadata": {"a": None, "nowhere": None, "d": "5"}}
    )
    assert removed.metadata == {"b": "3", "c": "4", "d": "5"}
    assert client.beta.threads.messages.update(created.id, thread_id=thread.id) == removed
    assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == removed
    assert texts_of([removed]) == ["x"]


@check
def deleted_message_is_not_found_and_the_others_stay(client: OpenAI) -> None:
    thread_id = thread_of(client, "abc")
    newest, middle, oldest = client.beta.threads.messages.list(thread_id).data
    assert client.beta.threads.messages.delete(middle.id, thread_id=thread_id).to_dict() == {
        "id": middle.id,
        "object": "thread.message.deleted",
        "deleted": True,
    }
    calls: list[Callable[[], object]] = [
        lambda: client.beta.threads.messages.retrieve(middle.id, thread_id=thread_id),
        lambda: client.beta.threads.messages.update(middle.id, thread_id=thread_id, metadata={"a": "b"}),
        lambda: client.beta.threads.messages.delete(middle.id, thread_id=thread_id),
    ]
    for call in calls:
        error = refusal(NotFoundError, call)
        assert error.response.json()["detail"] == f"Message with ID '{middle.id}' in thread '{thread_id}' not found"
    assert client.beta.threads.messages.list(thread_id).data == [newest, oldest]


# Messages: lists


@check
def iteration_returns_all_pages_in_either_order(client: OpenAI) -> None:
    for count in (0, 1, 7, 21):
        texts = [str(number) for number in range(count)]
        thread_id = thread_of(client, texts)
        assert texts_of(client.beta.threads.messages.list(thread_id)) == texts[::-1]
        for limit in (1, 3, 7, 20, 100):
            assert texts_of(client.beta.threads.messages.list(thread_id, limit=limit, order="asc")) == texts
            assert texts_of(client.beta.threads.messages.list(thread_id, limit=limit, order="desc")) == texts[::-1]


@check
def has_more_is_true_if_another_page_follows(client: OpenAI) -> None:
    thread_id = thread_of(client, range(5))
    pages = list(client.beta.threads.messages.list(thread_id, limit=2, order="asc").iter_pages())
    assert [texts_of(page.data) for page in pages] == [["0", "1"], ["2", "3"], ["4"]]
    assert [page.has_more for page in pages] == [True, True, False]
    assert [page.has_next_page() for page in pages] == [True, True, False]
    shown = pages[1].to_dict()
    assert (shown["object"], shown["first_id"], shown["last_id"]) == ("list", pages[1].data[0].id, pages[1].data[1].id)
    (full,) = client.beta.threads.messages.list(thread_id, limit=5).iter_pages()
    assert full.has_more is False
    assert len(client.beta.threads.messages.list(thread_of(client, range(25))).data) == 20


@check
def after_and_before_follow_the_order_of_the_list(client: OpenAI) -> None:
    thread_id = thread_of(client, range(9))
    ids = {text: message.id for message in client.beta.threads.messages.list(thread_id) for text in texts_of([message])}

    def texts(order: Order, limit: int, **cursors: str) -> str:
        named = {name: ids[text] for name, text in cursors.items()}
        listed = client.beta.threads.messages.list(thread_id, order=order, limit=limit, **named)  # type: ignore[arg-type]
        return "".join(texts_of(listed))

    for limit in (1, 2, 3, 20):
        assert texts("asc", limit, after="5") == "678"
        assert texts("desc", limit, after="5") == "43210"
        assert texts("asc", limit, after="8") == ""
        # The first page ends just before the message `before`. The SDK sends the same `before` with its next request,
        # so the next page is empty.
        assert texts("asc", limit, before="4") == "0123"[-limit:]
        assert texts("desc", limit, before="4") == "8765"[-limit:]
        assert texts("desc", limit, before="8") == ""
        # With both cursors, the list starts after `after` and ends before `before`.
        assert texts("asc", limit, after="1", before="7") == "23456"
        assert texts("desc", limit, after="7", before="1") == "65432"
        assert texts("asc", limit, after="7", before="1") == ""
        assert texts("asc", limit, after="3", before="3") == ""


@check
def run_id_selects_the_messages_of_a_run(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    runs = [None, "run_1", "run_2", "run_1", "", "run_1", "run_2"]
    ids = [
        client.beta.threads.messages.create(
            thread.id, role="assistant", content=str(number), extra_body={"run_id": run_id}
        ).id
        for number, run_id in enumerate(runs)
    ]
    for limit in (1, 2, 20):
        of_run = [
            texts_of(client.beta.threads.messages.list(thread.id, run_id=run_id, limit=limit, order=order))
            for run_id in ("run_1", "run_2", "run_3")
            for order in ORDERS
        ]
        assert of_run == [["1", "3", "5"], ["5", "3", "1"], ["2", "6"], ["6", "2"], [], []]
        # The cursor can be a message from another run.
        after = client.beta.threads.messages.list(thread.id, run_id="run_1", after=ids[2], limit=limit, order="asc")
        assert texts_of(after) == ["3", "5"]


@check
def all_messages_can_be_deleted_while_listing_them(client: OpenAI) -> None:
    for order in ORDERS:
        for limit in (1, 2, 3, 10, 11, 100):
            thread_id = thread_of(client, range(11))
            deleted = []
            for message in client.beta.threads.messages.list(thread_id, limit=limit, order=order):
                client.beta.threads.messages.delete(message.id, thread_id=thread_id)
                deleted.append(message)
            expected = [str(number) for number in range(11)]
            assert texts_of(deleted) == (expected if order == "asc" else expected[::-1])
            assert client.beta.threads.messages.list(thread_id).data == []


@check
def iteration_continues_after_its_cursor_is_deleted(client: OpenAI) -> None:
    thread_id = thread_of(client, range(4))
    page = client.beta.threads.messages.list(thread_id, limit=2, order="asc")
    client.beta.threads.messages.delete(page.data[-1].id, thread_id=thread_id)
    client.beta.threads.messages.create(thread_id, role="user", content="4")
    assert texts_of(page) == ["0", "1", "2", "3", "4"]
    assert texts_of(client.beta.threads.messages.list(thread_id, order="asc")) == ["0", "2", "3", "4"]


@check
def async_client_creates_lists_and_deletes(client: OpenAI) -> None:
    thread_id = thread_of(client, range(7))
    validated = []

    async def on_response(response: Any) -> None:
        await response.aread()
        validate(response.json(), response.is_success)
        validated.append(response)
        assert len(validated) < MANY, "a list has no end"

    async def work() -> None:
        http_client = DefaultAsyncHttpxClient(event_hooks={"response": [on_response]}, trust_env=False)
        async with AsyncOpenAI(
            base_url=client.base_url, api_key="none", max_retries=0, http_client=http_client
        ) as async_client:
            messages = async_client.beta.threads.messages
            for limit in (2, 7, 20):
                listed = [message async for message in messages.list(thread_id, limit=limit, order="asc")]
                assert texts_of(listed) == list("0123456")
            created = await asyncio.gather(
                *(messages.create(thread_id, role="user", content=text) for text in "abcdefgh")
            )
            newest = await messages.list(thread_id, limit=8)
            assert sorted(texts_of(newest.data)) == texts_of(created) == list("abcdefgh")
            older = [message async for message in messages.list(thread_id, limit=3, after=newest.data[-1].id)]
            assert texts_of(older) == list("6543210")
            async for message in messages.list(thread_id, limit=3):
                await messages.delete(message.id, thread_id=thread_id)
            assert (await messages.list(thread_id)).data == []
            assert (await async_client.beta.threads.delete(thread_id)).deleted

    asyncio.run(work())
    assert len(validated) > 30
    refusal(NotFoundError, lambda: client.beta.threads.retrieve(thread_id))


# Refusals and raw responses


@check
def refusal_names_the_field_and_the_reason(client: OpenAI) -> None:
    thread = client.beta.threads.create()
    messages = client.beta.threads.messages

    def create(**body: Any) -> object:
        return messages.create(thread.id, **{"role": "user", "content": "x", **body})

    one = "ensure this value has at least 1 characters"
    cases: list[tuple[Callable[[], object], str, str, str]] = [
        (lambda: create(content=""), "content", one, "value_error.any_str.min_length"),
        (lambda: create(content=5), "content", "str type expected", "type_error.str"),
        (
            lambda: create(content=[]),
            "content",
            "ensure this value has at least 1 items",
            "value_error.list.min_items",
        ),
        (
            lambda: create(content=[{"type": "text", "text": ""}]),
            "content.0.text",
            one,
            "value_error.any_str.min_length",
        ),
        (
            lambda: create(role="system"),
            "role",
            "value is not a valid enumeration member; permitted: 'user', 'assistant'",
            "type_error.enum",
        ),
        (lambda: create(metadata={"k": 5}), "metadata.k", "str type expected", "type_error.str"),
        (lambda: create(attachments=[{}]), "attachments.0.file_id", "field required", "value_error.missing"),
        (lambda: create(extra_body={"x": 1}), "x", "extra fields not permitted", "value_error.extra"),
        (
            lambda: messages.list(thread.id, limit=0),
            "limit",
            "ensure this value is greater than or equal to 1",
            "value_error.number.not_ge",
        ),
        (
            lambda: messages.list(thread.id, limit=101),
            "limit",
            "ensure this value is less than or equal to 100",
            "value_error.number.not_le",
        ),
        (
            lambda: messages.list(thread.id, after="msg_none"),
            "after",
            "no such message in this thread",
            "value_error.cursor",
        ),
    ]
    for call, param, message, code in cases:
        error = refusal(UnprocessableEntityError, call)
        assert (error.status_code, error.param, error.code, error.type) == (422, param, code, "invalid_request_error")
        assert error.body == {
            "message": f"{param}: {message}",
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }
        first = error.response.json()["detail"][0]
        assert (".".join(map(str, first["loc"][1:])), first["msg"], first["type"]) == (param, message, code)
        assert error.request_id


@check
def missing_object_is_not_found(client: OpenAI) -> None:
    threads = client.beta.threads
    thread = threads.create()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: threads.retrieve("thread_none"), "Thread with ID 'thread_none' not found"),
        (lambda: threads.retrieve("ünknown '\"😀"), "Thread with ID 'ünknown '\"😀' not found"),
        (
            lambda: threads.messages.retrieve("msg_none", thread_id=thread.id),
            f"Message with ID 'msg_none' in thread '{thread.id}' not found",
        ),
    ]
    for call, message in cases:
        error = refusal(NotFoundError, call)
        assert (error.code, error.param, error.type) == (None, None, "invalid_request_error")
        assert error.body == {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        assert error.response.json()["detail"] == message
    not_served: list[Callable[[], object]] = [
        lambda: threads.create_and_run(assistant_id="asst_1"),
        lambda: threads.runs.create(thread.id, assistant_id="asst_1"),
        lambda: threads.runs.list(thread.id),
        lambda: threads.runs.retrieve("run_1", thread_id=thread.id),
    ]
    for call in not_served:
        error = refusal(NotFoundError, call)
        assert "'runs' is not part of this service" in str(error)
        assert (error.code, error.param, error.type) == (None, None, "invalid_request_error")
        assert error.response.json()["detail"] == "Not Found"


@check
def raw_responses_carry_a_request_id(client: OpenAI) -> None:
    raw = client.beta.threads.with_raw_response.create()
    thread = raw.parse()
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.request_id == thread._request_id
    own = client.beta.threads.messages.with_raw_response.create(
        thread.id, role="user", content="x", extra_headers={"X-Request-Id": "mine"}
    )
    assert own.headers["x-request-id"] == "mine"
    assert texts_of([own.parse()]) == ["x"]
    error = refusal(NotFoundError, lambda: client.beta.threads.with_raw_response.retrieve("thread_none"))
    assert error.request_id == error.response.headers["x-request-id"]


@check
def base_url_works_with_and_without_v1(client: OpenAI) -> None:
    bare = str(client.base_url).rstrip("/").removesuffix("/v1")
    thread_id = thread_of(client, range(5))
    for base_url in (bare, f"{bare}/", f"{bare}/v1", f"{bare}/v1/"):
        moved = client.with_options(base_url=base_url)
        assert texts_of(moved.beta.threads.messages.list(thread_id, limit=2, order="asc")) == list("01234")
        created = moved.beta.threads.create(metadata={"at": "there"})
        assert client.beta.threads.retrieve(created.id) == created


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    failing = 0
    for each in CHECKS:
        sentence = each.__name__.replace("_", " ")
        try:
            with validating_client(sys.argv[1].rstrip("/") + "/v1") as client:
                each(client)
        except Exception:
            failing += 1
            print(f"FAIL {sentence}\n{traceback.format_exc()}")
        else:
            print(f"ok   {sentence}")
    print(f"{len(CHECKS)} checks, {failing} failing")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
