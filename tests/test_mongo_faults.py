"""MongoDB rolls nothing back and may go away: what users find after a crash at any point, a race, or an outage."""

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

__all__ = ["url"]  # a fixture

pytestmark = pytest.mark.engine("mongodb")

# Runs a call of the API in a process of its own, which is killed before its write number `deadly`.
CALL = """
import signal, sys, pymongo
deadly, writes = int(sys.argv[1]), 0
def before_each_write(name):
    write = getattr(pymongo.collection.Collection, name)
    def counted(*args, **kwargs):
        global writes
        writes += 1
        if writes == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*args, **kwargs)
    setattr(pymongo.collection.Collection, name, counted)
for name in ("insert_one", "insert_many", "update_many", "delete_many", "find_one_and_update"):
    before_each_write(name)
from messages_app.store import deletion
deletion.wake_purger = lambda: None  # nothing but the call itself
from tests.conftest import Api
print(Api().call(sys.argv[2], sys.argv[3], sys.argv[4].encode()).status)
"""


@pytest.fixture
def call_and_die(tmp_path: Path, url: str) -> Callable[..., str]:
    """Calls the API in a process that dies before its write of that number; returns the status, "" where it died."""

    def call(deadly: int, method: str, path: str, body: str = "") -> str:
        done = run_python(tmp_path, CALL, url, arguments=(str(deadly), method, path, body))
        if done.returncode == -signal.SIGKILL:
            return ""
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    return call


@pytest.fixture
def two_hours_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Purges as if that were the time; the next time it is two hours later again."""
    hours = 0

    def later() -> None:
        nonlocal hours
        hours += 2
        with monkeypatch.context() as patched:
            clock = SimpleNamespace(now=lambda: timezone.now() + timedelta(hours=hours))
            patched.setattr(purging, "timezone", clock)
            purge()

    return later


def listed(api: Api, mark: str) -> list[str]:
    return [row["id"] for row in api.get(f"/threads?metadata[mark]={mark}").body["data"]]


def kept(mark: str) -> tuple[int, int]:
    """How many documents of threads and of messages there are with a mark."""
    threads = collection("thread").count_documents({"metadata": {"k": "mark", "v": mark}})
    return threads, collection("message").count_documents({"content.text.value": mark})


@pytest.mark.process
def test_thread_that_was_never_finished_is_seen_by_nobody_and_purged(
    api: Api, call_and_die: Callable[..., str], two_hours_later: Callable[[], None]
) -> None:
    died_at = []
    for deadly in range(1, 20):
        mark = uuid4().hex
        said = {"role": "user", "content": mark}
        body = json.dumps({"messages": [said, said], "metadata": {"mark": mark}})
        if call_and_die(deadly, "POST", "/threads", body):
            assert kept(mark) == (1, 2)
            assert [len(api.get(f"/threads/{thread}/messages").body["data"]) for thread in listed(api, mark)] == [2]
            break
        died_at.append(kept(mark))
        assert listed(api, mark) == []
        for message in Message.objects.filter(content__text__value__icontains=mark):
            assert api.get(f"/threads/{message.thread_id}").status == 404
            assert api.get(f"/threads/{message.thread_id}/messages").status == 404
        purge()
        assert kept(mark) == died_at[-1]  # its writer may be slow, and alive
        two_hours_later()
        two_hours_later()
        assert kept(mark) == (0, 0)
    assert died_at == [(0, 0), (1, 0), (1, 2)]


@pytest.mark.process
def test_deleting_hides_all_of_a_thread_or_nothing_and_purge_removes_the_rest(
    api: Api, call_and_die: Callable[..., str], two_hours_later: Callable[[], None]
) -> None:
    died = 0
    for deadly in range(1, 20):
        mark = uuid4().hex
        thread = created_thread(api, metadata={"mark": mark}, messages=[{"role": "user", "content": mark}] * 2)
        finished = call_and_die(deadly, "DELETE", f"/threads/{thread}")
        if api.get(f"/threads/{thread}").status == 200:
            assert not finished
            assert listed(api, mark) == [thread]
            assert len(api.get(f"/threads/{thread}/messages").body["data"]) == 2
            assert api.delete(f"/threads/{thread}").status == 200
        assert listed(api, mark) == []
        assert api.get(f"/threads/{thread}/messages").status == 404
        purge()
        assert kept(mark) == (0, 0)
        assert Thread.objects.filter(id=thread).exists()
        two_hours_later()
        assert collection("thread").count_documents({"id": thread}) == 0
        if finished:
            break
        died += 1
    assert died == 1  # one write does it


@pytest.fixture
def deleted_before_the_insert(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next message meets a thread that is deleted, and purged, between the look at it and the insert."""
    happened: list[str] = []
    insert = pymongo.collection.Collection.insert_one

    def insert_one(self: Any, document: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.name == "messages_app_message" and not happened:
            happened.append(document["thread_id"])
            with ThreadPoolExecutor(1) as somebody:
                answer = somebody.submit(api.delete, f"/threads/{document['thread_id']}").result()
                somebody.submit(purge).result()
            assert answer.status == 200
        return insert(self, document, *args, **kwargs)

    monkeypatch.setattr(pymongo.collection.Collection, "insert_one", insert_one)
    return happened


def test_message_into_a_thread_that_went_meanwhile_is_taken_back_and_a_404(
    api: Api, thread_id: str, deleted_before_the_insert: list[str]
) -> None:
    answer = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"})
    assert deleted_before_the_insert == [thread_id]
    assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{thread_id}' not found"})
    assert collection("message").count_documents({"thread_id": thread_id}) == 0


def test_message_that_could_not_be_taken_back_is_purged(
    api: Api,
    thread_id: str,
    deleted_before_the_insert: list[str],
    monkeypatch: pytest.MonkeyPatch,
    two_hours_later: Callable[[], None],
) -> None:
    with monkeypatch.context() as patched:
        asked: Iterator[Callable[[], Any]] = iter(
            [lambda: None, lambda: 1 / 0]
        )  # the second time as if the process died here
        patched.setattr(DocumentBackend, "require_thread", lambda *_: next(asked)())
        assert api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"}).status == 500
    assert collection("message").count_documents({"thread_id": thread_id}) == 1
    assert api.get(f"/threads/{thread_id}/messages").status == 404
    two_hours_later()
    assert collection("message").count_documents({"thread_id": thread_id}) == 0
    assert collection("thread").count_documents({"id": thread_id}) == 0


def test_message_that_is_deleted_while_its_metadata_change_stays_empty(api: Api, thread_id: str) -> None:
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


def test_writers_at_once_lose_no_pair_of_metadata(api: Api, thread_id: str) -> None:
    def write(writer: int) -> set[int]:
        return {api.post(f"/threads/{thread_id}", {"metadata": {f"w{writer}": str(n)}}).status for n in range(10)}

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(write, range(12))) == [{200}] * 12
    assert api.get(f"/threads/{thread_id}").body["metadata"] == {f"w{writer}": "9" for writer in range(12)}


# What the server answers when it cannot

UNAVAILABLE: dict[str, PyMongoError] = {
    "it is not the primary any more": NotPrimaryError("not primary"),
    "it is shutting down": OperationFailure("shutdown in progress", 91),
    "it was stepped down amid the call": OperationFailure("interrupted", 11602),
    "it took too long": ExecutionTimeout("operation exceeded time limit", 50),
    "the majority did not answer": WTimeoutError("waiting for replication timed out", 64),
    "a shard has no primary": OperationFailure("could not find host", 133),
    "it is elected amid several writes": BulkWriteError({"writeErrors": [{"code": 11602}]}),
    "the majority did not answer to several": BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
    "no connection is free": WaitQueueTimeoutError("timed out"),
    "the log-in is refused": OperationFailure("authentication failed", 18),
}


@pytest.mark.parametrize("error", UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_server_that_cannot_for_now_is_a_503(
    api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch, error: PyMongoError
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pymongo.collection.Collection, "insert_one", refuse)
    answer = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "Hi"})
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, {"detail": "Service Unavailable"}, "1")


def test_server_whose_disk_is_full_is_a_507(api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MongoDB tells it, which was not at hand: one write, several, and a change."""
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
    said = {"role": "user", "content": "Hi"}
    for path, body in (
        (f"/threads/{thread_id}/messages", said),
        ("/threads", {"messages": [said, said]}),
        (f"/threads/{thread_id}", {"metadata": {"a": "b"}}),
    ):
        answer = api.post(path, body)
        assert (answer.status, answer.body) == (507, {"detail": "Insufficient Storage"})
    assert api.get(f"/threads/{thread_id}").status == 200


def test_change_that_makes_a_document_too_large_is_a_413(
    api: Api, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise WriteError("Resulting document after update is larger than 16777216", 17419)

    monkeypatch.setattr(pymongo.collection.Collection, "update_many", refuse)
    answer = api.post(f"/threads/{thread_id}", {"metadata": {"a": "b"}})
    assert (answer.status, answer.body) == (413, {"detail": "Request body too large"})


@pytest.fixture
def before_its_messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What is done between storing a thread, hidden, and storing its messages."""
    hooks: list[Callable[[], None]] = []
    insert = pymongo.collection.Collection.insert_many

    def insert_many(*args: Any, **kwargs: Any) -> Any:
        for hook in hooks:
            hook()
        return insert(*args, **kwargs)

    monkeypatch.setattr(pymongo.collection.Collection, "insert_many", insert_many)
    yield hooks
    hooks.clear()


def test_thread_whose_messages_cannot_be_stored_is_removed_by_the_next_purge(
    api: Api, before_its_messages: list[Callable[[], None]]
) -> None:
    def fail() -> None:
        raise DocumentTooLarge("one of them")

    mark = uuid4().hex
    before_its_messages.append(fail)
    said = {"role": "user", "content": mark}
    answer = api.post("/threads", {"messages": [said, said], "metadata": {"mark": mark}})
    assert answer.status == 413
    (left,) = collection("thread").find({"metadata": {"k": "mark", "v": mark}})
    before_its_messages.clear()
    purge()
    assert collection("thread").find_one({"_id": left["_id"]})["tenant"] == ""


def test_thread_that_was_purged_before_it_was_finished_is_a_503_and_not_shown(
    api: Api, before_its_messages: list[Callable[[], None]], two_hours_later: Callable[[], None]
) -> None:
    mark = uuid4().hex
    before_its_messages.append(two_hours_later)
    said = {"role": "user", "content": mark}
    answer = api.post("/threads", {"messages": [said, said], "metadata": {"mark": mark}})
    assert answer.status == 503
    assert listed(api, mark) == []


# Outages


@pytest.fixture
def mongodb() -> Iterator[MongoDB]:
    """A server that only this test uses."""
    server = MongoDB()
    yield server
    server.close()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start


def test_server_that_is_away_is_a_503_within_two_seconds_and_comes_back_without_a_restart(
    mongodb: MongoDB, serve: Callable[..., Served]
) -> None:
    service = serve(THREADS_DATABASE_URL=mongodb.new_database())
    thread = service.new_thread()
    said = {"role": "user", "content": "Hi"}
    mongodb.stop()
    calls: list[Callable[[], Answer]] = [
        lambda: service.call("POST", f"/threads/{thread}/messages", said),
        lambda: service.call("GET", f"/threads/{thread}/messages"),
        lambda: service.call("POST", "/threads"),
        lambda: service.call("POST", "/threads", {"messages": [said, said]}),
    ] * 4
    with ThreadPoolExecutor(16) as pool:
        for answer, seconds in pool.map(timed, calls):
            assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable"})
            assert answer.headers["retry-after"] == "1"
            assert seconds < 3  # two, and some for a busy machine
    assert service.call("GET", "/healthz").status == 200
    assert service.call("GET", "/readyz").status == 503
    mongodb.start()
    start = time.monotonic()
    service.wait_until(lambda: service.call("POST", f"/threads/{thread}/messages", said).status == 200, seconds=10)
    assert time.monotonic() - start < 5
    assert len(service.call("GET", f"/threads/{thread}/messages").body["data"]) == 1
