"""POST /threads and GET /threads/{thread_id}."""

import time
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from messages_app.models import Thread
from tests.conftest import Api, detail_of


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"metadata":null}', b'{"metadata":{}}'])
def test_thread_is_made_of_nothing(api: Api, prefix: str, body: bytes) -> None:
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


def test_thread_keeps_its_metadata_and_is_read_back(api: Api) -> None:
    metadata = {"customer": "Zoë", "": "", "a.b": "$"}
    made = api.post("/threads", {"metadata": metadata})
    assert (made.status, made.body["metadata"]) == (200, metadata)
    for prefix in ("", "/v1"):
        read = api.get(f"{prefix}/threads/{made.body['id']}")
        assert (read.status, read.body) == (200, made.body)


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
    ],
)
def test_bad_thread_is_refused_with_every_error(api: Api, body: Any, detail: list[dict[str, Any]]) -> None:
    answer = api.post("/threads", body)
    assert (answer.status, answer.body) == (422, {"detail": detail})


def test_thread_with_another_media_type_is_refused(api: Api) -> None:
    assert api.post("/threads", b"{}", "text/plain").body == {"detail": [detail_of("dict")]}


@pytest.mark.parametrize("unknown", ["x", "thread_01", "a.b", "%00", "x" * 5000])
def test_unknown_thread_is_404(api: Api, unknown: str) -> None:
    answer = api.get(f"/threads/{unknown}")
    meant = "\0" if unknown == "%00" else unknown
    assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{meant}' not found"})


def test_threads_of_other_tenants_and_deleted_ones_are_missing(api: Api) -> None:
    for thread in (Thread.new(tenant="another"), Thread.new(deleted_at="2026-01-01T00:00:00Z")):
        thread.save()
        answer = api.get(f"/threads/{thread.id}")
        assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{thread.id}' not found"})


def test_reading_a_thread_is_one_query_and_making_one_an_insert(api: Api, thread_id: str) -> None:
    with CaptureQueriesContext(connection) as reading:
        api.get(f"/threads/{thread_id}")
    with CaptureQueriesContext(connection) as making:
        api.post("/threads")
    assert [query["sql"].split()[0] for query in reading] == ["SELECT"]
    assert [query["sql"].split()[0] for query in making] == ["BEGIN", "INSERT", "COMMIT"]
