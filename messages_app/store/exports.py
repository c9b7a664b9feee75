"""The queries of an export: threads, oldest first, and the columns of their messages."""

from collections.abc import Iterator, Sequence
from typing import Any

from messages_app.models import Message, Thread
from messages_app.store import bulk
from messages_app.store.paging import Window, in_window

THREADS_PER_READ = 500

# The columns of a message that an export reads.
COLUMNS = ("thread_id", "position", "id", "object_id", "created_at", *Message.CONTENT_FIELDS)


def count_threads(tenant: str | None) -> int:
    """Return the number of threads of a tenant, or of all tenants. One query, which uses an index."""
    return Thread.objects.visible(tenant).count()


def threads_oldest_first(tenant: str | None = None) -> Iterator[Thread]:
    """Yield the threads of a tenant, or of all tenants, ordered by (created_at, id).

    One query for every THREADS_PER_READ threads.
    """
    threads, last = Thread.objects.visible(tenant), None
    while rows := list(in_window(threads, Window(last, None, False, THREADS_PER_READ))):
        yield from rows
        last = rows[-1].created_at, rows[-1].id


def read_messages(thread_ids: Sequence[str], *, limit: int, after: int = 0) -> list[tuple[Any, ...]]:
    """Return COLUMNS of up to `limit` messages of these threads after a position. One query.

    The rows are sorted by thread and position.
    """
    visible = Message.objects.filter(thread__in=thread_ids, deleted_at=None)
    if after:
        visible = visible.filter(position__gt=after)
    return bulk.select(visible.order_by("thread_id", "position")[:limit], COLUMNS)


def visible_among(thread_ids: Sequence[str]) -> set[str]:
    """Return the ids of those threads that are not deleted.

    Messages of the other threads may be missing, because the purge may have removed them.
    """
    return set(Thread.objects.visible(None).filter(id__in=thread_ids).values_list("id", flat=True))
