"""Deleting threads in which nothing has happened for long."""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from random import SystemRandom
from typing import NamedTuple

from django.db import connections, transaction
from django.db.models import OuterRef, Subquery

from messages_app.models import Message, Thread, ThreadQuerySet
from messages_app.models.thread import UNDECIDED
from messages_app.store.deletion import half_of_the_time, show_undecided
from messages_app.store.engine import can_roll_back, stores_documents

# How many threads are looked at, and deleted, at once: for the latter, other writers may have to wait.
THREADS_AT_ONCE = 100


class Idle(NamedTuple):
    """How many threads, with how many messages that are there."""

    threads: int = 0
    messages: int = 0


def delete_idle(before: datetime, tenant: str | None, dry_run: bool, looked_at: Callable[[int], None]) -> Idle:
    """Deletes the threads, of one tenant or of all, that were made before then and whose last message is older.

    Any number of them, in constant memory; purge then removes them. `looked_at` is told after each page how many
    threads were looked at.
    """
    if not dry_run:
        show_undecided()
    visible = Thread.objects.visible(tenant)
    old, found, looked, place = visible.filter(created_at__lt=before), Idle(), 0, None
    while page := list(old.window(place, None, descending=False).values_list(*old.place)[:THREADS_AT_ONCE]):
        idle = idle_of(visible.filter(id__in=[thread_id for _, thread_id in page]), before)
        if idle and dry_run:
            messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
            found = Idle(found.threads + len(idle), found.messages + messages)
        elif idle:
            with half_of_the_time():
                threads, messages = mark_idle_deleted(visible, idle, before)
            found = Idle(found.threads + threads, found.messages + messages)
        looked += len(page)
        looked_at(looked)
        place = page[-1]
    return found


def idle_of(threads: ThreadQuerySet, before: datetime) -> list[str]:
    """The ids of those whose last message that is there, if any is, is older than that.

    One query; where the engine has no subqueries, one each besides.
    """
    said = Message.objects.filter(deleted_at=None).order_by("-position").values_list("created_at", flat=True)
    rows: Iterable[tuple[str, datetime | None]]
    if stores_documents(connections[threads.db]):
        rows = [(thread, said.filter(thread=thread).first()) for thread in threads.values_list("id", flat=True)]
    else:
        last = said.filter(thread=OuterRef("id"))[:1]
        rows = threads.order_by().annotate(last=Subquery(last)).values_list("id", "last")
    return [thread for thread, last_said in rows if last_said is None or last_said < before]


def mark_idle_deleted(threads: ThreadQuerySet, thread_ids: Collection[str], before: datetime) -> tuple[int, int]:
    """Deletes those of these threads that are idle, as `mark_deleted` does; returns the numbers of threads and of
    the messages in them. None is deleted in which somebody's message was stored meanwhile."""
    if not can_roll_back(threads.db):
        return _mark_idle_deleted_hidden(threads, thread_ids, before)
    with transaction.atomic(using=threads.db):
        locked = threads.filter(id__in=thread_ids).order_by(*threads.place).locked()
        there = list(locked.values_list("id", flat=True))
        # Not in the statement that locks: it does not see what was committed while it waited.
        idle = idle_of(threads.filter(id__in=there), before)
        messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
        return threads.filter(id__in=idle).mark_all_deleted(idle), messages


def _mark_idle_deleted_hidden(
    threads: ThreadQuerySet, thread_ids: Collection[str], before: datetime
) -> tuple[int, int]:
    """`mark_idle_deleted` where rows are not locked: the threads are hidden, looked at again, deleted or shown.

    Who stores a message looks at its thread afterwards: either that is after the thread was hidden, and the message
    is refused, or before, and it is found here.
    """
    mark = UNDECIDED + timedelta(milliseconds=SystemRandom().randrange(10**10))  # of this call alone
    hidden = Thread.objects.filter(id__in=thread_ids, deleted_at=mark)
    try:
        threads.filter(id__in=thread_ids).update(deleted_at=mark)
        idle = idle_of(hidden, before)
        messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
        return hidden.filter(id__in=idle).mark_all_deleted(idle), messages
    finally:
        hidden.update(deleted_at=None)
