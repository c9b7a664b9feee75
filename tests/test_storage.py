"""The database: durability, locks, the order of messages with concurrent writers, indexes and ids."""

import gc
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messages_app.ids import new_id, new_object_id
from messages_app.models import IdempotencyRecord, Message, Thread
from messages_app.models.content import text_part
from messages_app.store.backend import backend
from messages_app.store.paging import Window, in_window
from messages_app.store.transactional import rows_with_pairs
from messages_app.transfer import export_lines
from tests import engines
from tests.conftest import ROOT, Api, Served, connection
from tests.rows import append, new_message

GOOD = {"role": "user", "content": "hello"}


@pytest.mark.engine("sqlite")
def test_every_connection_is_durable_and_has_a_busy_timeout() -> None:
    def pragmas() -> dict[str, object]:
        with closing(connection.copy()) as fresh, fresh.cursor() as cursor:
            names = ["journal_mode", "synchronous", "foreign_keys", "busy_timeout"]
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    full = 2
    expected = {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 30_000}
    assert pragmas() == expected
    with ThreadPoolExecutor() as pool:
        assert pool.submit(pragmas).result() == expected


@pytest.mark.engine("sqlite")
def test_transactions_take_the_write_lock_at_their_start() -> None:
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        pass
    assert queries[0]["sql"] == "BEGIN IMMEDIATE"


@pytest.mark.engine("sqlite")
def test_writers_of_one_process_take_turns_and_time_out() -> None:
    """A waiting writer times out. It can write once the first writer commits, rolls back or closes its connection."""
    first, second = connection.copy("first"), connection.copy("second")
    second.settings_dict["OPTIONS"] = {**second.settings_dict["OPTIONS"], "timeout": 0.2}
    second.force_debug_cursor = True

    def write(writer: BaseDatabaseWrapper) -> None:
        writer.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)

    with closing(first), closing(second):
        for end_turn in (first.commit, first.rollback, first.close):
            first.connect()
            second.connect()
            second.queries_log.clear()
            write(first)
            with pytest.raises(OperationalError, match="database is locked"):
                write(second)
            assert not second.queries_log  # the writer still waited in the queue, so it sent nothing to SQLite
            end_turn()
            write(second)
            second.rollback()
            second.set_autocommit(True)


@pytest.mark.engine("sqlite")
def test_turn_is_released_if_its_python_thread_ends() -> None:
    def leave() -> None:
        connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)

    # The thread ends without closing its connection, as the test intends. sqlite3 would warn about that.
    with warnings.catch_warnings(action="ignore"):
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        gc.collect()
    with transaction.atomic():
        assert Thread.objects.count() >= 0


@pytest.mark.engine("sqlite")
def test_turn_is_released_if_its_process_is_killed(serve: Callable[..., Served]) -> None:
    service = serve()
    thread = service.new_thread()
    program = "from django.db import transaction as t; import time\nwith t.atomic(): print('in'); time.sleep(60)"
    command = [sys.executable, "-u", "manage.py", "shell", "-v0", "-c", program]
    with subprocess.Popen(command, cwd=ROOT, env=service.environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"in\n"
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(service.call, "POST", f"/threads/{thread}/messages", GOOD)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
            holder.kill()
            assert waiting.result(timeout=5).status == 200
    assert service.stop() == 0


@pytest.mark.engine("sqlite")
def test_one_timeout_covers_the_queue_and_the_lock_of_sqlite(serve: Callable[..., Served], tmp_path: Path) -> None:
    service = serve(DATABASE_URL=f"sqlite:///{tmp_path}/data/threadsvc.db?timeout=2", WEB_CONCURRENCY="1")
    thread = service.new_thread()

    def timed_post(delay: float) -> tuple[int, float]:
        time.sleep(delay)
        start = time.monotonic()
        status = service.call("POST", f"/threads/{thread}/messages", GOOD).status
        return status, time.monotonic() - start

    with closing(sqlite3.connect(tmp_path / "data/threadsvc.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(timed_post, [0, 0.3, 0.6]))
        other.execute("ROLLBACK")
    assert [status for status, _ in answers] == [503] * 3
    assert max(seconds for _, seconds in answers) < 3.5
    assert service.stop() == 0


def test_threads_are_gapless_and_ordered_under_32_clients(served: Served) -> None:
    clients, each, threads = 32, 25, [served.new_thread() for _ in range(20)]

    def client(number: int) -> list[tuple[int, str]]:
        answers = []
        with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
            for i in range(each):
                body = json.dumps({"role": "user", "content": f"{number:02} {i:02}"})
                thread = threads[(number + i) % len(threads)]
                headers = {"Content-Type": "application/json"}
                if number % 2:
                    headers["Idempotency-Key"] = f"{number} {i}".replace(" ", "-")
                connection.request("POST", f"/threads/{thread}/messages", body, headers)
                response = connection.getresponse()
                answers.append((response.status, json.loads(response.read()).get("id", "")))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for answers in pool.map(client, range(clients)) for answer in answers]
    assert {status for status, _ in answers} == {200}
    stored = {}
    for thread in threads:
        rows = sorted(served.stored("message", thread_id=thread), key=lambda row: row["position"])
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
        texts = [row["content"][0]["text"]["value"] for row in rows]
        # A client sends a message after the response to its previous one. Its messages are stored in this order.
        for number in range(clients):
            own = [text for text in texts if text.startswith(f"{number:02} ")]
            assert own == sorted(own)
        # An id starts with the time. SQL engines read the time while they hold the write lock, so it never decreases
        # from one position to the next. MongoDB has no such lock.
        if engines.chosen != "mongodb":
            milliseconds = [row["id"][: len("msg_") + 10] for row in rows]
            assert milliseconds == sorted(milliseconds)
        stored.update({row["id"]: thread for row in rows})
    assert sorted(stored) == sorted(message_id for _, message_id in answers)
    assert len(stored) == clients * each


@pytest.mark.engine("sqlite")
def test_store_holds_no_connection_of_an_ended_python_thread(api: Api, thread_id: str) -> None:
    """When a Python thread ends, its connection is closed, its transaction ends, and its write lock is released."""
    store = type(backend())(connection.alias)

    def ask() -> None:
        assert store.thread("default", thread_id).id == thread_id
        assert store.append("default", thread_id, {"role": "user"}, None).position == 1
        assert store.lock(Thread.objects.all()).query
        transaction.atomic(using=connection.alias).__enter__()

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    start = time.monotonic()
    assert api.post(f"/threads/{thread_id}/messages", GOOD).status == 200
    assert time.monotonic() - start < 10
    assert store.thread("default", thread_id).id == thread_id


@contextmanager
def rival(thread_id: str, times: int) -> Iterator[list[int]]:
    """Simulate another writer, which takes the positions of the next `times` messages just before they are stored.

    Yields the list of these positions.
    """
    taken: list[int] = []
    is_writing = False

    def take(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal is_writing
        if sql.startswith('INSERT INTO "messages_app_message"') and len(taken) < times and not is_writing:
            is_writing = True
            taken.append(Message.objects.filter(thread_id=thread_id).count() + 1)
            other = new_message(thread_id=thread_id, position=taken[-1], role="user", content=[text_part("x")])
            Message.objects.bulk_create([other])
            is_writing = False
        return execute(sql, *rest)

    with connection.execute_wrapper(take):
        yield taken


# Only MongoDB needs two steps: find the next position, then store the message. Other engines use one statement.
@pytest.mark.engine("mongodb")
def test_create_retries_if_another_writer_took_its_position(api: Api, thread_id: str) -> None:
    with rival(thread_id, times=3) as taken:
        answer = api.post(f"/threads/{thread_id}/messages", GOOD)
    assert (answer.status, taken) == (200, [1, 2, 3])
    position = Message.objects.get(id=answer.body["id"]).position
    assert position == Message.objects.filter(thread_id=thread_id).count() == 4


@pytest.mark.engine("postgresql")
def test_create_retries_if_a_writer_without_the_lock_was_first(api: Api, thread_id: str) -> None:
    """An operator who repairs rows by hand may write without the lock, which the service always takes."""
    columns = "id, _id, thread_id, position, role, content, attachments, assistant_id, metadata, created_at"
    values = "'msg_by_hand', '', %s, 1, 'user', '[]', '[]', '', '{}', now()"
    server = connection.settings_dict
    address = {"host": server["HOST"], "port": server["PORT"], "user": server["USER"], "dbname": server["NAME"]}

    def create() -> Any:
        try:
            return api.post(f"/threads/{thread_id}/messages", GOOD)
        finally:
            connections.close_all()

    with closing(psycopg.connect(**address)) as by_hand, ThreadPoolExecutor() as pool:
        by_hand.execute(f"INSERT INTO messages_app_message ({columns}) VALUES ({values})", [thread_id])
        created = pool.submit(create)
        with pytest.raises(TimeoutError):
            # If the other transaction commits, position 1 is taken. The request has to wait for its end.
            created.result(timeout=0.5)
        by_hand.commit()
        answer = created.result(timeout=10)
    assert (answer.status, Message.objects.get(id=answer.body["id"]).position) == (200, 2)


def test_position_is_unique_in_its_thread(thread_id: str) -> None:
    thread = Thread.objects.get(id=thread_id)
    new_message(thread=thread, position=1, role="user", content=[]).save()
    with pytest.raises(IntegrityError):
        new_message(thread=thread, position=1, role="user", content=[]).save()


def test_position_of_a_deleted_message_is_not_reused(api: Api, thread_id: str) -> None:
    for _ in range(2):
        last = api.post(f"/threads/{thread_id}/messages", GOOD).body["id"]
    Message.objects.filter(id=last).update(deleted_at=datetime.now(UTC))
    message = api.post(f"/threads/{thread_id}/messages", GOOD).body["id"]
    assert Message.objects.get(id=message).position == 3


def test_message_needs_its_thread_and_is_deleted_with_it(thread_id: str) -> None:
    message = append(thread_id, role="user", content=[text_part("x")])
    # MongoDB has no foreign keys, so it would store a message without a thread.
    if engines.chosen != "mongodb":
        orphan = new_message(thread_id="thread_none", position=1, role="user", content=[])
        with pytest.raises(IntegrityError), transaction.atomic(using=connection.alias):
            orphan.save()
    Thread.objects.get(id=thread_id).delete()
    assert not Message.objects.filter(id=message.id).exists()


@pytest.mark.engine("sqlite")
def test_each_query_has_an_index_and_each_index_a_query(thread_id: str) -> None:
    now = timezone.now()
    of_thread = backend().visible_messages("default", "x")  # this query also checks that the thread exists
    threads, messages = Thread.objects.visible("default"), Message.objects.visible_in("x")
    pairs = rows_with_pairs("default", {"k": "v", "l": "w"})
    by_time = Message.by_time.filter(deleted_at=None)
    keys = IdempotencyRecord.objects
    visible, of_run = Thread.objects.filter(deleted_at=None), messages.named(run_id="r")
    queries: list[tuple[str, Any]] = [
        ("idempotencyrecord_1 (digest=?)", keys.filter(digest="x")),
        ("idempotency_thread (thread_id=?)", keys.filter(thread_id="x")),
        ("idempotency_message (message_id=?)", keys.filter(message_id="x")),
        ("idempotency_expires (created_at<?)", keys.filter(created_at__lt=now).order_by("created_at")),
        ("thread_list (tenant=?)", threads.order_by("-created_at", "-id")),
        ("thread_list (tenant=? AND (created_at,id)>(?,?))", in_window(threads, Window((now, "x"), None, True, None))),
        ("thread_list (tenant=? AND (created_at,id)<(?,?))", in_window(threads, Window(None, (now, "x"), True, None))),
        ("thread_by_pair (digest=?)", in_window(pairs, Window(None, None, True, None))),
        (
            "thread_by_pair (digest=? AND (created_at,thread_id)<(?,?))",
            in_window(pairs, Window(None, (now, "x"), True, None)),
        ),
        ("threadpair_1 (thread_id=? AND digest=?)", pairs),
        ("thread_1 (id=?)", threads.filter(id="x")),
        ("thread_deleted (deleted_at>?)", Thread.objects.filter(deleted_at__isnull=False).order_by("deleted_at")),
        ("message_list (thread_id=?)", in_window(messages, Window(None, None, True, None))),
        ("message_list (thread_id=? AND position>?)", in_window(messages, Window((1,), None, True, None))),
        (
            "message_run (thread_id=? AND run_id=?)",
            in_window(of_run, Window(None, None, True, None)),
        ),
        (
            "message_run (thread_id=? AND run_id=? AND position<?)",
            in_window(of_run, Window(None, (9,), True, None)),
        ),
        ("message_2 (thread_id=?)", Message.objects.filter(thread_id="x").order_by("-position")),
        ("message_deleted (deleted_at<?)", Message.objects.filter(deleted_at__lt=now).order_by("deleted_at", "id")),
        ("message_1 (id=?)", messages.filter(id="x")),
        # These queries also check that the thread exists, like the queries of requests.
        ("message_1 (id=?)", of_thread.filter(id="x")),
        ("message_list (thread_id=?)", in_window(of_thread, Window(None, None, True, None))),
        ("message_list (thread_id=? AND position<?)", in_window(of_thread, Window(None, (9,), True, None))),
        (
            "thread_by_time ((created_at,id)<(?,?))",
            in_window(visible, Window(None, (now, "x"), True, None)),
        ),
        ("message_by_time ((created_at,id)<(?,?))", in_window(by_time, Window(None, (now, "x"), True, None))),
        ("message_by_run (run_id=?", in_window(by_time.filter(run_id="r"), Window(None, (now, "x"), True, None))),
    ]
    for index, query in queries:
        plan = query.explain()
        assert index in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan
    named = {index.split()[0] for index, _ in queries}
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name LIKE 'messages_app_%'")
        assert {name.removeprefix("sqlite_autoindex_messages_app_") for (name,) in cursor} == named


@pytest.mark.engine("sqlite")
def test_stored_json_has_characters_instead_of_escapes(api: Api, thread_id: str) -> None:
    message = api.post(f"/threads/{thread_id}/messages", {**GOOD, "content": "né 😀"}).body["id"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT content FROM messages_app_message WHERE id = %s", [message])
        assert cursor.fetchone() == ('[{"type":"text","text":{"value":"né 😀","annotations":[]}}]',)


def test_documents_may_have_any_keys(thread_id: str) -> None:
    # The JSON schemas of tools contain such keys. MongoDB could interpret keys with dots as paths and keys with $ as
    # operators.
    schema = {"$ref": "#/$defs/a.b", "a.b": {"": [{"$where": "1"}]}, "": None, "deep": [[{"$defs": {"é": "\u2028"}}]]}
    attachments = [{"file_id": "file-1", "tools": [{"type": "function", "parameters": schema}]}]
    fields: dict[str, Any] = {"role": "user", "content": [text_part("a")], "attachments": attachments}
    append(thread_id, **fields)
    Message.objects.bulk_create(new_message(thread_id=thread_id, position=n, **fields) for n in (2, 3))
    messages = list(Message.objects.filter(thread=thread_id, attachments=attachments))
    assert [message.attachments for message in messages] == [attachments] * 3
    (line,) = export_lines([Thread.objects.get(id=thread_id)])
    text = json.dumps(attachments, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert line.count(f'"attachments":{text},') == 3


@pytest.mark.process
@pytest.mark.stateless
def test_forked_processes_generate_different_ids() -> None:
    """The ids differ even if the parent process has generated ids before the fork."""
    program = """
import os
from messages_app.ids import system_bytes
mine = {system_bytes.take(10) for _ in range(1000)}
assert len(mine) == 1000
reading, writing = os.pipe()
for _ in range(2):
    if os.fork() == 0:
        os.write(writing, b"".join(system_bytes.take(10) for _ in range(1000)))
        os._exit(0)
    os.wait()
os.close(writing)
theirs = b"".join(iter(lambda: os.read(reading, 65536), b""))
mine |= {system_bytes.take(10) for _ in range(1000)}
print(len(mine | {theirs[at : at + 10] for at in range(0, len(theirs), 10)}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("4000\n", "")


def test_ids_sort_by_time_and_have_80_random_bits(api: Api) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids = [new_id("msg", start + timedelta(milliseconds=i), os.urandom(10)) for i in range(2000)]
    assert ids == sorted(ids)
    assert len({message_id[14:] for message_id in ids}) == 2000
    # In the example of the ULID specification, the time 1469918176385 ms becomes 01ARYZ6S41.
    example = datetime(2016, 7, 30, 22, 36, 16, 385_000, tzinfo=UTC)
    assert new_id("x", example, b"\xff" * 10) == "x_01aryz6s41" + "z" * 16
    assert new_id("x", example, b"\0" * 10) == "x_01aryz6s41" + "0" * 16
    thread = api.post("/threads").body
    assert thread["id"].startswith("thread_")
    assert len(thread["id"]) == len("thread_") + 26


@pytest.mark.stateless
def test_object_ids_start_with_the_second_and_are_unique() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ids = {new_object_id(at, os.urandom(8)) for _ in range(2000)}
    assert len(ids) == 2000
    assert {object_id[:8] for object_id in ids} == {f"{int(at.timestamp()):08x}"}
    assert {len(object_id) for object_id in ids} == {24}
