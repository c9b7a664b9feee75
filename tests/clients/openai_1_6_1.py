"""openai_1_6_1.py BASE_URL: check a running service with openai-python 1.6.1 (first Assistants API).

The program is like openai_current.py, but uses the default shape. scripts/check-openai-1.6.1 runs it in a separate
environment. The program prints one line per check. It exits with status 1 if a check fails.
"""

import sys
import traceback
from contextlib import contextmanager
from typing import Literal

import httpx
import openai
from openai import NotFoundError, OpenAI, UnprocessableEntityError
from openai.pagination import SyncCursorPage
from openai.types.beta import Thread, ThreadDeleted
from openai.types.beta.threads import ThreadMessage
from openai.types.beta.threads.messages import MessageFile
from pydantic import BaseModel

TEXTS = [
    "hello",
    " spaced \n",
    "héllo 😀",
    "e\u0301 is not é",
    "שלום\u200f",
    "\u2028\u2029\ufeff\uffff",
    "{}",
    "😀" * 32768,
]
# The maximum number of responses in one check. It stops a check whose list never ends.
MANY = 1000


class MessageDeleted(BaseModel):
    """The response to a request that deletes a message. This SDK has neither this call nor a model for its response."""

    id: str
    deleted: bool
    object: Literal["thread.message.deleted"]


class ErrorBody(BaseModel):
    """The body of an error response in the default shape."""

    detail: str | list


MODELS = {
    "thread": Thread,
    "thread.deleted": ThreadDeleted,
    "thread.message": ThreadMessage,
    "thread.message.deleted": MessageDeleted,
    "thread.message.file": MessageFile,
}
PAGES = {True: SyncCursorPage[MessageFile], False: SyncCursorPage[ThreadMessage]}


def validate(response):
    """Validate a response strictly. Raise if the SDK has no model for the object or if the model rejects it."""
    response.read()
    answer = response.json()
    if not response.is_success:
        model = ErrorBody
        assert "error" not in answer
    elif answer["object"] == "list":
        model = PAGES[response.url.path.endswith("/files")]
    else:
        model = MODELS[answer["object"]]
    model.model_validate(answer, strict=True)


@contextmanager
def validating_client(base_url):
    """Yield a client that raises if a response is invalid. At the end, raise if no request succeeded."""
    validated = []

    def count(response):
        validated.append(response)
        assert len(validated) < MANY, "a list has no end"

    hooks = {"response": [validate, count]}
    # The SDK turns an exception in a hook into an APIConnectionError. By default it would retry the request, and each
    # retry would fail in the same way.
    with OpenAI(
        base_url=base_url,
        api_key="none",
        max_retries=0,
        http_client=httpx.Client(event_hooks=hooks, trust_env=False, timeout=60),
    ) as client:
        yield client
    assert any(response.is_success for response in validated), "no response was validated"


def refusal(expected, call):
    """Return the expected exception that a call raises. Raise AssertionError if the call succeeds."""
    try:
        call()
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was not raised")


def thread_of(client, texts):
    """Create a thread with one message per text. Return the thread's id."""
    return client.beta.threads.create(messages=[{"role": "user", "content": str(text)} for text in texts]).id


def texts_of(messages):
    return [part.text.value for message in messages for part in message.content if part.type == "text"]


def delete(client, thread_id, message_id):
    path = f"/threads/{thread_id}/messages/{message_id}"
    return client.delete(path, cast_to=dict[str, object], options={"headers": {"OpenAI-Beta": "assistants=v1"}})


CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


# Threads


@check
def empty_thread_is_created_and_retrieved(client):
    thread = client.beta.threads.create()
    assert thread.id.startswith("thread_")
    assert thread.metadata == {}
    assert client.beta.threads.retrieve(thread.id) == thread
    assert client.beta.threads.messages.list(thread.id).data == []


@check
def thread_is_created_with_messages_and_metadata(client):
    thread = client.beta.threads.create(
        messages=[
            {"role": "user", "content": "one", "metadata": {"n": "1"}},
            {"role": "user", "content": "two 😀", "file_ids": ["file-1"]},
        ],
        metadata={"a": "b", "é": "😀"},
    )
    assert thread.metadata == {"a": "b", "é": "😀"}
    messages = client.beta.threads.messages.list(thread.id, order="asc").data
    assert texts_of(messages) == ["one", "two 😀"]
    assert [message.metadata for message in messages] == [{"n": "1"}, {}]
    assert [message.file_ids for message in messages] == [[], ["file-1"]]
    assert [message.thread_id for message in messages] == [thread.id] * 2


@check
def thread_metadata_is_merged_key_by_key(client):
    thread = client.beta.threads.create(metadata={"a": "1", "b": "2"})
    changed = client.beta.threads.update(thread.id, metadata={"b": "3", "c": "4"})
    assert changed.metadata == {"a": "1", "b": "3", "c": "4"}
    removed = client.beta.threads.update(thread.id, metadata={"a": None, "nowhere": None, "d": "5"})
    assert removed.metadata == {"b": "3", "c": "4", "d": "5"}
    assert client.beta.threads.update(thread.id) == removed
    assert client.beta.threads.update(thread.id, metadata=None) == removed
    assert client.beta.threads.retrieve(thread.id) == removed


@check
def deleted_thread_and_its_messages_are_not_found(client):
    thread_id = thread_of(client, ["x"])
    (message,) = client.beta.threads.messages.list(thread_id).data
    deleted = client.beta.threads.delete(thread_id)
    assert (deleted.id, deleted.object, deleted.deleted) == (thread_id, "thread.deleted", True)
    for call in (
        lambda: client.beta.threads.retrieve(thread_id),
        lambda: client.beta.threads.update(thread_id, metadata={"a": "b"}),
        lambda: client.beta.threads.delete(thread_id),
        lambda: client.beta.threads.messages.list(thread_id),
        lambda: client.beta.threads.messages.create(thread_id, role="user", content="x"),
        lambda: client.beta.threads.messages.retrieve(message.id, thread_id=thread_id),
        lambda: client.beta.threads.messages.update(message.id, thread_id=thread_id, metadata={"a": "b"}),
        lambda: client.beta.threads.messages.files.list(message.id, thread_id=thread_id),
    ):
        assert refusal(NotFoundError, call).body == {"detail": f"Thread with ID '{thread_id}' not found"}


# Messages: create, retrieve, change


@check
def text_is_returned_unchanged(client):
    thread = client.beta.threads.create()
    for text in TEXTS:
        created = client.beta.threads.messages.create(thread.id, role="user", content=text, metadata={"k": text[:512]})
        assert texts_of([created]) == [text]
        assert created.content[0].text.annotations == []
        assert created.metadata == {"k": text[:512]}
        assert (created.thread_id, created.role, created.file_ids) == (thread.id, "user", [])
        assert (created.assistant_id, created.run_id) == ("", "")
        assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == created
    assert texts_of(client.beta.threads.messages.list(thread.id, order="asc")) == TEXTS


@check
def message_metadata_is_merged_key_by_key(client):
    thread = client.beta.threads.create()
    created = client.beta.threads.messages.create(thread.id, role="user", content="x", metadata={"a": "1", "b": "2"})
    changed = client.beta.threads.messages.update(created.id, thread_id=thread.id, metadata={"b": "3", "c": "4"})
    assert changed.metadata == {"a": "1", "b": "3", "c": "4"}
    removed = client.beta.threads.messages.update(
        created.id, thread_id=thread.id, metadata={"a": None, "nowhere": None, "d": "5"}
    )
    assert removed.metadata == {"b": "3", "c": "4", "d": "5"}
    assert client.beta.threads.messages.retrieve(created.id, thread_id=thread.id) == removed
    assert texts_of([removed]) == ["x"]


@check
def message_of_a_newer_client_is_readable(client):
    thread = client.beta.threads.create()
    created = client.beta.threads.messages.create(
        thread.id,
        role="assistant",
        content=[
            {"type": "text", "text": "look"},
            {"type": "image_file", "image_file": {"file_id": "file-1"}},
        ],
        extra_headers={"OpenAI-Beta": "assistants=v2"},
        extra_body={"assistant_id": "asst_1", "run_id": "run_1", "attachments": [{"file_id": "file-2"}]},
    )
    read = client.beta.threads.messages.retrieve(created.id, thread_id=thread.id)
    assert (read.role, read.assistant_id, read.run_id) == ("assistant", "asst_1", "run_1")
    assert [part.type for part in read.content] == ["text", "image_file"]
    assert read.content[1].image_file.file_id == "file-1"
    assert read.file_ids == ["file-2"]
    assert not hasattr(read, "status")
    assert client.beta.threads.messages.list(thread.id).data == [read]


# Messages: files


@check
def files_of_a_message_are_listed_and_retrieved(client):
    thread = client.beta.threads.create()
    names = ["file-1", "file-2", "file-1", "file-3", "file-ü"]
    message = client.beta.threads.messages.create(thread.id, role="user", content="x", file_ids=names)
    assert message.file_ids == names
    once = ["file-1", "file-2", "file-3", "file-ü"]
    files = client.beta.threads.messages.files
    of_message = {"message_id": message.id, "thread_id": thread.id}
    assert [file.id for file in files.list(**of_message)] == once[::-1]
    for limit in (1, 2, 3, 4, 20):
        assert [file.id for file in files.list(**of_message, limit=limit, order="asc")] == once
        assert [file.id for file in files.list(**of_message, limit=limit, order="desc")] == once[::-1]
        assert [file.id for file in files.list(**of_message, limit=limit, order="asc", after="file-2")] == once[2:]
        nearest = files.list(**of_message, limit=limit, order="asc", before="file-3")
        assert [file.id for file in nearest] == once[:2][-limit:]
    for name in once:
        file = files.retrieve(name, **of_message)
        assert (file.id, file.message_id, file.created_at) == (name, message.id, message.created_at)
    none = refusal(NotFoundError, lambda: files.retrieve("file-none", **of_message))
    assert none.body == {"detail": f"File with ID 'file-none' in message '{message.id}' not found"}
    bare = client.beta.threads.messages.create(thread.id, role="user", content="x")
    assert files.list(bare.id, thread_id=thread.id).data == []


# Messages: lists. This SDK ignores has_more and requests pages until it receives an empty page.


@check
def iteration_ends_at_an_empty_page_in_either_order(client):
    for count in (0, 1, 7, 21):
        texts = [str(number) for number in range(count)]
        thread_id = thread_of(client, texts)
        assert texts_of(client.beta.threads.messages.list(thread_id)) == texts[::-1]
        for limit in (1, 3, 7, 20, 100):
            for order, expected in (("asc", texts), ("desc", texts[::-1])):
                pages = list(client.beta.threads.messages.list(thread_id, limit=limit, order=order).iter_pages())
                assert texts_of(message for page in pages for message in page.data) == expected
                full, rest = divmod(count, limit)
                sizes = [limit] * full + ([rest] if rest else [])
                assert [len(page.data) for page in pages] == [*sizes, 0]


@check
def after_and_before_follow_the_order_of_the_list(client):
    thread_id = thread_of(client, range(9))
    ids = dict(zip("876543210", [message.id for message in client.beta.threads.messages.list(thread_id)], strict=True))

    def texts(order, limit, **cursors):
        named = {name: ids[text] for name, text in cursors.items()}
        return "".join(texts_of(client.beta.threads.messages.list(thread_id, order=order, limit=limit, **named)))

    for limit in (1, 2, 3, 20):
        assert texts("asc", limit, after="5") == "678"
        assert texts("desc", limit, after="5") == "43210"
        # The first page ends just before the message `before`. The SDK sends the same `before` with its next request,
        # so the next page is empty.
        assert texts("asc", limit, before="4") == "0123"[-limit:]
        assert texts("desc", limit, before="4") == "8765"[-limit:]
        assert texts("asc", limit, after="1", before="7") == "23456"
        assert texts("desc", limit, after="7", before="1") == "65432"
        assert texts("asc", limit, after="7", before="1") == ""


@check
def all_messages_can_be_deleted_while_listing_them(client):
    for order in ("asc", "desc"):
        for limit in (1, 3, 11, 100):
            thread_id = thread_of(client, range(11))
            for message in client.beta.threads.messages.list(thread_id, limit=limit, order=order):
                assert delete(client, thread_id, message.id)["id"] == message.id
            assert client.beta.threads.messages.list(thread_id).data == []


# Refusals and raw responses


@check
def refusal_names_the_field_and_the_reason(client):
    thread = client.beta.threads.create()
    messages = client.beta.threads.messages

    def create(**body):
        return messages.create(thread.id, **{"role": "user", "content": "x", **body})

    permitted = {"enum_values": ["user"]}
    for call, loc, message, error_type, ctx in (
        (
            lambda: create(content=""),
            ["body", "content"],
            "ensure this value has at least 1 characters",
            "value_error.any_str.min_length",
            {"limit_value": 1},
        ),
        (
            lambda: create(content=[{"type": "text", "text": "x"}]),
            ["body", "content"],
            "str type expected",
            "type_error.str",
            None,
        ),
        (
            lambda: create(role="assistant"),
            ["body", "role"],
            "value is not a valid enumeration member; permitted: 'user'",
            "type_error.enum",
            permitted,
        ),
        (lambda: create(metadata={"k": 5}), ["body", "metadata", "k"], "str type expected", "type_error.str", None),
        (
            lambda: create(file_ids=["f"] * 11),
            ["body", "file_ids"],
            "ensure this value has at most 10 items",
            "value_error.list.max_items",
            {"limit_value": 10},
        ),
        (
            lambda: create(extra_body={"attachments": []}),
            ["body", "attachments"],
            "extra fields not permitted",
            "value_error.extra",
            None,
        ),
        (
            lambda: messages.list(thread.id, limit=101),
            ["query", "limit"],
            "ensure this value is less than or equal to 100",
            "value_error.number.not_le",
            {"limit_value": 100},
        ),
        (
            lambda: messages.list(thread.id, before="msg_none"),
            ["query", "before"],
            "no such message in this thread",
            "value_error.cursor",
            None,
        ),
    ):
        error = refusal(UnprocessableEntityError, call)
        item = {"loc": loc, "msg": message, "type": error_type, **({"ctx": ctx} if ctx else {})}
        assert (error.status_code, error.body) == (422, {"detail": [item]})


@check
def missing_object_is_not_found(client):
    threads = client.beta.threads
    thread = threads.create()
    for call, detail in (
        (lambda: threads.retrieve("thread_none"), "Thread with ID 'thread_none' not found"),
        (lambda: threads.retrieve("ünknown '\"😀"), "Thread with ID 'ünknown '\"😀' not found"),
        (
            lambda: threads.messages.retrieve("msg_none", thread_id=thread.id),
            f"Message with ID 'msg_none' in thread '{thread.id}' not found",
        ),
        # This SDK sends a request even if the id is empty.
        (lambda: threads.retrieve(""), "Not Found"),
        (lambda: threads.create_and_run(assistant_id="asst_1"), "Not Found"),
        (lambda: threads.runs.create(thread.id, assistant_id="asst_1"), "Not Found"),
        (lambda: client.beta.assistants.list(), "Not Found"),
    ):
        assert refusal(NotFoundError, call).body == {"detail": detail}


@check
def raw_responses_carry_a_request_id(client):
    raw = client.beta.threads.with_raw_response.create()
    assert raw.headers["x-request-id"]
    assert raw.parse().id.startswith("thread_")
    own = client.beta.threads.with_raw_response.create(extra_headers={"X-Request-Id": "mine"})
    assert own.headers["x-request-id"] == "mine"


@check
def base_url_works_with_and_without_v1(client):
    bare = str(client.base_url).rstrip("/").removesuffix("/v1")
    thread_id = thread_of(client, range(5))
    for base_url in (bare, f"{bare}/", f"{bare}/v1", f"{bare}/v1/"):
        moved = client.with_options(base_url=base_url)
        assert texts_of(moved.beta.threads.messages.list(thread_id, limit=2, order="asc")) == list("01234")
        created = moved.beta.threads.create(metadata={"at": "there"})
        assert client.beta.threads.retrieve(created.id) == created


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    assert openai.__version__ == "1.6.1", openai.__version__
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
