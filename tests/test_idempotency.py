"""Idempotency keys: a retry stores nothing twice, even if it is concurrent or follows a crash."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models.signals import post_save, pre_save
from django.http import Http404
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messages_app.models import IdempotencyRecord, Message, Thread
from messages_app.store import deletion, documents, idempotency, transactional
from messages_app.store.deletion import purge
from tests import engines
from tests.conftest import Answer, Api, Served, connection, detail_of, in_transaction, manage, migrate
from tests.rows import append
from threadsvc.access.models import APIKey
from threadsvc.engines.base import DiskFull

GOOD = {"role": "user", "content": "hello ✓", "metadata": {"k": "v"}}
V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}


class Keyed:
    """Sends POST requests with one idempotency key. If no key is given, creates one."""

    def __init__(self, api: Api, key: str | None = None) -> None:
        self.api, self.key = api, uuid4().hex if key is None else key

    def post(self, path: str, body: Any = b"", **meta: str) -> Answer:
        return self.api.post(path, body, HTTP_IDEMPOTENCY_KEY=self.key, **meta)


@pytest.fixture
def keyed(api: Api) -> Keyed:
    return Keyed(api)


def status_and_body(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.body


def is_replay(answer: Answer) -> bool:
    assert answer.status == 200
    assert answer.headers.get("idempotent-replayed") in (None, "true")
    return "idempotent-replayed" in answer.headers


def messages_in(thread: str) -> int:
    return Message.objects.filter(thread_id=thread, deleted_at=None).count()


def records_of(thread: str) -> int:
    return IdempotencyRecord.objects.filter(thread_id=thread).count()


def key_of(tenant: str) -> str:
    return APIKey(name="test", tenant=tenant).issue()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Return a function that moves forward the clock that idempotency keys and the purge use."""

    def shift(by: timedelta) -> None:
        clock = SimpleNamespace(now=lambda: timezone.now() + by)
        for module in (deletion, documents, idempotency, transactional):
            monkeypatch.setattr(module, "timezone", clock)

    return shift


def test_retried_message_is_replayed_and_stored_once(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    first = keyed.post(path, GOOD, HTTP_X_REQUEST_ID="first")
    assert not is_replay(first)
    assert first.body == api.get(f"{path}/{first.body['id']}").body
    for again in (keyed.post(path, GOOD, HTTP_X_REQUEST_ID="again"), keyed.post(f"/v1{path}", GOOD)):
        assert is_replay(again)
        assert (again.body, again.headers["content-length"]) == (first.body, first.headers["content-length"])
        assert again.headers["x-request-id"] != "first"
    assert messages_in(thread_id) == 1
    assert not is_replay(Keyed(api).post(path, GOOD))
    assert not is_replay(api.post(path, GOOD))
    assert messages_in(thread_id) == 3


@pytest.mark.parametrize("body", [b"", b"null", {"metadata": {"a": "b"}, "messages": [GOOD, GOOD]}])
def test_retried_thread_is_replayed_and_stored_once(api: Api, keyed: Keyed, body: Any) -> None:
    first = keyed.post("/threads", body)
    assert not is_replay(first)
    messages = api.get(f"/threads/{first.body['id']}/messages").body["data"]
    for path in ("/threads", "/v1/threads"):
        again = keyed.post(path, body)
        assert is_replay(again)
        assert again.body == first.body
    assert len({message["id"] for message in messages}) == len(messages) == (2 if isinstance(body, dict) else 0)
    assert api.get(f"/threads/{first.body['id']}/messages").body["data"] == messages
    assert Keyed(api).post("/threads", body).body["id"] != first.body["id"]


def test_replay_is_the_first_response_despite_later_changes(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    body = {"role": "assistant", "content": [{"type": "text", "text": "é 🌿"}], "run_id": "r"}
    first = keyed.post(path, body, **V2)
    api.post(f"{path}/{first.body['id']}", {"metadata": {"later": "on"}})
    api.post(f"/threads/{thread_id}", {"metadata": {"later": "on"}})
    again = keyed.post(path, body, **V2)
    assert is_replay(again)
    assert list(again.body.items()) == list(first.body.items())
    assert again.headers["content-length"] == first.headers["content-length"]


def test_key_applies_to_one_path(api: Api, keyed: Keyed, thread_id: str) -> None:
    other = api.post("/threads").body["id"]
    for thread in (thread_id, other):
        assert not is_replay(keyed.post(f"/threads/{thread}/messages", GOOD))
    assert not is_replay(keyed.post("/threads"))
    # Requests that create nothing ignore the key.
    for _ in range(2):
        assert not is_replay(keyed.post(f"/threads/{thread_id}", {"metadata": {"a": "b"}}))


def test_tenants_do_not_share_idempotency_keys(api: Api, keyed: Keyed) -> None:
    answers = [keyed.post("/threads", HTTP_AUTHORIZATION=f"Bearer {key_of(tenant)}") for tenant in ("a", "b", "a")]
    assert [is_replay(answer) for answer in answers] == [False, False, True]
    assert answers[0].body == answers[2].body != answers[1].body
    # Another tenant can use the same idempotency key with a different body.
    assert keyed.post("/threads", {"metadata": {"a": "b"}}, HTTP_AUTHORIZATION=f"Bearer {key_of('c')}").status == 200


REUSED = {
    "loc": ["header", "idempotency-key"],
    "msg": "key was used with another body",
    "type": "value_error.idempotency_key",
}
BAD_KEY = {**REUSED, "msg": "key must be 1 to 255 visible ASCII characters"}


def test_key_reused_with_another_body_or_shape_is_refused(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    first = keyed.post(path, GOOD)
    for other in ({**GOOD, "content": "bye"}, json.dumps(GOOD, indent=1).encode()):
        assert status_and_body(keyed.post(path, other)) == (422, {"detail": [REUSED]})
    refused = keyed.post(path, GOOD, **V2)
    assert (refused.status, refused.body["detail"]) == (422, [REUSED])
    assert refused.body["error"] == {
        "message": "idempotency-key: key was used with another body",
        "type": "invalid_request_error",
        "param": "idempotency-key",
        "code": "value_error.idempotency_key",
    }
    created = keyed.post("/threads", {"metadata": {"a": "b"}})
    assert status_and_body(keyed.post("/threads")) == (422, {"detail": [REUSED]})
    assert keyed.post(path, GOOD).body == first.body
    assert keyed.post("/threads", {"metadata": {"a": "b"}}).body == created.body
    assert messages_in(thread_id) == 1


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "é", "\x7f", "k" * 256])
def test_invalid_key_is_refused_after_all_other_errors(api: Api, thread_id: str, key: str) -> None:
    bad, path = Keyed(api, key), f"/threads/{thread_id}/messages"
    before = Thread.objects.count()
    assert status_and_body(bad.post(path, GOOD)) == (422, {"detail": [BAD_KEY]})
    assert status_and_body(bad.post("/threads")) == (422, {"detail": [BAD_KEY]})
    assert status_and_body(bad.post(path, {"role": "user"})) == (422, {"detail": [detail_of("missing", "content")]})
    assert bad.post("/threads/x/messages", GOOD).status == 404
    assert bad.post(path, b"\xff").status == 400
    assert (messages_in(thread_id), records_of(thread_id)) == (0, 0)
    assert Thread.objects.count() == before


def test_key_of_255_characters_is_valid(api: Api, thread_id: str) -> None:
    long = Keyed(api, "!~" * 127 + "x")
    first = long.post(f"/threads/{thread_id}/messages", GOOD)
    assert long.post(f"/threads/{thread_id}/messages", GOOD).body == first.body


def test_refused_request_stores_no_key(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    assert keyed.post(path, {"role": "user"}).status == 422
    assert keyed.post("/threads", {"messages": [{}]}).status == 422
    assert keyed.post("/threads/none/messages", GOOD).status == 404
    assert records_of("none") == records_of(thread_id) == 0
    assert not is_replay(keyed.post(path, GOOD))
    assert not is_replay(keyed.post("/threads"))


def test_body_and_thread_are_checked_before_the_key(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    keyed.post(path, GOOD)
    assert status_and_body(keyed.post(path, {**GOOD, "role": None})) == (422, {"detail": [detail_of("null", "role")]})
    api.delete(f"/threads/{thread_id}")
    missing = 404, {"detail": f"Thread with ID '{thread_id}' not found"}
    assert status_and_body(keyed.post(path, GOOD)) == missing
    assert status_and_body(keyed.post(path, {**GOOD, "content": "bye"})) == missing


def test_deleting_a_message_or_thread_deletes_its_record(api: Api, keyed: Keyed) -> None:
    thread = keyed.post("/threads", {"messages": [GOOD]}).body["id"]
    path = f"/threads/{thread}/messages"
    message = keyed.post(path, GOOD).body["id"]
    assert records_of(thread) == 2
    api.delete(f"{path}/{message}")
    assert records_of(thread) == 1
    second = keyed.post(path, {**GOOD, "content": "another body, too"})
    assert not is_replay(second)
    assert second.body["id"] != message
    assert keyed.post("/threads", {"messages": [GOOD]}).body["id"] == thread
    api.delete(f"/threads/{thread}")
    assert not is_replay(keyed.post("/threads", {"messages": [GOOD]}))
    purge()
    assert records_of(thread) == 0
    assert not IdempotencyRecord.objects.filter(answer__contains=thread).exists()


def test_key_expires_after_a_day_and_is_purged(
    api: Api, keyed: Keyed, thread_id: str, later: Callable[[timedelta], None]
) -> None:
    path = f"/threads/{thread_id}/messages"
    keyed.post(path, GOOD)
    later(timedelta(hours=23, minutes=59))
    assert is_replay(keyed.post(path, GOOD))
    purge()
    assert records_of(thread_id) == 1
    later(timedelta(hours=24, minutes=1))
    assert not is_replay(keyed.post(path, {**GOOD, "content": "another body"}))
    assert messages_in(thread_id) == 2
    later(timedelta(hours=49))
    assert purge().keys >= 1
    assert records_of(thread_id) == 0


def test_key_costs_two_more_queries_in_the_same_transaction(api: Api, keyed: Keyed, thread_id: str) -> None:
    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            keyed.post(f"/threads/{thread_id}/messages", GOOD)
        return [query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"]]

    first, retry = statements(), statements()
    # On MongoDB, the first INSERT stores the record of the key, and the UPDATE adds the response to the record.
    if engines.chosen == "mongodb":
        assert first == ["SELECT", "SELECT", "INSERT", "SELECT", "SELECT", "INSERT", "SELECT", "UPDATE"]
        assert retry == ["SELECT", "SELECT", "SELECT"]
    else:
        locked = ["SELECT"] if engines.chosen == "postgresql" else []
        assert first == in_transaction("SELECT", *locked, "INSERT", "INSERT")
        # The last two queries check that the thread and the message still exist.
        assert retry == in_transaction("SELECT", "SELECT", "SELECT")


@pytest.mark.parametrize("kind", ["thread", "message"])
def test_hundred_concurrent_requests_with_one_key_store_once(served: Served, kind: str) -> None:
    thread = served.new_thread()
    mark = uuid4().hex
    path = f"/threads/{thread}/messages" if kind == "message" else "/threads"
    body = json.dumps({**GOOD, "content": mark} if kind == "message" else {"metadata": {"mark": mark}}).encode()
    headers = {"Content_Type": "application/json", "Idempotency_Key": mark}

    def post(_: int) -> Answer:
        return served.call("POST", path, body, **headers)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(post, range(100)))
    assert {answer.status for answer in answers} <= {200, 409}
    for answer in answers:
        if answer.status == 409:
            assert engines.chosen == "mongodb"
            assert (answer.body, answer.headers["retry-after"]) == ({"detail": "Request in progress"}, "1")
    successes = [answer for answer in answers if answer.status == 200]
    assert sum("idempotent-replayed" not in answer.headers for answer in successes) == 1
    assert {json.dumps(answer.body) for answer in [*successes, post(0)]} == {json.dumps(successes[0].body)}
    if kind == "message":
        (row,) = served.stored("message", thread_id=thread)
    else:
        (row,) = [row for row in served.stored("thread") if mark in json.dumps(row["metadata"])]
    assert row["id"] == successes[0].body["id"]


# `call` forks a process that calls the API. The process is killed before its database statement number `kill_at`. If it
# executes fewer statements, it is killed after it has responded. `call` returns the number of statements and the
# response, or None if there was no response.
CALLS = """
import json, os, signal, sys
from datetime import timedelta
from types import SimpleNamespace
from django.db import connections
from django.utils import timezone
from messages_app.store import deletion, documents, idempotency
from tests.conftest import Api, connection

deletion.wake_purger = lambda: None

def call(path, body, kill_at=None, later=0, key="k"):
    reading, writing = os.pipe()
    if os.fork() == 0:
        clock = SimpleNamespace(now=lambda: timezone.now() + timedelta(seconds=later))
        documents.timezone = idempotency.timezone = clock
        seen = []
        def count(execute, sql, *arguments):
            seen.append(sql)
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(sql, *arguments)
        with connection.execute_wrapper(count):
            answer = Api().post(path, body, HTTP_IDEMPOTENCY_KEY=key)
        result = len(seen), answer.status, answer.body, answer.headers.get("idempotent-replayed")
        os.write(writing, json.dumps(result).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    os.wait()
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    return json.loads(text) if text else None
"""


@pytest.fixture
def in_processes(tmp_path: Path) -> Callable[[str], Any]:
    def run(program: str) -> Any:
        directory = tmp_path / "data"
        migrate(directory)
        settings = {"THREADSVC_ALLOWED_HOSTS": "testserver", "THREADSVC_LOG_LEVEL": "WARNING", "PYTHONPATH": "."}
        result = manage(directory, "shell", "-v0", "-c", CALLS + program, **settings)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return json.loads(result.stdout)

    return run


CRASHES = """
threads, results = [], []
body = json.dumps({"messages": [{"role": "user", "content": "x"}] * 2}).encode() if KIND == "thread" else (
    b'{"role": "user", "content": "x"}')
for kill_at in range(1, 30):
    if KIND == "thread":
        path = "/threads"
    else:
        path = f"/threads/{call('/threads', b'', key=f'thread-{kill_at}')[2]['id']}/messages"
    killed = call(path, body, kill_at=kill_at, key=f"key-{kill_at}")
    soon = call(path, body, key=f"key-{kill_at}")
    late = call(path, body, later=11, key=f"key-{kill_at}")
    again = call(path, body, later=12, key=f"key-{kill_at}")
    results.append([path, killed and killed[1:], soon[1:], late[1:], again[1:]])
    if killed:
        break

def rows():
    from messages_app.models import Message, Thread
    return [
        list(Thread.objects.filter(deleted_at=None).values_list("id", flat=True)),
        list(Message.objects.values_list("id", "thread_id", "position")),
    ]

print(json.dumps([results, rows()]))
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["thread", "message"])
def test_retry_completes_a_request_killed_at_any_statement(in_processes: Callable[[str], Any], kind: str) -> None:
    results, (threads, messages) = in_processes(f"KIND = {kind!r}\n{CRASHES}")
    # On SQLite, the process is killed before BEGIN, SELECT, INSERT and INSERT, and after the response.
    assert len(results) >= (5 if kind == "message" else 4)
    soon_statuses = set()
    for path, killed, soon, late, again in results:
        assert (late[0], again) == (200, [200, late[1], "true"])
        # If there is a response, the process was killed only afterwards.
        if killed:
            assert killed[:2] == late[:2]
            assert soon == again
        soon_statuses.add(soon[0])
        if soon[0] == 409:
            assert soon[1] == {"detail": "Request in progress"}
            assert late[2] is None
        else:
            assert soon[:2] == late[:2]
        created = late[1]["id"]
        if kind == "message":
            thread = path.split("/")[2]
            assert [row for row in messages if row[1] == thread] == [[created, thread, 1]]
        else:
            assert threads.count(created) == 1
            assert sorted(row[2] for row in messages if row[1] == created) == [1, 2]
    if kind == "thread":
        assert len(threads) == len(results)
    # SQL engines commit the record and the row together. On MongoDB, a retry may find a record without a response. It
    # then gets a 409, because the first request may still be in flight.
    assert soon_statuses == ({200, 409} if engines.chosen == "mongodb" else {200})


@pytest.mark.engine("mongodb")
def test_deleted_message_whose_record_remains_is_not_replayed(api: Api, keyed: Keyed, thread_id: str) -> None:
    path = f"/threads/{thread_id}/messages"
    message = keyed.post(path, GOOD).body["id"]
    Message.objects.filter(id=message).update(deleted_at=timezone.now())
    second = keyed.post(path, {**GOOD, "content": "another body"})
    assert not is_replay(second)
    assert second.body["id"] != message
    assert is_replay(keyed.post(path, {**GOOD, "content": "another body"}))


@pytest.mark.engine("postgresql")
def test_keyed_message_that_waited_for_a_lock_gets_a_later_id(api: Api, thread_id: str) -> None:
    def create() -> Answer:
        try:
            return api.post(f"/threads/{thread_id}/messages", GOOD, HTTP_IDEMPOTENCY_KEY=uuid4().hex)
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as pool, transaction.atomic(using=connection.alias):
        assert Thread.objects.select_for_update(no_key=True).get(id=thread_id)
        waiting = pool.submit(create)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        first = append(thread_id, role="user", content=[])
    second = Message.objects.get(id=waiting.result(timeout=10).body["id"])
    assert (first.position, second.position) == (1, 2)
    assert first.id < second.id
    assert first.created_at <= second.created_at


@contextmanager
def raised(signal: Any, error: Exception) -> Iterator[None]:
    """Raise `error` before each write of a message (`pre_save`), or after it (`post_save`)."""

    def fail(**_: Any) -> None:
        raise error

    signal.connect(fail, sender=Message)
    try:
        yield
    finally:
        signal.disconnect(fail, sender=Message)


@pytest.mark.engine("mongodb")
@pytest.mark.parametrize(
    ("error", "status"),
    [(PermissionDenied("no"), 403), (Http404("no"), 404), (ZeroDivisionError("no"), 500), (DiskFull("no"), 507)],
)
def test_retry_gets_the_same_refusal(api: Api, keyed: Keyed, thread_id: str, error: Exception, status: int) -> None:
    """Check that a refusal leaves no record. MongoDB does not roll back, and a record would make the retry wait."""
    path = f"/threads/{thread_id}/messages"
    with raised(pre_save, error):
        assert [keyed.post(path, GOOD).status for _ in range(2)] == [status, status]
    assert records_of(thread_id) == 0
    assert keyed.post(path, GOOD).status == 200
    assert messages_in(thread_id) == 1


@pytest.mark.engine("mongodb")
@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError("no"), 500), (DatabaseError("no"), 500), (OperationalError("no"), 503)]
)
@pytest.mark.parametrize("signal", [pre_save, post_save], ids=["before", "after"])
def test_request_with_unknown_outcome_is_stored_once(
    keyed: Keyed, thread_id: str, later: Callable[[timedelta], None], signal: Any, error: Exception, status: int
) -> None:
    path = f"/threads/{thread_id}/messages"
    with raised(signal, error):
        assert keyed.post(path, GOOD).status == status
    is_refused = signal is pre_save and status == 500 and isinstance(error, ZeroDivisionError)
    assert keyed.post(path, GOOD).status == (200 if is_refused else 409)
    later(timedelta(seconds=11))
    assert keyed.post(path, GOOD).status == 200
    assert messages_in(thread_id) == 1


@pytest.mark.engine("sqlite", "postgresql")
def test_delete_that_waited_for_a_create_deletes_its_record(
    api: Api, keyed: Keyed, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the delete read the clock and then wait for the create. The record is then newer than the delete."""
    deleting: list[Future[Answer]] = []
    is_first = threading.Lock()
    now = timezone.now

    def delete() -> Answer:
        try:
            return api.delete(f"/threads/{thread_id}")
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as pool:

        def delete_first() -> datetime:
            # Start only one delete. The delete itself calls now() too.
            if is_first.acquire(blocking=False):
                deleting.append(pool.submit(delete))
                with pytest.raises(TimeoutError):
                    deleting[0].result(timeout=0.5)
            return now()

        with monkeypatch.context() as patched:
            patched.setattr(transactional, "timezone", SimpleNamespace(now=delete_first))
            assert keyed.post(f"/threads/{thread_id}/messages", GOOD).status == 200
        assert deleting[0].result(timeout=10).status == 200
    purge()
    assert records_of(thread_id) == 0
