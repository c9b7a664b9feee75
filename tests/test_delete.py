"""Deletes of threads and messages. Deleted rows are hidden at once and removed later, even after a crash or a race."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messages_app.models import Message, Thread, ThreadPair
from messages_app.store.deletion import ROWS_PER_REMOVAL, purge
from tests import engines
from tests.conftest import Answer, Api, Served, connection, detail_of, in_transaction, manage
from tests.rows import delete_thread

GOOD = {"role": "user", "content": "hello", "file_ids": ["f"], "metadata": {"k": "v"}}
JSON = {"Content_Type": "application/json"}


def new_filled_thread(api: Api, messages: int = 3) -> tuple[str, list[str]]:
    """Create a thread with messages. Return its id and its message ids, oldest first."""
    thread: str = api.post("/threads", {"messages": [GOOD] * messages, "metadata": {"mark": "x"}}).body["id"]
    ids = Message.objects.filter(thread_id=thread).order_by("position").values_list("id", flat=True)
    return thread, list(ids)


def thread_missing(thread: str) -> tuple[int, dict[str, Any]]:
    return 404, {"detail": f"Thread with ID '{thread}' not found"}


def status_and_body(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.body


# The number of rows that purge leaves for a deleted thread. On MongoDB, purge keeps a row with only the id for an hour.
# With this id, it can find a message that a crashed writer stored after the purge, because MongoDB has no rollback.
THREADS_LEFT = 1 if engines.chosen == "mongodb" else 0


def assert_removed(thread: str) -> None:
    rows = [(row.tenant, row.metadata) for row in Thread.objects.filter(id=thread)]
    assert rows == [("", {})] * THREADS_LEFT


@pytest.mark.parametrize("meta", [{}, {"HTTP_OPENAI_BETA": "assistants=v1"}])
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_deleted_thread_is_not_found_anywhere(api: Api, prefix: str, meta: dict[str, str]) -> None:
    thread, (message, *_) = new_filled_thread(api)
    path = f"{prefix}/threads/{thread}"
    answer = api.delete(path, **meta)
    assert status_and_body(answer) == (200, {"id": thread, "object": "thread.deleted", "deleted": True})
    for missing in (
        api.get(path),
        api.post(path, {}),
        api.post(path, {"metadata": {"a": "b"}}),
        api.delete(path),
        api.get(f"{path}/messages"),
        api.post(f"{path}/messages", GOOD),
        api.get(f"{path}/messages/{message}"),
        api.post(f"{path}/messages/{message}", {"metadata": {"a": "b"}}),
        api.delete(f"{path}/messages/{message}"),
        api.get(f"{path}/messages/{message}/files"),
        api.get(f"{path}/messages/{message}/files/f"),
    ):
        assert status_and_body(missing) == thread_missing(thread)
    assert thread not in {shown["id"] for shown in api.get("/threads?limit=100").body["data"]}
    assert thread not in {shown["id"] for shown in api.get("/threads?limit=100&metadata[mark]=x").body["data"]}
    refused = api.get(f"/threads?after={thread}")
    assert status_and_body(refused) == (422, {"detail": [detail_of("thread", "after", root="query")]})


def test_one_write_hides_a_thread_before_its_rows_are_removed(api: Api) -> None:
    thread, ids = new_filled_thread(api)
    with CaptureQueriesContext(connection) as queries:
        delete_thread(thread)
    # The UPDATE hides the thread. On SQL engines, the same transaction deletes its metadata pairs.
    pairs = [] if engines.chosen == "mongodb" else ["DELETE"]
    assert [query["sql"].split()[0] for query in queries] == in_transaction("UPDATE", *pairs)
    assert not ThreadPair.objects.filter(thread_id=thread).exists()
    assert status_and_body(api.get(f"/threads/{thread}/messages/{ids[0]}")) == thread_missing(thread)
    assert Message.objects.filter(thread_id=thread).count() == 3
    assert Thread.objects.get(id=thread).metadata == {}
    purge()
    assert not Message.objects.filter(thread_id=thread).exists()
    assert_removed(thread)


def test_deleted_message_keeps_only_its_ids_and_its_place(api: Api) -> None:
    thread, ids = new_filled_thread(api)
    path = f"/threads/{thread}/messages"
    created = api.post(
        path, {**GOOD, "role": "assistant", "run_id": "r", "assistant_id": "a"}, HTTP_OPENAI_BETA="assistants=v2"
    )
    message = created.body["id"]
    before = Message.objects.get(id=message)
    with CaptureQueriesContext(connection) as queries:
        answer = api.delete(f"{path}/{message}")
    assert status_and_body(answer) == (200, {"id": message, "object": "thread.message.deleted", "deleted": True})
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", *in_transaction("UPDATE", "DELETE")]
    missing = 404, {"detail": f"Message with ID '{message}' in thread '{thread}' not found"}
    for again in (
        api.get(f"{path}/{message}"),
        api.post(f"{path}/{message}", {}),
        api.post(f"{path}/{message}", {"metadata": {"a": "b"}}),
        api.delete(f"{path}/{message}"),
        api.get(f"{path}/{message}/files"),
        api.get(f"{path}/{message}/files/f"),
    ):
        assert status_and_body(again) == missing
    assert [shown["id"] for shown in api.get(path).body["data"]] == ids[::-1]
    assert api.get(f"{path}?run_id=r").body["data"] == []
    row = Message.objects.values().get(id=message)
    assert row["deleted_at"]
    assert row == {
        "deleted_at": row["deleted_at"],
        "id": message,
        "object_id": before.object_id,
        "thread_id": thread,
        "position": 4,
        # The time is kept, because the ids contain it anyway.
        "created_at": before.created_at,
        "role": "",
        "content": [],
        "attachments": [],
        "assistant_id": "",
        "run_id": None,
        "metadata": {},
    }


def test_deleted_message_keeps_its_place_as_cursor_for_a_day(api: Api) -> None:
    thread, ids = new_filled_thread(api, messages=5)
    path = f"/threads/{thread}/messages"
    for message in (ids[1], ids[4]):
        api.delete(f"{path}/{message}")

    def after(cursor: str) -> list[int]:
        page = api.get(f"{path}?order=asc&after={cursor}")
        return [ids.index(message["id"]) for message in page.body["data"]]

    def age(hours: float) -> None:
        Message.objects.filter(id__in=ids, deleted_at__isnull=False).update(
            deleted_at=timezone.now() - timedelta(hours=hours)
        )

    age(hours=23.9)
    purge()
    assert after(ids[1]) == [2, 3]
    assert after(ids[4]) == []
    age(hours=24.1)
    purge()
    unknown = 422, {"detail": [detail_of("message", "after", root="query")]}
    assert status_and_body(api.get(f"{path}?after={ids[1]}")) == unknown
    # The last message's row is kept, because the next position depends on it.
    ids.append(api.post(path, GOOD).body["id"])
    assert Message.objects.get(id=ids[5]).position == 6
    assert after(ids[4]) == [5]
    purge()
    assert status_and_body(api.get(f"{path}?after={ids[4]}")) == unknown
    assert after(ids[0]) == [2, 3, 5]


def test_purge_removes_old_tombstones_except_the_last_message(api: Api) -> None:
    threads = [new_filled_thread(api, messages=90)[0] for _ in range(3)]
    old = timezone.now() - timedelta(days=2)
    Message.objects.filter(thread_id__in=threads).update(deleted_at=old)
    assert purge().places >= 3 * 89
    assert sorted(Message.objects.filter(thread_id__in=threads).values_list("position", flat=True)) == [90] * 3


def run(tmp_path: Path, program: str) -> str:
    """Run a program in its own process and return its output.

    The program has its own database, and no other process purges it.
    """
    head = """
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from django.core.management import call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from messages_app.models import Message, Thread
from messages_app.store.deletion import Purger, purge
from tests.rows import delete_thread, new_message, new_thread, store_rows

connection = connections[Message.objects.db]
call_command("migrate", database=connection.alias, verbosity=0)

def stored(number, **fields):
    thread = new_thread()
    rows = [new_message(thread=thread, position=i + 1, role="user", content=[], **fields) for i in range(number)]
    store_rows([thread], rows)
    return thread.id
"""
    done = manage(tmp_path / "data", "shell", "-v0", "-c", head + program)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.process
def test_purge_removes_100_messages_per_transaction(tmp_path: Path) -> None:
    program = """
delete_thread(stored(250))
with CaptureQueriesContext(connection) as queries:
    print(*purge())
statements = [query["sql"] for query in queries]
print(*(sql.count("'msg_") for sql in statements if sql.startswith('DELETE FROM "messages_app_message"')))
print(statements.count("COMMIT"))
"""
    # Purge removes three batches of messages and then the thread. On SQL engines, it looks for messages once more.
    expected = ["1 250 0 0", "100 100 50", "0"] if engines.chosen == "mongodb" else ["1 250 0 0", "100 100 50 0", "4"]
    assert run(tmp_path, program).splitlines() == expected
    assert ROWS_PER_REMOVAL == 100


def test_removal_of_a_large_thread_does_not_block_writers(served: Served) -> None:
    sent = {"messages": [{"role": "user", "content": "x" * 20_000}] * 100}
    large = served.call("POST", "/threads", sent, **JSON).body["id"]
    for _ in range(30):
        assert served.call("POST", f"/threads/{large}/messages", GOOD, **JSON).status == 200
    other = served.new_thread()
    assert served.call("DELETE", f"/threads/{large}").status == 200
    waits = []
    for _ in range(40):
        start = time.monotonic()
        assert served.call("POST", f"/threads/{other}/messages", GOOD, **JSON).status == 200
        waits.append(time.monotonic() - start)
    assert max(waits) < 5
    served.wait_until(lambda: not served.stored("message", thread_id=large))
    served.wait_until(lambda: rows_of(served, large) == (THREADS_LEFT, 0))


def rows_of(service: Served, thread: str) -> tuple[int, int]:
    return len(service.stored("thread", id=thread)), len(service.stored("message", thread_id=thread))


@pytest.mark.parametrize("finish", ["purge", "start"])
def test_purge_or_restart_finishes_an_interrupted_removal(
    serve: Callable[..., Served], tmp_path: Path, finish: str
) -> None:
    service = serve()
    threads = [service.call("POST", "/threads", {"messages": [GOOD] * 3}, **JSON).body["id"] for _ in range(2)]
    service.process.kill()
    service.process.wait()
    # Simulate a kill after the first thread was marked as deleted and while the second thread was being removed.
    program = (
        "from messages_app.models import Message\nfrom tests.rows import delete_thread\n"
        f"for thread in {threads!r}: delete_thread(thread)\n"
        f"Message.objects.filter(thread_id={threads[1]!r}, position__lt=3).delete()"
    )
    directory = tmp_path / "data"
    assert manage(directory, "shell", "-v0", "-c", program).returncode == 0
    assert [rows_of(service, thread) for thread in threads] == [(1, 3), (1, 1)]
    if finish == "purge":
        purged = manage(directory, "purge")
        assert (purged.returncode, purged.stderr) == (0, "")
        assert purged.stdout == (
            "Removed 2 deleted threads with 4 messages, 0 tombstones of deleted messages, and 0 idempotency keys.\n"
        )
        assert manage(directory, "purge").stdout.startswith("Removed 0 deleted threads with 0 messages")
    else:
        service = serve()
        service.wait_until(lambda: [rows_of(service, thread) for thread in threads] == [(THREADS_LEFT, 0)] * 2)
    assert [rows_of(service, thread) for thread in threads] == [(THREADS_LEFT, 0)] * 2


@pytest.mark.process
@pytest.mark.engine("sqlite", "postgresql")
def test_purge_without_tables_is_a_one_line_error(tmp_path: Path) -> None:
    # The data directory is new, so its database has no tables.
    failed = manage(tmp_path / "data", "purge")
    assert failed.returncode == 1
    reason = {"sqlite": "no such table", "postgresql": 'relation "messages_app_thread" does not exist'}[engines.chosen]
    assert failed.stderr.startswith(f"CommandError: cannot purge: {reason}")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.engine("sqlite")
def test_failed_removal_is_retried(serve: Callable[..., Served], tmp_path: Path) -> None:
    service = serve(DATABASE_URL=f"sqlite:///{tmp_path}/data/threadsvc.db?timeout=0.8", WEB_CONCURRENCY="1")
    sent = {"messages": [GOOD] * 100}
    large = [service.call("POST", "/threads", sent, **JSON).body["id"] for _ in range(10)]
    with closing(sqlite3.connect(tmp_path / "data/threadsvc.db", isolation_level=None)) as other:
        for thread in large:
            assert service.call("DELETE", f"/threads/{thread}").status == 200
        other.execute("BEGIN EXCLUSIVE")
        # Wait for two failures. After the first one, the purger may run again at once instead of waiting for its retry,
        # because a later delete has also woken it.
        service.wait_until(lambda: service.log.read_text().count("purge failed") >= 2)
        other.execute("ROLLBACK")
    service.wait_until(lambda: all(rows_of(service, thread) == (0, 0) for thread in large))


@pytest.mark.process
def test_tombstones_that_stay_cost_no_transaction(tmp_path: Path) -> None:
    program = """
for _ in range(5):
    stored(1, deleted_at=timezone.now() - timedelta(days=2))
with CaptureQueriesContext(connection) as queries:
    print(*purge())
print(*(query["sql"].split()[0] for query in queries))
print(Message.objects.count())
"""
    # On SQL engines, one query finds that no tombstone can be removed. On MongoDB, each tombstone needs a query, and an
    # UPDATE restores threads that a killed process left hidden. The last query looks for idempotency keys.
    statements = "UPDATE" + " SELECT" * (1 + 1 + 5 + 1 + 1) if engines.chosen == "mongodb" else "SELECT SELECT SELECT"
    assert run(tmp_path, program).splitlines() == ["0 0 0 0", statements, "5"]


@pytest.mark.process
def test_concurrent_purges_count_each_row_once(tmp_path: Path) -> None:
    program = """
for _ in range(6):
    delete_thread(stored(150))
stored(150, deleted_at=timezone.now() - timedelta(days=2))

def work(_):
    try:
        return purge()
    finally:
        connections.close_all()

with ThreadPoolExecutor(4) as pool:
    print(*map(sum, zip(*pool.map(work, range(4)))))
"""
    assert run(tmp_path, program) == f"6 {6 * 150} 149 0\n"


@pytest.mark.once
@pytest.mark.process
def test_purger_runs_at_its_start_and_then_at_intervals(tmp_path: Path) -> None:
    program = """
def wait_for_removal(thread):
    while Message.objects.filter(thread=thread).count() > 1:
        time.sleep(0.02)

old = timezone.now() - timedelta(days=2)
first = stored(2, deleted_at=old)
Purger(seconds_between=0.2).wake()
wait_for_removal(first)
wait_for_removal(stored(2, deleted_at=old))
print("removed twice")
"""
    assert run(tmp_path, program) == "removed twice\n"


# Races. before_insert() calls its hook after a create has checked its thread and before it inserts the message.


@contextmanager
def before_insert(hook: Callable[[], None]) -> Iterator[None]:
    """Call `hook` in the transaction of each create, just before the create inserts its message."""

    def call(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "messages_app_message"'):
            hook()
        return execute(sql, *rest)

    with connection.execute_wrapper(call):
        yield


def in_a_thread(pool: ThreadPoolExecutor, work: Callable[[], Any]) -> "Future[Any]":
    def run_and_close() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return pool.submit(run_and_close)


@pytest.mark.engine("sqlite", "postgresql")  # for MongoDB, see tests/test_mongo_faults.py
def test_delete_waits_for_a_create_and_removes_its_message(api: Api, thread_id: str) -> None:
    deletes: list[Future[Any]] = []
    with ThreadPoolExecutor() as pool:

        def delete() -> None:
            deletes.append(in_a_thread(pool, lambda: api.delete(f"/threads/{thread_id}")))
            with pytest.raises(TimeoutError):
                # The delete is still waiting for the create.
                deletes[0].result(timeout=0.5)

        with before_insert(delete):
            created = api.post(f"/threads/{thread_id}/messages", GOOD)
        assert deletes[0].result(timeout=10).status == 200
    assert created.status == 200
    assert status_and_body(api.get(f"/threads/{thread_id}/messages")) == thread_missing(thread_id)
    purge()
    assert not Message.objects.filter(thread_id=thread_id).exists()
    assert not Thread.objects.filter(id=thread_id).exists()


@pytest.mark.engine("sqlite", "postgresql")
def test_create_during_a_delete_is_refused(api: Api, thread_id: str) -> None:
    creates: list[Future[Any]] = []
    with ThreadPoolExecutor() as pool:
        with transaction.atomic(using=connection.alias):
            delete_thread(thread_id)
            creates.append(in_a_thread(pool, lambda: api.post(f"/threads/{thread_id}/messages", GOOD)))
            with pytest.raises(TimeoutError):
                creates[0].result(timeout=0.5)
        assert status_and_body(creates[0].result(timeout=10)) == thread_missing(thread_id)
    purge()
    assert not Message.objects.filter(thread_id=thread_id).exists()


def test_creates_that_race_a_delete_leave_no_rows(served: Served) -> None:
    clients = 6
    for _ in range(5):
        thread = served.new_thread()
        path = f"/threads/{thread}"

        def create(number: int, path: str = path) -> set[int]:
            statuses = set()
            for _ in range(200):
                statuses.add(served.call("POST", f"{path}/messages", GOOD, **JSON).status)
                if 404 in statuses:
                    break
            return statuses

        def delete(path: str = path) -> int:
            time.sleep(0.05)
            return served.call("DELETE", path).status

        with ThreadPoolExecutor(clients + 1) as pool:
            deleted = pool.submit(delete)
            statuses = list(pool.map(create, range(clients)))
        assert deleted.result() == 200
        assert all(404 in seen and seen <= {200, 404} for seen in statuses)
        served.wait_until(lambda: rows_of(served, thread) == (THREADS_LEFT, 0))  # noqa: B023  # called in this iteration


def test_page_of_a_thread_deleted_during_the_read_is_404(api: Api) -> None:
    thread, ids = new_filled_thread(api)

    def delete_before(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Delete the thread and one of its messages just before the page is read."""
        if "ORDER BY" in sql and Thread.objects.visible("default").filter(id=thread).exists():
            delete_thread(thread)
            Message.objects.filter(id=ids[0]).delete()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(delete_before):
        assert status_and_body(api.get(f"/threads/{thread}/messages")) == thread_missing(thread)
    assert Message.objects.filter(thread_id=thread).count() == 2


def test_only_one_of_concurrent_deletes_succeeds(served: Served) -> None:
    for _ in range(5):
        thread = served.new_thread()
        message = served.call("POST", f"/threads/{thread}/messages", GOOD, **JSON).body["id"]
        for path in (f"/threads/{thread}/messages/{message}", f"/threads/{thread}"):
            with ThreadPoolExecutor(4) as pool:
                statuses = list(pool.map(lambda _, path=path: served.call("DELETE", path).status, range(4)))
            assert sorted(statuses) == [200, 404, 404, 404]
