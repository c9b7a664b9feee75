"""Removing for good what was deleted: in short transactions, so that other writers wait no more than a moment.

A deleted thread is out of everybody's sight at once; here its messages go, and then itself. A deleted message is but
ids and a position; here it goes when its id need no longer be valid as a cursor. Each step can be repeated: what a
crash left, the next purge removes, and several processes may purge at once.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import Error, connections, transaction
from django.db.models import Exists, F, OuterRef
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan
from django.utils import timezone

from messages_app.ids import EPOCH
from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.models.idempotency import KEYS_LAST, IdempotencyRecord, IdempotencyRecordQuerySet
from messages_app.models.thread import NOBODY, REMOVED_AT_ONCE, UNDECIDED
from messages_app.store.engine import can_roll_back, stores_documents

logger = logging.getLogger(__name__)

# How long the id of a deleted message is valid as a cursor (threads-api contract, Lists).
CURSORS_LAST = timedelta(hours=24)

# Where nothing is rolled back and no foreign key holds, a writer that saw a thread just before it was deleted may store
# a message after all were removed, and die before it takes that back. The thread's id stays this long to find it by,
# as deleted at the time when it may go.
WRITERS_LAST = timedelta(hours=1)

SECONDS_BETWEEN_PURGES = 3600
SECONDS_AFTER_FAILURE = 3


class Purged(NamedTuple):
    """What was removed: deleted threads, all messages that were in them, places of deleted messages elsewhere, and
    what idempotency keys kept of all these, and of yesterday."""

    threads: int = 0
    messages: int = 0
    places: int = 0
    keys: int = 0


def purge() -> Purged:
    """Removes all that may be removed now."""
    show_undecided()
    now = timezone.now()
    purged = purge_threads()
    places = remove_places(now - CURSORS_LAST)
    keys = remove_keys(IdempotencyRecord.objects.filter(created_at__lt=now - KEYS_LAST))
    return purged._replace(places=places, keys=purged.keys + keys)


def show_undecided() -> None:
    """Shows the threads that a process left hidden, which died while it looked whether they may be deleted.

    One that is still at it deletes none of those: it looks for what it has hidden itself.
    """
    if not can_roll_back(Thread.objects.db):
        Thread.objects.filter(deleted_at__gte=UNDECIDED).update(deleted_at=None)


def purge_threads(removed: Callable[[int], None] = lambda threads: None) -> Purged:
    """Removes deleted threads and what is in them. Where nothing is rolled back, their bare ids stay for a while.

    `removed` is told after each how many are gone.
    """
    threads = messages = keys = 0
    deleted = Thread.objects.filter(deleted_at__lte=timezone.now()).order_by("deleted_at")
    while thread := deleted.first():
        # The id may be given again meanwhile, by an import of what was deleted.
        still = deleted.filter(id=thread.id, deleted_at=thread.deleted_at)
        messages += remove(Message.objects.filter(thread=thread).order_by("position"), of=still)
        keys += remove_keys(IdempotencyRecord.objects.filter(thread_id=thread.id, created_at__lte=thread.deleted_at))
        with half_of_the_time(), transaction.atomic(using=deleted.db):
            if still.locked().only("id").first() is None:
                pass
            elif can_roll_back(deleted.db):
                threads += thread.delete()[1].get(Thread._meta.label, 0)
            elif thread.tenant == NOBODY:
                still._raw_delete(still.db)  # by one write, as it is
            else:
                threads += deleted.filter(id=thread.id, tenant=thread.tenant).update(
                    tenant=NOBODY, deleted_at=timezone.now() + WRITERS_LAST
                )
        removed(threads)
    return Purged(threads, messages, keys=keys)


def remove(messages: MessageQuerySet, of: ThreadQuerySet) -> int:
    """Removes messages, some at a time, as long as there is such a thread."""
    total = 0
    while True:
        with half_of_the_time(), transaction.atomic(using=of.db):
            removed = messages.remove_some() if of.locked().only("id").first() else None
        total += removed or 0
        # Where rows are not locked, another purge may have removed some of these, and there may be more.
        if removed is None or (removed < REMOVED_AT_ONCE and can_roll_back(of.db)):
            return total


@contextmanager
def half_of_the_time() -> Iterator[None]:
    """Leaves as much time to other writers as the work in it took."""
    start = time.monotonic()
    yield
    time.sleep(time.monotonic() - start)


def remove_places(before: datetime) -> int:
    """Removes what is left of messages that were deleted before then, but for the last message of each thread.

    The next message's position is that of the last one and one more: without its row, positions would be given again.
    """
    expired = Message.objects.filter(deleted_at__lt=before).order_by("deleted_at", "id")
    has_subqueries = not stores_documents(connections[expired.db])
    if has_subqueries:
        later = Message.objects.filter(thread=OuterRef("thread"), position__gt=OuterRef("position"))
        expired = expired.filter(Exists(later))
    total = 0
    seen: tuple[datetime | None, str] = (EPOCH, "")
    while True:
        beyond = TupleGreaterThan(Tuple(F("deleted_at"), F("id")), seen)  # not again past those that stay
        places = list(expired.filter(beyond).only("deleted_at", "id", "thread_id", "position")[:REMOVED_AT_ONCE])
        if not places:
            return total
        with half_of_the_time():
            ids = [
                place.id
                for place in places
                if has_subqueries or place.position != Message.objects.last_position(place.thread_id)
            ]
            total += Message.objects.filter(id__in=ids).remove_some() or 0 if ids else 0
        seen = places[-1].deleted_at, places[-1].id


def remove_keys(records: IdempotencyRecordQuerySet) -> int:
    """Removes records of idempotency keys, some at a time."""
    total = 0
    while digests := list(records.values_list("digest", flat=True)[:REMOVED_AT_ONCE]):
        with half_of_the_time(), transaction.atomic(using=records.db):
            total += records.filter(digest__in=digests).delete()[0]
    return total


class Purger:
    """Purges in a thread of its own, one to a process: deleted threads when it is woken, all at its start and then in
    regular intervals."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_PURGES) -> None:
        self._seconds_between = seconds_between
        self._awake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        self._awake.set()
        with self._starting:
            if self._thread is None or not self._thread.is_alive():  # nor is it in a process that was forked since
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
            except Exception as error:  # whatever it is: nobody else would start this thread again
                is_known = isinstance(error, Error)
                reason = str(error).partition("\n")[0] if is_known else type(error).__name__
                logger.warning("purge failed, to be tried again: %s", reason, exc_info=not is_known)
                self._awake.wait(SECONDS_AFTER_FAILURE)
                continue
            finally:
                connections.close_all()  # this thread's own; it may sleep for long
            if any(purged):
                logger.debug(
                    "purged %d threads, %d messages in them, %d places of deleted messages, %d idempotency keys",
                    *purged,
                )
            self._awake.wait(max(0, all_due - time.monotonic()))


wake_purger = Purger().wake
