"""POST /threads/{thread_id}/messages: accepted values, stored rows, refusals and the order of errors."""

import time
from pathlib import Path
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread
from tests import engines
from tests.conftest import WITH_TEST_PACKAGES, Api, connection, detail_of, manage, migrate
from tests.rows import new_thread

GOOD = {"role": "user", "content": "hello"}


def post(api: Api, thread_id: str, body: Any) -> Any:
    answer = api.post(f"/threads/{thread_id}/messages", body)
    return answer.status, answer.body


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_message_is_returned_in_full_and_stored(api: Api, thread_id: str, prefix: str) -> None:
    before = int(time.time())
    answer = api.post(
        f"{prefix}/threads/{thread_id}/messages",
        {"role": "user", "content": "How does AI work?", "file_ids": ["f2", "f1", "f2"], "metadata": {"k": "v"}},
    )
    row = Message.objects.get(id=answer.body["id"])
    assert answer.status == 200
    assert answer.body == {
        "_id": row.object_id,
        "id": row.id,
        "object": "thread.message",
        "created_at": int(row.created_at.timestamp()),
        "thread_id": thread_id,
        "role": "user",
        "content": [{"type": "text", "text": {"value": "How does AI work?", "annotations": []}}],
        "assistant_id": "",
        "run_id": "",
        "file_ids": ["f2", "f1", "f2"],
        "metadata": {"k": "v"},
    }
    assert before <= answer.body["created_at"] <= time.time()
    assert (row.thread_id, row.role, row.content) == (thread_id, "user", answer.body["content"])
    assert row.attachments == [{"file_id": file_id, "tools": []} for file_id in ["f2", "f1", "f2"]]
    assert (row.metadata, row.position, row.deleted_at) == ({"k": "v"}, 1, None)


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("file_ids", None, []),
        ("file_ids", [], []),
        ("file_ids", ["", " a ", "x" * 5000], ["", " a ", "x" * 5000]),
        ("file_ids", [str(i) for i in range(10)], [str(i) for i in range(10)]),
        ("metadata", None, {}),
        ("metadata", {}, {}),
        ("metadata", {"": ""}, {"": ""}),
        ("metadata", {"k" * 64: "v" * 512}, {"k" * 64: "v" * 512}),
        ("metadata", {"😀" * 64: "😀" * 512}, {"😀" * 64: "😀" * 512}),
        ("metadata", {f"k{i}": "v" for i in range(16)}, {f"k{i}": "v" for i in range(16)}),
        ("metadata", {"a.b": "1", "$where": "2", "__key__": "3"}, {"a.b": "1", "$where": "2", "__key__": "3"}),
    ],
)
def test_optional_field_is_returned_and_stored(api: Api, thread_id: str, field: str, value: Any, shown: Any) -> None:
    status, message = post(api, thread_id, {**GOOD, field: value})
    assert status == 200
    assert message[field] == shown
    assert getattr(Message.objects.get(id=message["id"]), field) == shown


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\t\r\n",
        "  x  ",
        "e\u0301 and \u00e9",  # Unicode normalization would change this text
        "\u2028\u2029\ufeff\u200d\u202e",
        "\x01\x1f\x7f",
        "<script>alert(1)</script> 'quotes' \"too\" \\ %s {0} ${x}",
        "\U0010ffff\uffff",
        "😀" * 32768,
    ],
)
def test_text_is_returned_and_stored_unchanged(api: Api, thread_id: str, text: str) -> None:
    status, message = post(api, thread_id, {**GOOD, "content": text})
    assert status == 200
    assert message["content"][0]["text"]["value"] == text
    assert Message.objects.get(id=message["id"]).text == text


NOT_TEXT: list[Any] = [5, 0, 1.5, True, False, [], ["a"], {}, {"a": 1}]

EXTRA_KEYS: list[tuple[str, Any]] = [
    ("id", None),
    ("", 1),
    ("self", {}),
    ("__proto__", []),
    ("Role", "user"),
    ("role ", "user"),
    ("thread_id", "x"),
    ("assistant_id", "x"),
    ("attachments", []),
    ("a\0b", 1),
]

REFUSALS: list[tuple[str, Any, list[dict[str, Any]]]] = [
    *[
        ("role", value, [detail_of("enum", "role", enum_values=["user"])])
        for value in ["assistant", "User", " user", "user ", "", "us\0er", "\ud800", *NOT_TEXT]
    ],
    ("role", None, [detail_of("null", "role")]),
    *[("content", value, [detail_of("str", "content")]) for value in NOT_TEXT],
    ("content", None, [detail_of("null", "content")]),
    ("content", "", [detail_of("short", "content", limit_value=1)]),
    ("content", "a" * 32769, [detail_of("long", "content", limit_value=32768)]),
    ("content", "😀" * 32769, [detail_of("long", "content", limit_value=32768)]),
    ("content", "\0" + "a" * 32768, [detail_of("long", "content", limit_value=32768)]),
    ("content", "a\0", [detail_of("nul", "content")]),
    ("content", "\ud800\0", [detail_of("nul", "content")]),
    ("content", "\udfff", [detail_of("surrogate", "content")]),
    ("content", "a\ude00\ud83d", [detail_of("surrogate", "content")]),
    *[("file_ids", value, [detail_of("list", "file_ids")]) for value in ["", "a", 0, 1, True, False, {}, {"0": "a"}]],
    ("file_ids", ["f"] * 11, [detail_of("many", "file_ids", limit_value=10)]),
    ("file_ids", [None] * 11, [detail_of("many", "file_ids", limit_value=10)]),
    (
        "file_ids",
        ["a", None, 1, "\0", "\udc00", [], {}, True],
        [
            detail_of("null", "file_ids", 1),
            detail_of("str", "file_ids", 2),
            detail_of("nul", "file_ids", 3),
            detail_of("surrogate", "file_ids", 4),
            *[detail_of("str", "file_ids", i) for i in (5, 6, 7)],
        ],
    ),
    *[("metadata", value, [detail_of("dict", "metadata")]) for value in ["", "a", 0, 1, True, False, [], [["a", "b"]]]],
    ("metadata", {str(i): "v" for i in range(17)}, [detail_of("pairs", "metadata", limit_value=16)]),
    ("metadata", {str(i): None for i in range(17)}, [detail_of("pairs", "metadata", limit_value=16)]),
    ("metadata", {"k" * 65: "v"}, [detail_of("long", "metadata", "__key__", limit_value=64)]),
    ("metadata", {"k\0": "v"}, [detail_of("nul", "metadata", "__key__")]),
    ("metadata", {"\ud83d": "v"}, [detail_of("surrogate", "metadata", "__key__")]),
    ("metadata", {"k": "v" * 513}, [detail_of("long", "metadata", "k", limit_value=512)]),
    *[("metadata", {"1": value}, [detail_of("str", "metadata", "1")]) for value in NOT_TEXT],
    (
        "metadata",
        # If a key is invalid, its value is not checked. The errors are in the order of the pairs.
        {"k" * 65: None, "b": None, "\0": 1, "a": "\0", "__key__": "\ud800"},
        [
            detail_of("long", "metadata", "__key__", limit_value=64),
            detail_of("null", "metadata", "b"),
            detail_of("nul", "metadata", "__key__"),
            detail_of("nul", "metadata", "a"),
            detail_of("surrogate", "metadata", "__key__"),
        ],
    ),
    *[(key, value, [detail_of("extra", key)]) for key, value in EXTRA_KEYS],
    ("a\udc00", 1, [detail_of("extra", "a\ufffd")]),
]


@pytest.mark.parametrize(("field", "value", "detail"), REFUSALS)
def test_bad_value_is_refused_with_every_error(
    api: Api, thread_id: str, field: str, value: Any, detail: list[dict[str, Any]]
) -> None:
    assert post(api, thread_id, {**GOOD, field: value}) == (422, {"detail": detail})
    assert not Message.objects.filter(thread_id=thread_id).exists()


def test_errors_of_fields_precede_extra_keys_by_code_point(api: Api, thread_id: str) -> None:
    body = {"\uffff": 1, "\U00010000": 1, "zz": 1, "9": 1, "10": 1, "_": 1, "Beta": 1, "metadata": 1, "file_ids": 1}
    expected = [
        detail_of("missing", "role"),
        detail_of("missing", "content"),
        detail_of("list", "file_ids"),
        detail_of("dict", "metadata"),
        *[detail_of("extra", key) for key in ["10", "9", "Beta", "_", "zz", "\uffff", "\U00010000"]],
    ]
    assert post(api, thread_id, body) == (422, {"detail": expected})


@pytest.mark.parametrize("body", [b"", b"null"])
def test_no_body_is_one_error(api: Api, thread_id: str, body: bytes) -> None:
    assert post(api, thread_id, body) == (422, {"detail": [detail_of("missing")]})


@pytest.mark.parametrize("body", [b"0", b"false", b"true", b'""', b'"a"', b"[]", b"[1]", b'[["role","user"]]', b"1.5"])
def test_body_that_is_not_an_object_is_one_error(api: Api, thread_id: str, body: bytes) -> None:
    assert post(api, thread_id, body) == (422, {"detail": [detail_of("dict")]})


@pytest.mark.parametrize("unknown", ["thread_none", "x" * 3000, "it's \"<é>", "a%00b", "a%0Ab", "thread_01%"])
def test_unknown_thread_is_404_with_the_decoded_id(api: Api, unknown: str) -> None:
    decoded = unknown.replace("%00", "\0").replace("%0A", "\n")
    assert post(api, unknown, GOOD) == (404, {"detail": f"Thread with ID '{decoded}' not found"})


def test_thread_of_another_tenant_is_not_found(api: Api) -> None:
    thread = new_thread(tenant="another")
    thread.save()
    assert post(api, thread.id, GOOD) == (404, {"detail": f"Thread with ID '{thread.id}' not found"})


def test_deleted_thread_is_not_found(api: Api, thread_id: str) -> None:
    Thread.objects.filter(id=thread_id).update(deleted_at="2026-01-01T00:00:00Z")
    assert post(api, thread_id, GOOD) == (404, {"detail": f"Thread with ID '{thread_id}' not found"})


@pytest.mark.stateless
def test_body_is_checked_before_the_thread(api: Api) -> None:
    assert post(api, "thread_none", {**GOOD, "role": None}) == (422, {"detail": [detail_of("null", "role")]})
    assert post(api, "thread_none", b"{")[0] == 422
    assert post(api, "thread_none", b"\xff")[0] == 400


# The statements that store one message. SQLite needs only the INSERT. PostgreSQL first locks the thread. MongoDB reads
# the thread before and after the insert, and also reads the last position.
APPENDED = {
    "sqlite": ["INSERT"],
    "postgresql": ["BEGIN", "SELECT", "INSERT", "COMMIT"],
    "mongodb": ["SELECT", "SELECT", "INSERT", "SELECT"],
}


def test_create_runs_fixed_statements_and_a_refusal_none(api: Api, thread_id: str) -> None:
    with CaptureQueriesContext(connection) as refused:
        post(api, thread_id, {})
    with CaptureQueriesContext(connection) as accepted:
        post(api, thread_id, GOOD)
    assert len(refused) == 0
    assert [query["sql"].split()[0] for query in accepted] == APPENDED[engines.chosen]


def test_query_count_does_not_grow_with_the_thread(api: Api, thread_id: str) -> None:
    for _ in range(30):
        post(api, thread_id, GOOD)
    with CaptureQueriesContext(connection) as queries:
        post(api, thread_id, GOOD)
    assert len(queries) == len(APPENDED[engines.chosen])


@pytest.mark.process
def test_process_keeps_no_data_of_a_request(tmp_path: Path) -> None:
    """Use a new process, because its first requests fill the caches. No cache may keep data of a request."""
    program = """
import gc, time
from django.conf import settings
settings.ALLOWED_HOSTS += ["testserver"]
from tests.conftest import Api
api, secret = Api(), str(time.time_ns())
pairs = {"metadata": {"k": secret}}
thread = api.post("/threads", pairs).body["id"]
message = api.post(f"/threads/{thread}/messages", {"role": "user", "content": secret}).body["id"]
api.post(f"/threads/{thread}/messages", {"role": "user", secret: 1})
api.post(f"/threads/{thread}/messages/{message}", pairs)
api.get(f"/threads/{thread}/messages?after={secret}")
api.get(f"/threads/{thread}/messages")
api.get("/threads")
del pairs
gc.collect()
ours = globals()
held = [thing for thing in gc.get_objects() if isinstance(thing, (dict, list)) and thing is not ours]
texts = [text for thing in held for text in ([*thing, *thing.values()] if type(thing) is dict else [*thing])]
print(sum(secret in text for text in texts if type(text) is str))
"""
    migrate(tmp_path / "data")
    done = manage(tmp_path / "data", "shell", "-v0", "-c", program, THREADSVC_LOG_LEVEL="WARNING", **WITH_TEST_PACKAGES)
    assert (done.stdout, done.stderr) == ("0\n", "")
