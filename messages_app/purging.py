"""Removing for good what was deleted: in short transactions, so that other writers wait no more than a moment.

A deleted thread is out of everybody's sight at once; here its messages go, and then itself. A deleted message is but
ids and a position; here it goes when its id need no longer be valid as a cursor. Each step can be repeated: what a
crash left, the next purge removes, and several processes may purge at once.
"""

import logging
import threading
import time
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import DatabaseError, connections
from django.db.models import F
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan
from django.utils import timezone

from messages_app.ids import EPOCH
from messages_app.models import REMOVED_AT_ONCE, Message, MessageQuerySet, Thread

logger = logging.getLogger(__name__)

# How long the id of a deleted message is valid as a cursor (threads-api contract, Lists).
CURSORS_LAST = timedelta(hours=24)

SECONDS_BETWEEN_PURGES = 3600
SECONDS_AFTER_FAILURE = 3


class Purged(NamedTuple):
    """What was removed: deleted threads, all messages that were in them, and places of deleted messages elsewhere."""

    threads: int
    messages: int
    places: int


def purge() -> Purged:
    """Removes all that may be removed now."""
    threads = messages = 0
    deleted = Thread.objects.filter(deleted_at__isnull=False).order_by("deleted_at")
    while thread := deleted.first():
        messages += remove(Message.objects.filter(thread=thread).order_by("position"))
        thread.delete()
        threads += 1
    return Purged(threads, messages, remove_places(timezone.now() - CURSORS_LAST))


def remove(messages: MessageQuerySet) -> int:
    """Removes messages, some at a time, and leaves as much time to others as it takes itself."""
    total = 0
    while True:
        start = time.monotonic()
        removed = messages.remove_some()
        if not removed:
            return total
        total += removed
        time.sleep(time.monotonic() - start)


def remove_places(before: datetime) -> int:
    """Removes what is left of messages that were deleted before then, but for the last message of each thread.

    The next message's position is that of the last one and one more: without its row, positions would be given again.
    """
    total, seen = 0, (EPOCH, "")
    expired = Message.objects.filter(deleted_at__lt=before).order_by("deleted_at", "id")
    while True:
        beyond = TupleGreaterThan(Tuple(F("deleted_at"), F("id")), seen)
        places = list(expired.filter(beyond).only("id", "thread_id", "position", "deleted_at")[:REMOVED_AT_ONCE])
        if not places:
            return total
        last = {thread_id: Message.objects.last_position(thread_id) for thread_id in {m.thread_id for m in places}}
        removable = [message.id for message in places if message.position != last[message.thread_id]]
        total += remove(Message.objects.filter(id__in=removable))
        seen = (places[-1].deleted_at or before, places[-1].id)


class Purger:
    """Purges in a thread of its own: when it is woken, and each hour from then on. One to a process."""

    def __init__(self) -> None:
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
        seconds: float = 0
        while True:
            self._awake.wait(seconds)
            self._awake.clear()
            seconds = SECONDS_BETWEEN_PURGES
            try:
                purged = purge()
            except DatabaseError as error:
                logger.warning("purge failed, to be tried again in %d s: %s", SECONDS_AFTER_FAILURE, error)
                seconds = SECONDS_AFTER_FAILURE
            else:
                if any(purged):
                    logger.debug("purged %d threads, %d messages in them, %d places of deleted messages", *purged)
            finally:
                connections.close_all()  # this thread's own; it may sleep for long


wake_purger = Purger().wake
