"""Create and retrieve threads: POST /threads and GET /threads/{thread_id}."""

import time
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread
from tests import engines
from tests.conftest import Api, connection, detail_of, in_transaction
from tests.rows import new_thread

GOOD = {"role": "user", "content": "hello"}


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"metadata":null}', b'{"metadata":{}}'])
def test_thread_can_be_created_without_fields(api: Api, prefix: str, body: bytes) -> None:
    before = int(time.time())
    answer = api.post(f"{prefix}/threads", body)
    row = Thread.objects.get(id=answer.body["id"])
    assert answer.status == 200
    assert answer.body == {
        "_id": row.object_id,
        "id": row.id,
        "object": "thread",
        "created_at": int(row.created_at.timestamp()),
        "metadata": {},
    }
    assert before <= answer.body["created_at"] <= time.time()
    assert (row.tenant, row.metadata, row.deleted_at) == ("default", {}, None)


def test_thread_can_be_retrieved_with_its_metadata(api: Api) -> None:
    metadata = {"customer": "Zoë", "": "", "a.b": "$"}
    created = api.post("/threads", {"metadata": metadata})
    assert (created.status, created.body["metadata"]) == (200, metadata)
    for prefix in ("", "/v1"):
        read = api.get(f"{prefix}/threads/{created.body['id']}")
        assert (read.status, read.body) == (200, created.body)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"[]", [detail_of("dict")]),
        (b"0", [detail_of("dict")]),
        (b'""', [detail_of("dict")]),
        (b"false", [detail_of("dict")]),
        ({"metadata": []}, [detail_of("dict", "metadata")]),
        (
            {"metadata": {"a": 1}, "b": 1, "a": None},
            [detail_of("str", "metadata", "a"), detail_of("extra", "a"), detail_of("extra", "b")],
        ),
        ({"metadata": {str(i): "" for i in range(17)}}, [detail_of("pairs", "metadata", limit_value=16)]),
        *[({"messages": value}, [detail_of("list", "messages")]) for value in ("", 5, True, {}, GOOD)],
        ({"messages": [None] * 101}, [detail_of("many", "messages", limit_value=100)]),
        (
            {
                "b": 1,
                "metadata": {"k": 5},
                "messages": [
                    GOOD,
                    None,
                    [],
                    {},
                    {**GOOD, "role": "assistant", "x": 1},
                    {**GOOD, "content": [], "file_ids": ["f"] * 11, "metadata": {"k": None}},
                    GOOD,
                    "text",
                ],
                "a": 1,
            },
            [
                detail_of("null", "messages", 1),
                detail_of("dict", "messages", 2),
                detail_of("missing", "messages", 3, "role"),
                detail_of("missing", "messages", 3, "content"),
                detail_of("enum", "messages", 4, "role", enum_values=["user"]),
                detail_of("extra", "messages", 4, "x"),
                detail_of("str", "messages", 5, "content"),
                detail_of("many", "messages", 5, "file_ids", limit_value=10),
                detail_of("null", "messages", 5, "metadata", "k"),
                detail_of("dict", "messages", 7),
                detail_of("str", "metadata", "k"),
                detail_of("extra", "a"),
                detail_of("extra", "b"),
            ],
        ),
    ],
)
def test_invalid_thread_gets_every_error_and_stores_nothing(api: Api, body: Any, detail: list[dict[str, Any]]) -> None:
    before = Thread.objects.count(), Message.objects.count()
    answer = api.post("/threads", body)
    assert (answer.status, answer.body) == (422, {"detail": detail})
    assert (Thread.objects.count(), Message.objects.count()) == before


def test_thread_is_created_with_its_messages_in_order(api: Api) -> None:
    sent = [{**GOOD, "content": f"number {i}", "file_ids": ["f"], "metadata": {"i": str(i)}} for i in range(100)]
    created = api.post("/threads", {"messages": sent, "metadata": {"k": "v"}})
    assert (created.status, set(created.body)) == (200, {"_id", "id", "object", "created_at", "metadata"})
    messages = api.get(f"/threads/{created.body['id']}/messages?order=asc&limit=100").body["data"]
    assert [
        {
            "role": message["role"],
            "content": message["content"][0]["text"]["value"],
            "file_ids": message["file_ids"],
            "metadata": message["metadata"],
        }
        for message in messages
    ] == sent
    later = api.post(f"/threads/{created.body['id']}/messages", GOOD).body["id"]
    assert api.get(f"/threads/{created.body['id']}/messages").body["first_id"] == later
    assert len({message["id"] for message in messages} | {later}) == 101


def test_thread_is_created_with_messages_of_the_v2_shape(api: Api) -> None:
    beta = {"HTTP_OPENAI_BETA": "assistants=v2"}
    part = {"type": "image_url", "image_url": {"url": "https://x.example"}}
    sent = {"role": "assistant", "content": [part], "attachments": [{"file_id": "f"}], "run_id": "r"}
    created = api.post("/threads", {"messages": [sent, GOOD], "tool_resources": {}}, **beta)
    assert (created.status, created.body["tool_resources"]) == (200, None)
    page = api.get(f"/threads/{created.body['id']}/messages?run_id=r", **beta).body
    (message,) = page["data"]
    assert (message["content"], message["attachments"]) == ([part], [{"file_id": "f", "tools": []}])
    too_many = {**GOOD, "attachments": [{"file_id": "f"}], "file_ids": [str(i) for i in range(10)]}
    answer = api.post("/threads", {"messages": [sent, too_many]}, **beta)
    assert answer.body["detail"] == [detail_of("many", "messages", 1, "attachments", limit_value=10)]
    assert answer.body["error"]["param"] == "messages.1.attachments"


@pytest.mark.parametrize("body", [{"messages": None}, {"messages": []}, {"messages": None, "metadata": None}])
def test_thread_without_messages_is_empty(api: Api, body: Any) -> None:
    created = api.post("/threads", body)
    assert created.status == 200
    assert api.get(f"/threads/{created.body['id']}/messages").body["data"] == []


def command_of(sql: str) -> str:
    """Return the first word of a statement. Django logs "70 times: INSERT ..." for an INSERT of 70 rows."""
    return sql.rpartition(" times: ")[2].split()[0]


def test_number_of_messages_does_not_change_the_queries(api: Api) -> None:
    def queries(number: int) -> list[str]:
        with CaptureQueriesContext(connection) as creating:
            assert api.post("/threads", {"messages": [GOOD] * number, "metadata": {"k": "v"}}).status == 200
        return [command_of(query["sql"]) for query in creating]

    # The third statement differs. SQL engines insert rows for the metadata pairs. On MongoDB, the thread's document
    # contains the pairs, and an UPDATE makes the thread visible after its messages are stored.
    statements = ["INSERT", "INSERT", "UPDATE" if engines.chosen == "mongodb" else "INSERT"]
    assert queries(1) == queries(70) == in_transaction(*statements)


def test_body_may_have_up_to_16_mib(api: Api) -> None:
    content = "\\ud83d\\ude00" * 32768
    message = b'{"role":"user","content":"' + content.encode() + b'"}'
    body = b'{"messages":[' + b",".join([message] * 40) + b"]}"
    assert 15 * 2**20 < len(body) < 16 * 2**20
    assert api.post("/threads", body).status == 200
    assert api.post("/threads", body + b" " * 2**20).status == 413


@pytest.mark.stateless
def test_thread_with_another_media_type_is_refused(api: Api) -> None:
    assert api.post("/threads", b"{}", "text/plain").body == {"detail": [detail_of("dict")]}


@pytest.mark.parametrize("unknown", ["x", "thread_01", "a.b", "%00", "x" * 5000])
def test_unknown_thread_is_404(api: Api, unknown: str) -> None:
    answer = api.get(f"/threads/{unknown}")
    decoded = "\0" if unknown == "%00" else unknown
    assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{decoded}' not found"})


def test_threads_of_other_tenants_and_deleted_threads_are_404(api: Api) -> None:
    for thread in (new_thread(tenant="another"), new_thread(deleted_at="2026-01-01T00:00:00Z")):
        thread.save()
        answer = api.get(f"/threads/{thread.id}")
        assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{thread.id}' not found"})


def test_retrieve_is_one_query_and_create_is_one_insert(api: Api, thread_id: str) -> None:
    with CaptureQueriesContext(connection) as reading:
        api.get(f"/threads/{thread_id}")
    with CaptureQueriesContext(connection) as creating:
        api.post("/threads")
    assert [query["sql"].split()[0] for query in reading] == ["SELECT"]
    assert [command_of(query["sql"]) for query in creating] == in_transaction("INSERT")
