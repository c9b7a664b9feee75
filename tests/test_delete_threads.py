"""`manage.py delete_threads` deletes idle threads. It keeps a thread in which a message arrives during the run."""

import io
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messages_app.models import Message, Thread, ThreadPair
from messages_app.store.deletion import purge
from messages_app.store.documents import UNDECIDED
from tests import engines
from tests.conftest import Api, connection, manage
from tests.rows import append, delete_thread, new_message, new_thread, store_rows
from tests.test_mongo import run_python, url

# The tests use the fixture `url` only as a parameter. In __all__, it does not count as an unused import.
__all__ = ["url"]

HELLO = {"role": "user", "content": "hello"}


def days_ago(days: float) -> datetime:
    return timezone.now().replace(microsecond=0) - timedelta(days=days)


def stored_thread(tenant: str, age: float, *ages: float, **fields: Any) -> str:
    """Store a thread that is `age` days old, with one message for each age in `ages`. Return the thread's id."""
    thread = new_thread(at=days_ago(age), tenant=tenant, metadata={"mark": "x"}, **fields)
    rows = enumerate(ages, start=1)
    store_rows(
        [thread],
        [new_message(at=days_ago(days), thread=thread, position=i, role="user", content=[]) for i, days in rows],
    )
    return thread.id


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return uuid4().hex


def delete(*options: str) -> str:
    shown = io.StringIO()
    call_command("delete_threads", *options, stdout=shown)
    return shown.getvalue()


def remaining(tenant: str) -> set[str]:
    return set(Thread.objects.visible(tenant).values_list("id", flat=True))


def test_age_counts_from_the_last_message_or_the_creation(tenant: str) -> None:
    old = [
        stored_thread(tenant, 365),
        stored_thread(tenant, 91),
        stored_thread(tenant, 365, 365, 120),
        stored_thread(tenant, 100, 91),
    ]
    last_deleted = stored_thread(tenant, 200, 150, 1)
    Message.objects.visible_in(last_deleted).filter(position=2).update(deleted_at=timezone.now(), content=[])
    kept = {
        stored_thread(tenant, 89),
        stored_thread(tenant, 365, 300, 1),
        stored_thread(tenant, 365, 89),
        stored_thread(tenant, 0, 0),
    }
    other = stored_thread(uuid4().hex, 365, 365)
    with_messages = "5 threads with 4 messages, of tenant"
    preview = delete("--older-than", "90d", "--tenant", tenant, "--dry-run")
    assert preview.startswith(f"Would delete {with_messages} {tenant}, idle since 20")
    assert remaining(tenant) == {*old, last_deleted, *kept}
    output = delete("--older-than", "90d", "--tenant", tenant)
    assert output.startswith(f"Deleted {with_messages} {tenant}, idle since 20")
    assert remaining(tenant) == kept
    # The rows are removed, not only hidden. Only on MongoDB, purge keeps a row with the id (see tests/test_delete.py).
    deleted = [*old, last_deleted]
    assert not Message.objects.filter(thread__in=deleted).exists()
    tenants = list(Thread.objects.filter(id__in=deleted).values_list("tenant", flat=True))
    assert tenants == ([""] * 5 if engines.chosen == "mongodb" else [])
    if engines.chosen != "mongodb":
        assert not ThreadPair.objects.filter(thread__in=deleted).exists()
    assert Thread.objects.get(id=other).deleted_at is None
    assert delete("--older-than", "90d", "--tenant", tenant).startswith("Deleted 0 threads with 0 messages, ")


def test_without_a_tenant_threads_of_all_tenants_are_deleted(api: Api) -> None:
    delete("--older-than", "1972-01-01")  # removes old threads from other tests
    tenants = [uuid4().hex for _ in range(3)]
    threads = [
        new_thread(at=datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=i // 7), tenant=tenants[i % 3])
        for i in range(130)
    ]
    store_rows(threads)
    append(threads[0].id, tenants[0], role="user", content=[])
    assert delete("--older-than", "1972-01-01") == (
        "Deleted 129 threads with 0 messages, idle since 1972-01-01 00:00:00 UTC.\n"
    )
    assert [remaining(tenant) for tenant in tenants] == [{threads[0].id}, set(), set()]


@pytest.mark.engine("sqlite", "postgresql")
def test_query_count_does_not_grow_with_threads(tenant: str) -> None:
    def queries_of(number: int) -> int:
        for _ in range(number):
            stored_thread(tenant, 10, 10, 9)
        with CaptureQueriesContext(connection) as queries:
            delete("--older-than", "5d", "--tenant", tenant, "--dry-run")
        return len(queries)

    assert queries_of(1) == queries_of(20)


@pytest.mark.engine("sqlite", "postgresql")
def test_thread_that_gets_a_message_during_the_run_stays(tenant: str) -> None:
    used, unused = stored_thread(tenant, 50, 40), stored_thread(tenant, 50, 40)

    def run() -> str:
        try:
            return delete("--older-than", "30d", "--tenant", tenant)
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as pool:
        with transaction.atomic(using=connection.alias):
            append(used, tenant, role="user", content=[])
            running = pool.submit(run)
            with pytest.raises(TimeoutError):
                # The run has found both threads idle. It now waits for the transaction of append().
                running.result(timeout=0.5)
        assert running.result(timeout=10).startswith("Deleted 1 threads with 1 messages, ")
    assert remaining(tenant) == {used}
    assert Message.objects.visible_in(used).count() == 2
    assert not Thread.objects.filter(id=unused).exists()


# MongoDB has neither rollback nor locks, so another client's write can come between two writes of a run.


@pytest.mark.engine("mongodb")
@pytest.mark.parametrize("write", [1, 2, 3])
def test_message_between_the_writes_is_kept_or_refused(api: Api, monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    import pymongo

    mark = uuid4().hex
    used, unused = stored_thread("default", 20000, 19000), stored_thread("default", 20000, 19000)
    answers = []
    update, writes = pymongo.collection.Collection.update_many, 0

    def update_many(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        if self.name == "messages_app_thread":
            writes += 1
            # Add 1, because the first write only restores threads that a killed run left hidden.
            if writes == write + 1:
                with ThreadPoolExecutor(1) as pool:
                    sent = {**HELLO, "metadata": {"mark": mark}}
                    answers.append(pool.submit(api.post, f"/threads/{used}/messages", sent).result())
        return update(self, *args, **kwargs)

    monkeypatch.setattr(pymongo.collection.Collection, "update_many", update_many)
    output = delete("--older-than", "18000d")
    (answer,) = answers
    found = Message.objects.filter(thread=used).count()
    if answer.status == 200:
        assert output.startswith("Deleted 1 threads with 1 messages, ")
        assert (api.get(f"/threads/{used}").status, found) == (200, 2)
    else:
        assert answer.status == 404
        assert output.startswith("Deleted 2 threads with 2 messages, ")
        assert (api.get(f"/threads/{used}").status, found) == (404, 0)
    assert answer.status == (200 if write == 1 else 404)
    assert api.get(f"/threads/{unused}").status == 404


# A program that deletes old threads and is killed before its update number `deadly`. Update 2 hides the threads. Just
# before this update, the program appends a message to one of them.
DELETE = """
import os, signal, sys, pymongo
from django.core.management import call_command
from tests.rows import append
deadly, used, writes = int(sys.argv[1]), sys.argv[2], 0
update = pymongo.collection.Collection.update_many
def update_many(self, *args, **kwargs):
    global writes
    writes += 1
    if writes == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    if writes == 2:
        append(used, role="user", content=[])
    return update(self, *args, **kwargs)
pymongo.collection.Collection.update_many = update_many
call_command("delete_threads", "--older-than", "18000d")
"""


@pytest.mark.process
@pytest.mark.engine("mongodb")
def test_run_killed_at_any_write_deletes_no_used_thread(api: Api, tmp_path: Path, url: str) -> None:
    finished, hidden = False, 0
    for deadly in range(1, 20):
        used, unused = stored_thread("default", 20000, 19000), stored_thread("default", 20000, 19000)
        done = run_python(tmp_path, DELETE, url, arguments=(str(deadly), used))
        finished = done.returncode != -signal.SIGKILL
        assert not finished or done.returncode == 0, done.stderr
        hidden += Thread.objects.filter(deleted_at__gte=UNDECIDED).count()
        delete("--older-than", "18000d")
        assert not Thread.objects.filter(deleted_at__gte=UNDECIDED).exists()
        assert api.get(f"/threads/{unused}").status == 404
        assert not Message.objects.filter(thread=unused).exists()
        if Message.objects.filter(thread=used).exists():
            assert len(api.get(f"/threads/{used}/messages").body["data"]) == 2
            delete_thread(used)
        else:
            # A deleted thread is correct only if the program was killed before it appended the message.
            assert deadly <= 2
        if finished:
            break
    assert finished
    assert hidden > 0


@pytest.mark.engine("mongodb")
def test_purge_shows_threads_that_a_killed_run_left_hidden(api: Api) -> None:
    thread = new_thread(deleted_at=UNDECIDED + timedelta(days=1))
    thread.save()
    assert api.get(f"/threads/{thread.id}").status == 404
    purge()
    assert api.get(f"/threads/{thread.id}").status == 200


@pytest.mark.parametrize(
    "age", ["", "90", "0d", "-5d", "1.5d", "90 d", "90m", "²d", "99999999d", "2026-02-30", "yesterday"]
)
@pytest.mark.stateless
def test_invalid_age_is_refused(age: str) -> None:
    with pytest.raises(CommandError, match="is not an age such as 12h, 90d or 4w, nor a date such as 2026-01-31"):
        call_command("delete_threads", f"--older-than={age}")


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--older-than"),
        (("--older-than=9999999w",), "is not an age such as"),
        (("--older-than=2999-01-01",), "2999-01-01 is in the future: every thread is older"),
        (("--older-than=90d", "--tenant="), "--tenant takes 1 to 64 characters"),
        (("--older-than=90d", f"--tenant={'x' * 65}"), "--tenant takes 1 to 64 characters"),
    ],
)
def test_bad_option_is_refused(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(CommandError) as caught:
        call_command("delete_threads", *options)
    assert words in str(caught.value)


@pytest.mark.parametrize(("age", "hours"), [("36h", 36), ("2d", 48), ("1w", 168)])
@pytest.mark.stateless
def test_age_counts_back_from_now(tenant: str, age: str, hours: int) -> None:
    shown = delete("--older-than", age, "--tenant", tenant, "--dry-run").rpartition("since ")[2]
    since = datetime.strptime(shown, "%Y-%m-%d %H:%M:%S UTC.\n").replace(tzinfo=UTC)
    assert abs(timezone.now() - timedelta(hours=hours) - since) < timedelta(seconds=5)


@pytest.mark.process
@pytest.mark.engine("sqlite", "postgresql")
def test_missing_tables_are_a_one_line_error(tmp_path: Path) -> None:
    refused = manage(tmp_path / "data", "delete_threads", "--older-than", "90d")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert refused.stderr.startswith("CommandError: cannot continue: ")


def test_thread_of_exactly_that_age_stays(tenant: str) -> None:
    cutoff = datetime(2001, 2, 3, tzinfo=UTC)
    created_then, active_then = (new_thread(at=at, tenant=tenant) for at in (cutoff, cutoff - timedelta(days=9)))
    older = new_thread(at=cutoff - timedelta(seconds=1), tenant=tenant)
    message = new_message(at=cutoff, thread=active_then, position=1, role="user", content=[])
    store_rows([created_then, active_then, older], [message])
    delete("--older-than", "2001-02-03", "--tenant", tenant)
    assert remaining(tenant) == {created_then.id, active_then.id}
