"""Deletes threads that have been idle for a long time."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from messages_app.models import Message, Thread
from messages_app.store.backend import backend
from messages_app.store.deletion import half_of_the_time
from messages_app.store.paging import Window, in_window

# The number of threads that one batch checks and deletes. Other writers may have to wait for a batch.
THREADS_PER_CHECK = 100


class Idle(NamedTuple):
    """The numbers of idle threads and of the visible messages in them."""

    threads: int = 0
    messages: int = 0


def delete_idle(before: datetime, tenant: str | None, dry_run: bool, checked: Callable[[int], None]) -> Idle:
    """Delete the threads, of a tenant or of all tenants, that are older than a time and have no newer message.

    The memory use does not depend on the number of threads. The purge removes the rows later. After each batch, calls
    `checked` with the number of threads checked so far.
    """
    if not dry_run:
        backend().recover_idle()
    visible = Thread.objects.visible(tenant)
    old, found, total, last = visible.filter(created_at__lt=before), Idle(), 0, None
    while page := list(in_window(old.values_list(*old.order), Window(last, None, False, THREADS_PER_CHECK))):
        idle = backend().idle(visible.filter(id__in=[thread_id for _, thread_id in page]), before)
        if idle and dry_run:
            messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
            found = Idle(found.threads + len(idle), found.messages + messages)
        elif idle:
            with half_of_the_time():
                threads, messages = backend().mark_idle_deleted(visible, idle, before)
            found = Idle(found.threads + threads, found.messages + messages)
        total += len(page)
        checked(total)
        last = page[-1]
    return found
