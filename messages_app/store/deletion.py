"""The purge: removes deleted rows in short transactions, so that other writers wait only briefly.

Clients and operators cannot see a deleted thread. The purge removes its messages, then the thread. A deleted message is
an empty row. The purge keeps this row for 24 hours, because clients may use its id as a cursor, and then removes it.
Every step can be repeated. If a purge crashes, the next purge continues, and several processes may purge at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import Error, connections, transaction
from django.db.models import F, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan
from django.utils import timezone

from messages_app.ids import EPOCH
from messages_app.models import IdempotencyRecord, Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.store.backend import backend
from messages_app.store.errors import reason_of
from messages_app.store.idempotency import KEYS_LAST

logger = logging.getLogger(__name__)

# How long the id of a deleted message is valid as a cursor (threads-api contract, "Lists").
CURSORS_LAST = timedelta(hours=24)

# The number of rows that one transaction removes. Other writers may have to wait for this transaction.
ROWS_PER_REMOVAL = 100

SECONDS_BETWEEN_PURGES = 3600
SECONDS_AFTER_FAILURE = 3


class Purged(NamedTuple):
    """The numbers of removed rows.

    - `threads`: deleted threads.
    - `messages`: the messages in these threads.
    - `places`: messages that were deleted individually.
    - `keys`: idempotency records.
    """

    threads: int = 0
    messages: int = 0
    places: int = 0
    keys: int = 0


def purge() -> Purged:
    """Remove all deleted rows that may be removed now, and expired idempotency records."""
    backend().recover_idle()
    now = timezone.now()
    purged = purge_threads()
    places = remove_deleted_messages(now - CURSORS_LAST)
    keys = remove_keys(IdempotencyRecord.objects.filter(created_at__lt=now - KEYS_LAST))
    return purged._replace(places=places, keys=purged.keys + keys)


def purge_threads(removed: Callable[[int], None] = lambda threads: None) -> Purged:
    """Remove the deleted threads and everything in them.

    After each thread, call `removed` with the number of threads so far.
    """
    threads = messages = keys = 0
    deleted = Thread.objects.filter(deleted_at__lte=timezone.now()).order_by("deleted_at")
    while thread := deleted.first():
        # An import may store a new thread with this id at any time, so `still` also requires the time of deletion.
        still = deleted.filter(id=thread.id, deleted_at=thread.deleted_at)
        messages += remove_messages(Message.objects.filter(thread=thread).order_by("position"), of=still)
        now = timezone.now()
        # Records up to `now` belong to the deleted thread. Later ones may belong to a new thread with the same id.
        if still.exists():
            keys += remove_keys(IdempotencyRecord.objects.filter(thread_id=thread.id, created_at__lte=now))
        with half_of_the_time():
            threads += backend().remove_thread(still, timezone.now())
        removed(threads)
    return Purged(threads, messages, keys=keys)


def remove_messages(messages: MessageQuerySet, of: ThreadQuerySet) -> int:
    """Remove messages in batches while the query `of` still finds their thread.

    Return the number of removed messages.
    """
    total = 0
    while True:
        with half_of_the_time(), transaction.atomic(using=backend().database):
            # Read one more id than the batch removes, to see whether more messages follow.
            ids = ids_of(messages, ROWS_PER_REMOVAL + 1) if backend().lock(of).only("id").first() else []
            total += remove_rows(ids[:ROWS_PER_REMOVAL])
        if len(ids) <= ROWS_PER_REMOVAL:
            return total


def ids_of(rows: QuerySet[Any], limit: int) -> list[str]:
    return list(rows.values_list("pk", flat=True)[:limit])


def remove_rows(ids: list[str]) -> int:
    return Message.objects.filter(id__in=ids).delete()[0] if ids else 0


@contextmanager
def half_of_the_time() -> Iterator[None]:
    """Run the block, then sleep as long as the block took, so that other writers get as much time."""
    start = time.monotonic()
    yield
    time.sleep(time.monotonic() - start)


def remove_deleted_messages(before: datetime) -> int:
    """Remove the messages that were deleted before a time, except the last message of each thread. Return their number.

    A new message gets the position after the last row. If the purge removed the last row, its position would be reused.
    """
    total, seen = 0, (EPOCH, "")
    deleted = Message.objects.filter(deleted_at__lt=before).order_by("deleted_at", "id")
    deleted = deleted.only("deleted_at", "id", "thread_id", "position")
    order = Tuple(F("deleted_at"), F("id"))
    while True:
        rows, ids = backend().removable(deleted.filter(TupleGreaterThan(order, seen)), ROWS_PER_REMOVAL)
        if not rows:
            return total
        if ids:  # none of these messages can become the last message of its thread
            with half_of_the_time(), transaction.atomic(using=backend().database):
                total += remove_rows(ids)
        seen = rows[-1].deleted_at, rows[-1].id  # type: ignore[assignment]  # set in every deleted message


def remove_keys(records: QuerySet[IdempotencyRecord]) -> int:
    """Remove idempotency records in batches. Return the number of removed records."""
    total = 0
    while digests := ids_of(records, ROWS_PER_REMOVAL):
        with half_of_the_time(), transaction.atomic(using=backend().database):
            total += records.filter(digest__in=digests).delete()[0]
    return total


class Purger:
    """Purges in a background thread, one in each process.

    The thread purges everything when it starts and then at regular intervals. After a call of `wake`, it purges
    only the deleted threads.
    """

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_PURGES) -> None:
        self._seconds_between = seconds_between
        self._awake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        self._awake.set()
        with self._starting:
            if self._thread is None or not self._thread.is_alive():  # a forked process has no such thread
                self._thread = threading.Thread(target=self._run, name="purger", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        all_due = time.monotonic()
        while True:
            self._awake.clear()
            try:
                if time.monotonic() >= all_due:
                    purged = purge()
                    all_due = time.monotonic() + self._seconds_between
                else:
                    purged = purge_threads()
            except Exception as error:  # catch every error, because nothing restarts this thread
                is_known = isinstance(error, Error)
                reason = reason_of(error) if is_known else type(error).__name__
                logger.warning("purge failed, to be tried again: %s", reason, exc_info=not is_known)
                self._awake.wait(SECONDS_AFTER_FAILURE)
                continue
            finally:
                connections.close_all()  # closes only this thread's connections: it may sleep for an hour
            if any(purged):
                logger.debug(
                    "purged %d threads, %d messages in them, %d places of deleted messages, %d idempotency keys",
                    *purged,
                )
            self._awake.wait(max(0, all_due - time.monotonic()))


wake_purger = Purger().wake
