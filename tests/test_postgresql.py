"""PostgreSQL: transactions, connections, query plans, and requests while the server is slow, down or restarted."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import InternalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from django.utils import timezone

from messages_app.models import IdempotencyRecord, Message, Thread
from messages_app.store.paging import Window, in_window
from messages_app.store.transactional import rows_with_pairs
from tests import engines
from tests.conftest import Answer, Served, connection, manage
from tests.rows import new_message, new_thread, store_rows
from tests.servers.postgresql import PostgreSQL
from tests.stored import tables
from threadsvc.engines.urls import database_from_url

pytestmark = pytest.mark.engine("postgresql")

GOOD = {"role": "user", "content": "hello"}
JSON = {"Content_Type": "application/json"}
UNAVAILABLE = (503, {"detail": "Service Unavailable"}, "1")


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgreSQL]:
    """A server that tests may stop, because only this module uses it."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(scope="module")
def service(own_server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that uses `own_server`. Several tests share this service, so it has to work again after each outage."""
    databases = {name: own_server.new_database() for name in ("DATABASE_URL", "THREADS_DATABASE_URL")}
    service = Served(tmp_path_factory.mktemp("on_own_server") / "data", **databases)
    yield service
    service.stop()


def new_database() -> str:
    assert engines.server
    return engines.server.new_database()


def post(service: Served, thread: str, content: str = "hello") -> Answer:
    return service.call("POST", f"/threads/{thread}/messages", {"role": "user", "content": content}, **JSON)


def timed(act: Callable[[], Answer]) -> tuple[int, Any, str | None, float]:
    start = time.monotonic()
    answer = act()
    return answer.status, answer.body, answer.headers.get("retry-after"), time.monotonic() - start


def assert_soon_unavailable(service: Served, thread: str) -> None:
    """Check that 16 concurrent requests and one later request get 503 within seconds."""
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(timed, lambda: post(service, thread)) for _ in range(16)]
    answers.append(pool_of_one(lambda: timed(lambda: service.call("GET", f"/threads/{thread}"))))
    for answer in answers:
        *response, seconds = answer.result()
        assert tuple(response) == UNAVAILABLE
        assert seconds < 3  # the service waits at most 2 s, and a busy machine may add 1 s
    assert service.call("GET", "/readyz").status == 503
    assert service.call("GET", "/healthz").status == 200


def pool_of_one(act: Callable[[], Any]) -> "Future[Any]":
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act)


# Order and content


def test_positions_are_committed_in_order(serve: Callable[..., Served]) -> None:
    """If a reader sees a position, it also sees all lower positions, even if some writers are slow."""
    url = new_database()
    service = serve(THREADS_DATABASE_URL=url, WEB_CONCURRENCY="3")
    thread, writers, each = service.new_thread(), 10, 20
    sql = "SELECT position, id FROM messages_app_message WHERE thread_id = %s ORDER BY position"
    with ThreadPoolExecutor(writers) as pool, closing(psycopg.connect(url, autocommit=True)) as reader:

        def write(writer: int) -> list[str]:
            return [post(service, thread, f"{writer} {i}").body["id"] for i in range(each)]

        writing = [pool.submit(write, writer) for writer in range(writers)]
        snapshots = []
        while not all(future.done() for future in writing):
            snapshots.append(reader.execute(sql, [thread]).fetchall())
        final = reader.execute(sql, [thread]).fetchall()
    assert [position for position, _ in final] == list(range(1, writers * each + 1))
    # The snapshots have many different lengths, so the reader really ran while messages were written.
    assert len({len(snapshot) for snapshot in snapshots}) > writers
    assert all(snapshot == final[: len(snapshot)] for snapshot in snapshots)
    ids = [message_id for _, message_id in final]
    for future in writing:
        own = future.result()
        assert [message_id for message_id in ids if message_id in set(own)] == own


def test_longest_text_of_four_byte_characters_is_unchanged(served: Served) -> None:
    thread, text = served.new_thread(), "".join(map(chr, range(0x10000, 0x10000 + 32_768)))
    assert len(text.encode()) == 4 * 32_768
    message = post(served, thread, text).body["id"]
    shown = served.call("GET", f"/threads/{thread}/messages/{message}").body
    assert shown["content"][0]["text"]["value"] == text
    (row,) = served.stored("message", id=message)
    assert row["content"] == [{"type": "text", "text": {"value": text, "annotations": []}}]


# Timeouts, outages and restarts


def test_statement_timeout_is_503_and_stores_nothing(serve: Callable[..., Served]) -> None:
    url = new_database()
    service = serve(THREADS_DATABASE_URL=f"{url}?timeout=0.5")
    thread = service.new_thread()
    with closing(psycopg.connect(url)) as other:
        other.execute("SELECT 1 FROM messages_app_thread WHERE id = %s FOR UPDATE", [thread])
        *response, seconds = timed(lambda: post(service, thread))
        assert tuple(response) == UNAVAILABLE
        assert 0.5 <= seconds < 2
        assert service.call("GET", "/healthz").status == 200
        other.rollback()
    assert service.stored("message") == []
    assert post(service, thread).status == 200
    (row,) = service.stored("message")
    assert row["position"] == 1


def test_slow_statement_on_a_responsive_server_succeeds(serve: Callable[..., Served]) -> None:
    url = new_database()
    service = serve(THREADS_DATABASE_URL=url)
    thread = service.new_thread()
    with closing(psycopg.connect(url)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT 1 FROM messages_app_thread WHERE id = %s FOR UPDATE", [thread])
        answer = pool.submit(post, service, thread)
        # While a statement waits, the service probes the server. It does so three times during this pause. The server
        # responds to the probes, so the service must not give up.
        time.sleep(2.5)
        assert not answer.done()
        other.rollback()
        assert answer.result().status == 200


@pytest.mark.process
def test_stopped_server_is_503_at_once_and_200_after_restart(service: Served, own_server: PostgreSQL) -> None:
    thread = service.new_thread()
    own_server.stop()
    assert_soon_unavailable(service, thread)
    # If the pool reconnected with exponential backoff, its pauses would now be so long that this test would fail.
    time.sleep(1.5)
    assert_soon_unavailable(service, thread)
    own_server.start()
    *response, seconds = timed(lambda: post(service, thread))
    assert (response[0], seconds < 5) == (200, True)
    assert service.call("GET", "/readyz").status == 200
    assert len(service.stored("message", thread_id=thread)) == 1


@pytest.mark.process
def test_server_restart_between_requests_causes_no_errors(service: Served, own_server: PostgreSQL) -> None:
    thread = service.new_thread()
    with ThreadPoolExecutor(16) as pool:
        for _ in range(2):
            # The requests are concurrent, so the service's pool opens several connections.
            answers = [pool.submit(post, service, thread) for _ in range(32)]
            assert {answer.result().status for answer in answers} == {200}
            own_server.stop()
            own_server.start()
    assert post(service, thread).status == 200
    assert len(service.stored("message", thread_id=thread)) == 65


@pytest.mark.process
def test_api_key_is_503_during_an_outage_and_valid_afterwards(service: Served, own_server: PostgreSQL) -> None:
    databases = {name: service.environment[name] for name in ("DATABASE_URL", "THREADS_DATABASE_URL")}
    key = manage(service.directory, "create_api_key", "test", **databases).stdout.strip()

    def ask() -> Answer:
        return service.call("GET", "/threads", Authorization=f"Bearer {key}")

    assert ask().status == 200
    for take_down, bring_up in ((own_server.stop, own_server.start), (own_server.suspend, own_server.resume)):
        take_down()
        *response, seconds = timed(ask)
        assert tuple(response) == UNAVAILABLE
        assert seconds < 3
        bring_up()
        service.wait_until(lambda: ask().status == 200, seconds=5)
    manage(service.directory, "revoke_api_key", key, **databases)
    assert ask().status == 401


# Connections


def connections_of(pid: int, port: int) -> set[str]:
    """Return the sockets of a process that are connected to a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    to_port = {f"socket:[{row[9]}]" for row in rows if int(row[2].partition(":")[2], 16) == port}
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except FileNotFoundError:  # the process has closed the descriptor since it was listed
            continue
    return own & to_port


def test_each_worker_has_a_small_pool_of_its_own(serve: Callable[..., Served]) -> None:
    workers, threads = 2, 3
    url = new_database()
    service = serve(THREADS_DATABASE_URL=url, WEB_CONCURRENCY=str(workers), THREADSVC_THREADS_PER_WORKER=str(threads))
    thread = service.new_thread()
    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(post, service, thread) for _ in range(120)]
        assert {answer.result().status for answer in answers} == {200}
    assert engines.server
    master = service.process.pid
    children = service.children()
    assert len(children) == workers
    open_in = [connections_of(pid, engines.server.port) for pid in children]
    assert not connections_of(master, engines.server.port)
    # Each worker has at most one connection for each of its threads, and one for the purge.
    assert all(1 <= len(own) <= threads + 1 for own in open_in)
    assert not set.intersection(*open_in)
    with closing(psycopg.connect(url)) as other:
        (row,) = other.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'threadsvc'"
        ).fetchall()
    assert row[0] == sum(map(len, open_in))
    assert service.stop() == 0
    assert '"level":"error"' not in service.log.read_text()
    assert "Warning" not in service.log.read_text()


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """Yield a connection with the settings that the service derives from this URL."""
    database: Any = ConnectionHandler({"default": database_from_url("DATABASE_URL", url, threads=2)})["default"]
    try:
        yield database
    finally:
        database.close()
        database.close_pool()


def shown(database: BaseDatabaseWrapper, *names: str) -> list[str]:
    values = []
    with database.cursor() as cursor:
        for name in names:
            cursor.execute(f"SHOW {name}")
            values.append(str(cursor.fetchone()[0]))
    return values


def test_url_sets_timeouts_and_application_name() -> None:
    url, names = new_database(), ("statement_timeout", "idle_in_transaction_session_timeout", "application_name")
    with connected(url) as database:
        assert shown(database, *names, "work_mem") == ["30s", "1min", "threadsvc", "4MB"]
    with connected(f"{url}?timeout=7.5&application_name=shop&options=-c%20work_mem%3D5MB") as database:
        assert shown(database, *names, "work_mem") == ["7500ms", "15s", "shop", "5MB"]
    with connected(f"{url}?options=-cstatement_timeout%3D9s") as database:
        assert shown(database, "statement_timeout") == ["9s"]


def test_statements_are_prepared_unless_the_url_disables_it() -> None:
    url = new_database()
    for option, prepared in (("", ["SELECT $1::int"]), ("?prepared_statements=0", [])):
        with connected(f"{url}{option}") as database:
            for number in range(5):
                assert database.fetch_all("SELECT %s::int", [number]) == [(number,)]
            assert [
                sql for (sql,) in database.fetch_all("SELECT statement FROM pg_prepared_statements", [])
            ] == prepared


def test_migration_may_take_longer_than_a_request() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '200ms'")
        with connection.schema_editor() as editor:
            editor.execute("SELECT pg_sleep(0.4)")
        assert shown(connection, "statement_timeout") == ["200ms"]
        cursor.execute("RESET statement_timeout")


# Tables and indexes


def test_one_database_can_hold_everything(serve: Callable[..., Served], tmp_path: Path) -> None:
    both = {"DATABASE_URL": new_database(), "THREADS_DATABASE_URL": ""}
    service = serve(**both)
    thread = service.new_thread()
    assert post(service, thread).status == 200
    assert service.call("GET", "/readyz").status == 200
    assert service.call("GET", "/admin/login/").status == 200
    assert len(service.stored("message", thread_id=thread)) == 1
    assert tables(both["DATABASE_URL"]) >= {"auth_user", "django_session", "messages_app_thread"}
    assert service.call("DELETE", f"/threads/{thread}").status == 200
    service.wait_until(lambda: not service.stored("thread"))
    directory = tmp_path / "data"
    secret = {"DJANGO_SUPERUSER_PASSWORD": "correct horse", **both}
    created = manage(directory, "createsuperuser", "--noinput", "--username=ann", "--email=ann@shop.example", **secret)
    assert (created.returncode, created.stderr) == (0, "")
    assert manage(directory, "seed", "--threads", "3", "--messages", "9", **both).returncode == 0
    assert len(service.stored("message")) == 9
    assert not (directory / "threadsvc.db").exists()


def test_threads_database_holds_nothing_else(served: Served) -> None:
    threads = tables(served.environment["THREADS_DATABASE_URL"])
    assert {"messages_app_thread", "messages_app_message", "django_migrations"} < threads
    assert not {table for table in threads if not table.startswith(("messages_app_", "django_migrations"))}
    default = tables(f"sqlite:///{served.directory}/threadsvc.db")
    assert default >= {"auth_user", "django_session"}
    assert not default & {"messages_app_thread", "messages_app_message"}


def test_database_with_a_missing_table_is_not_ready(serve: Callable[..., Served]) -> None:
    url = new_database()
    service = serve(THREADS_DATABASE_URL=url)
    with closing(psycopg.connect(url, autocommit=True)) as other:
        other.execute("DROP TABLE messages_app_message CASCADE")
    answer = service.call("GET", "/readyz")
    assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable"})
    assert service.call("GET", "/healthz").status == 200


def test_each_query_has_an_index_and_each_index_a_query() -> None:
    now, day = timezone.now(), timedelta(days=1)
    new = [new_thread(tenant=f"tenant-{i % 10}", metadata={"k": str(i)}) for i in range(1000)]
    places = [(thread, position + 1) for thread in new[::10] for position in range(10)]
    rows = [new_message(thread=thread, position=position, role="user", content=[]) for thread, position in places]
    thread, message = new[0].id, rows[0].id
    threads, messages = Thread.objects.visible("tenant-0"), Message.objects.visible_in(thread)
    pairs = rows_with_pairs("tenant-0", {"k": "v", "l": "w"})
    by_time = Message.by_time.filter(deleted_at=None)
    keys = IdempotencyRecord.objects
    records = [IdempotencyRecord(digest=thread.id, thread_id=thread.id, created_at=now) for thread in new]
    visible, of_run = Thread.objects.filter(deleted_at=None), messages.named(run_id="r")
    queries: list[tuple[str, Any]] = [
        ("messages_app_idempotencyrecord_pkey", keys.filter(digest="x")),
        ("idempotency_thread", keys.filter(thread_id="x")),
        ("idempotency_message", keys.filter(message_id="x")),
        ("idempotency_expires", keys.filter(created_at__lt=now).order_by("created_at")),
        ("thread_list", threads.order_by("-created_at", "-id")),
        ("thread_list", in_window(threads, Window((now - day, "x"), None, True, None))),
        ("thread_list", in_window(threads, Window(None, (now + day, "x"), True, None))),
        ("thread_by_pair", in_window(pairs, Window(None, None, True, None))),
        ("thread_by_pair", in_window(pairs, Window(None, (now + day, "x"), True, None))),
        ("thread_pair", pairs),
        ("messages_app_thread_pkey", threads.filter(id=thread)),
        ("thread_deleted", Thread.objects.filter(deleted_at__isnull=False).order_by("deleted_at")),
        ("message_list", in_window(messages, Window(None, None, True, None))),
        ("message_list", in_window(messages, Window((1,), None, True, None))),
        ("message_run", in_window(of_run, Window(None, None, True, None))),
        ("message_run", in_window(of_run, Window(None, (9,), True, None))),
        ("message_position", Message.objects.filter(thread_id=thread).order_by("-position")),
        ("message_deleted", Message.objects.filter(deleted_at__lt=now).order_by("deleted_at", "id")),
        ("messages_app_message_pkey", messages.filter(id=message)),
        (
            "thread_by_time",
            in_window(visible, Window(None, (now + day, "x"), True, None)),
        ),
        ("message_by_time", in_window(by_time, Window(None, (now + day, "x"), True, None))),
        ("message_by_run", in_window(by_time.filter(run_id="r"), Window(None, (now + day, "x"), True, None))),
    ]
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        store_rows(new, rows)
        keys.bulk_create(records)
        cursor.execute("ANALYZE messages_app_thread, messages_app_threadpair, messages_app_message")
        # With so few rows, the planner would not use the indexes. Disable its alternatives, to check that each query
        # has an index that can serve it.
        for method in ("seqscan", "bitmapscan", "sort", "incremental_sort"):
            cursor.execute(f"SET LOCAL enable_{method} = off")
        for index, query in queries:
            plan = query.explain()
            assert f" using {index} " in plan, plan
            assert "Seq Scan" not in plan
            assert "Sort" not in plan
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename LIKE 'messages_app_%'")
        found = {name for (name,) in cursor.fetchall()}
        transaction.set_rollback(True, using=connection.alias)
    # Each index serves a query. The only exception is the primary key of the pairs, which no query uses.
    assert found - {"messages_app_threadpair_pkey"} == {index for index, _ in queries}


def test_pool_discards_connections_that_the_server_closed(thread_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    connection.close()
    with closing(psycopg.connect(new_database(), autocommit=True)) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert Thread.objects.get(id=thread_id)


def test_idle_transaction_is_ended_and_releases_its_locks() -> None:
    url = new_database()
    with connected(f"{url}?timeout=0.1") as database, closing(psycopg.connect(url, autocommit=True)) as other:
        database.set_autocommit(False)
        with database.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
            assert other.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (False,)
            time.sleep(0.5)
            assert other.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
            with pytest.raises(InternalError, match="idle-in-transaction timeout"):
                cursor.execute("SELECT 1")
