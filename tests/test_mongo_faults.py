"""Check stored data and responses on MongoDB after crashes, races and outages. This engine has no rollback."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pymongo
import pytest
from django.utils import timezone
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WriteError,
    WTimeoutError,
)

from messages_app.models import Message, Thread
from messages_app.store import deletion as purging
from messages_app.store.deletion import purge
from messages_app.store.documents import DocumentBackend
from tests.conftest import Answer, Api, Served, connection
from tests.servers.mongodb import MongoDB
from tests.test_mongo import collection, created_thread, run_python, url

# Tests use the fixture `url` by name only. Without this line, the linter would report an unused import.
__all__ = ["url"]

pytestmark = pytest.mark.engine("mongodb")

# This program calls the API and counts its writes to MongoDB. It kills its own process just before write number
# `kill_at`.
CALL = """
import signal, sys, pymongo
kill_at, writes = int(sys.argv[1]), 0
def before_each_write(name):
    write = getattr(pymongo.collection.Collection, name)
    def counted(*args, **kwargs):
        global writes
        writes += 1
        if writes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*args, **kwargs)
    setattr(pymongo.collection.Collection, name, counted)
for name in ("insert_one", "insert_many", "update_many", "delete_many", "find_one_and_update"):
    before_each_write(name)
from messages_app.store import deletion
deletion.wake_purger = lambda: None  # no purge in the background
from tests.conftest import Api
print(Api().call(sys.argv[2], sys.argv[3], sys.argv[4].encode()).status)
"""


@pytest.fixture
def call_and_kill(tmp_path: Path, url: str) -> Callable[..., str]:
    """Return a function that calls the API in a new process, which is killed before its write number `kill_at`.

    The function returns the response's status, or "" if the process was killed.
    """

    def call(kill_at: int, method: str, path: str, body: str = "") -> str:
        result = run_python(tmp_path, CALL, url, arguments=(str(kill_at), method, path, body))
        if result.returncode == -signal.SIGKILL:
            return ""
        assert not result.returncode, result.stderr
        return result.stdout.strip()

    return call


@pytest.fixture
def purge_two_hours_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that purges as if two hours had passed. Each further call adds two hours."""
    hours = 0

    def purge_later() -> None:
        nonlocal hours
        hours += 2
        with monkeypatch.context() as patched:
            clock = SimpleNamespace(now=lambda: timezone.now() + timedelta(hours=hours))
            patched.setattr(purging, "timezone", clock)
            purge()

    return purge_later


def listed(api: Api, mark: str) -> list[str]:
    return [row["id"] for row in api.get(f"/threads?metadata[mark]={mark}").body["data"]]


def stored_counts(mark: str) -> tuple[int, int]:
    """Return the number of stored threads and the number of stored messages that have this mark."""
    threads = collection("thread").count_documents({"metadata": {"k": "mark", "v": mark}})
    return threads, collection("message").count_documents({"content.text.value": mark})


@pytest.mark.process
def test_unfinished_thread_is_invisible_and_is_purged(
    api: Api, call_and_kill: Callable[..., str], purge_two_hours_later: Callable[[], None]
) -> None:
    left_behind = []
    for kill_at in range(1, 20):
        mark = uuid4().hex
        message = {"role": "user", "content": mark}
        body = json.dumps({"messages": [message, message], "metadata": {"mark": mark}})
        if call_and_kill(kill_at, "POST", "/threads", body):
            assert stored_counts(mark) == (1, 2)
            assert [len(api.get(f"/threads/{thread}/messages").body["data"]) for thread in listed(api, mark)] == [2]
            break
        left_behind.append(stored_counts(mark))
        assert listed(api, mark) == []
        for row in Message.objects.filter(content__text__value__icontains=mark):
            assert api.get(f"/threads/{row.thread_id}").status == 404
            assert api.get(f"/threads/{row.thread_id}/messages").status == 404
        purge()
        # The purge does not know whether the process was killed or is still storing the thread. It therefore waits.
        assert stored_counts(mark) == left_behind[-1]
        purge_two_hours_later()
        purge_two_hours_later()
        assert stored_counts(mark) == (0, 0)
    assert left_behind == [(0, 0), (1, 0), (1, 2)]


@pytest.mark.process
def test_killed_delete_hides_a_whole_thread_or_nothing(
    api: Api, call_and_kill: Callable[..., str], purge_two_hours_later: Callable[[], None]
) -> None:
    kills = 0
    for kill_at in range(1, 20):
        mark = uuid4().hex
        thread = created_thread(api, metadata={"mark": mark}, messages=[{"role": "user", "content": mark}] * 2)
        finished = call_and_kill(kill_at, "DELETE", f"/threads/{thread}")
        if api.get(f"/threads/{thread}").status == 200:
            assert not finished
            assert listed(api, mark) == [thread]
            assert len(api.get(f"/threads/{thread}/messages").body["data"]) == 2
            assert api.delete(f"/threads/{thread}").status == 200
        assert listed(api, mark) == []
        assert api.get(f"/threads/{thread}/messages").status == 404
        purge()
        assert stored_counts(mark) == (0, 0)
        assert Thread.objects.filter(id=thread).exists()
        purge_two_hours_later()
        assert collection("thread").count_documents({"id": thread}) == 0
        if finished:
            break
        kills += 1
    # Deleting a thread takes a single write, so the process can be killed only once: before this write.
    assert kills == 1


@pytest.fixture
def deleted_before_the_insert(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Delete and purge a thread while a request creates a message in it.

    This happens once, after the request has found the thread and before the request inserts the message. Returns a
    list, to which the id of the deleted thread is then added.
    """
    deleted: list[str] = []
    insert = pymongo.collection.Collection.insert_one

    def insert_one(self: Any, document: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.name == "messages_app_message" and not deleted:
            deleted.append(document["thread_id"])
            with ThreadPoolExecutor(1) as other_client:
                answer = other_client.submit(api.delete, f"/threads/{document['thread_id']}").result()
                other_client.submit(purge).result()
            assert answer.status == 200
        return insert(self, document, *args, **kwargs)

    monkeypatch.setattr(pymongo.collection.Collection, "insert_one", insert_one)
    return deleted


def test_message_is_removed_and_404_if_its_thread_was_deleted(
    api: Api, thread_id: str, deleted_before_the_insert: list[str]
) -> None:
    answer = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"})
    assert deleted_before_the_insert == [thread_id]
    assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{thread_id}' not found"})
    assert collection("message").count_documents({"thread_id": thread_id}) == 0


def test_message_left_in_a_deleted_thread_is_purged(
    api: Api,
    thread_id: str,
    deleted_before_the_insert: list[str],
    monkeypatch: pytest.MonkeyPatch,
    purge_two_hours_later: Callable[[], None],
) -> None:
    with monkeypatch.context() as patched:
        # The request checks that the thread exists before and after the insert. Here the second check raises an
        # exception, so the request ends like a process that was killed after the insert.
        checks: Iterator[Callable[[], Any]] = iter([lambda: None, lambda: 1 / 0])
        patched.setattr(DocumentBackend, "require_thread", lambda *_: next(checks)())
        assert api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"}).status == 500
    assert collection("message").count_documents({"thread_id": thread_id}) == 1
    assert api.get(f"/threads/{thread_id}/messages").status == 404
    purge_two_hours_later()
    assert collection("message").count_documents({"thread_id": thread_id}) == 0
    assert collection("thread").count_documents({"id": thread_id}) == 0


def test_message_deleted_during_a_change_keeps_no_metadata(api: Api, thread_id: str) -> None:
    message = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"}).body["id"]
    path = f"/threads/{thread_id}/messages/{message}"
    deleted: list[int] = []

    def delete_before(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and not deleted:
            deleted.append(0)
            deleted.append(api.delete(path).status)
        return execute(sql, *rest)

    with connection.execute_wrapper(delete_before):
        assert api.post(path, {"metadata": {"k": "v"}}).status == 404
    assert deleted == [0, 200]
    assert collection("message").find_one({"id": message})["metadata"] == []


def test_concurrent_writers_lose_no_metadata(api: Api, thread_id: str) -> None:
    def write(writer: int) -> set[int]:
        return {api.post(f"/threads/{thread_id}", {"metadata": {f"w{writer}": str(n)}}).status for n in range(10)}

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(write, range(12))) == [{200}] * 12
    assert api.get(f"/threads/{thread_id}").body["metadata"] == {f"w{writer}": "9" for writer in range(12)}


# Server errors

UNAVAILABLE: dict[str, PyMongoError] = {
    "no longer primary": NotPrimaryError("not primary"),
    "shutdown": OperationFailure("shutdown in progress", 91),
    "step-down during a call": OperationFailure("interrupted", 11602),
    "timeout": ExecutionTimeout("operation exceeded time limit", 50),
    "no majority": WTimeoutError("waiting for replication timed out", 64),
    "shard without a primary": OperationFailure("could not find host", 133),
    "step-down during a bulk write": BulkWriteError({"writeErrors": [{"code": 11602}]}),
    "no majority for a bulk write": BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
    "no free connection": WaitQueueTimeoutError("timed out"),
    "login refused": OperationFailure("authentication failed", 18),
}


@pytest.mark.parametrize("error", UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_temporary_error_of_the_server_is_a_503(
    api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch, error: PyMongoError
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pymongo.collection.Collection, "insert_one", refuse)
    answer = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"})
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, {"detail": "Service Unavailable"}, "1")


def test_full_disk_of_the_server_is_a_507(api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise MongoDB's error for a full disk from an insert, a bulk insert and an update.

    The errors are simulated, because no real MongoDB was available.
    """
    errors = {
        "insert_one": OperationFailure("out of disk space", 14031),
        "insert_many": BulkWriteError({"writeErrors": [{"code": 14031}]}),
        "update_many": WriteError("out of disk space", 14031),
    }

    def refusing(error: PyMongoError) -> Callable[..., None]:
        def refuse(*_: Any, **__: Any) -> None:
            raise error

        return refuse

    for name, error in errors.items():
        monkeypatch.setattr(pymongo.collection.Collection, name, refusing(error))
    message = {"role": "user", "content": "Hi"}
    for path, body in (
        (f"/threads/{thread_id}/messages", message),
        ("/threads", {"messages": [message, message]}),
        (f"/threads/{thread_id}", {"metadata": {"a": "b"}}),
    ):
        answer = api.post(path, body)
        assert (answer.status, answer.body) == (507, {"detail": "Insufficient Storage"})
    assert api.get(f"/threads/{thread_id}").status == 200


def test_change_to_a_too_large_document_is_a_413(api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise WriteError("Resulting document after update is larger than 16777216", 17419)

    monkeypatch.setattr(pymongo.collection.Collection, "update_many", refuse)
    answer = api.post(f"/threads/{thread_id}", {"metadata": {"a": "b"}})
    assert (answer.status, answer.body) == (413, {"detail": "Request body too large"})


@pytest.fixture
def before_messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """A list of functions to call in the middle of a thread's creation.

    They run after the thread is stored, which is still hidden, and before its messages are stored.
    """
    hooks: list[Callable[[], None]] = []
    insert = pymongo.collection.Collection.insert_many

    def insert_many(*args: Any, **kwargs: Any) -> Any:
        for hook in hooks:
            hook()
        return insert(*args, **kwargs)

    monkeypatch.setattr(pymongo.collection.Collection, "insert_many", insert_many)
    yield hooks
    hooks.clear()


def test_thread_is_purged_if_its_messages_cannot_be_stored(api: Api, before_messages: list[Callable[[], None]]) -> None:
    def fail() -> None:
        raise DocumentTooLarge("one of them")

    mark = uuid4().hex
    before_messages.append(fail)
    message = {"role": "user", "content": mark}
    answer = api.post("/threads", {"messages": [message, message], "metadata": {"mark": mark}})
    assert answer.status == 413
    (left,) = collection("thread").find({"metadata": {"k": "mark", "v": mark}})
    before_messages.clear()
    purge()
    assert collection("thread").find_one({"_id": left["_id"]})["tenant"] == ""


def test_thread_purged_during_its_creation_is_a_503(
    api: Api, before_messages: list[Callable[[], None]], purge_two_hours_later: Callable[[], None]
) -> None:
    mark = uuid4().hex
    before_messages.append(purge_two_hours_later)
    message = {"role": "user", "content": mark}
    answer = api.post("/threads", {"messages": [message, message], "metadata": {"mark": mark}})
    assert answer.status == 503
    assert listed(api, mark) == []


# Outages


@pytest.fixture
def mongodb() -> Iterator[MongoDB]:
    """A server that the test may stop, because no other test uses it."""
    server = MongoDB()
    yield server
    server.close()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start


def test_outage_is_a_503_in_two_seconds_and_needs_no_restart(mongodb: MongoDB, serve: Callable[..., Served]) -> None:
    service = serve(THREADS_DATABASE_URL=mongodb.new_database())
    thread = service.new_thread()
    message = {"role": "user", "content": "Hi"}
    mongodb.stop()
    calls: list[Callable[[], Answer]] = [
        lambda: service.call("POST", f"/threads/{thread}/messages", message),
        lambda: service.call("GET", f"/threads/{thread}/messages"),
        lambda: service.call("POST", "/threads"),
        lambda: service.call("POST", "/threads", {"messages": [message, message]}),
    ] * 4
    with ThreadPoolExecutor(16) as pool:
        for answer, seconds in pool.map(timed, calls):
            assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable"})
            assert answer.headers["retry-after"] == "1"
            assert seconds < 3  # the service waits at most 2 s, and a busy machine may add 1 s
    assert service.call("GET", "/healthz").status == 200
    assert service.call("GET", "/readyz").status == 503
    mongodb.start()
    start = time.monotonic()
    service.wait_until(lambda: service.call("POST", f"/threads/{thread}/messages", message).status == 200, seconds=10)
    assert time.monotonic() - start < 5
    assert len(service.call("GET", f"/threads/{thread}/messages").body["data"]) == 1
