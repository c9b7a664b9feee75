"""Threads: create, get, list, change, delete.

`tenant` is the owner. All functions treat a thread of another tenant as missing. Operators see all tenants, so `delete`
also accepts None for any tenant.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet

from messages_app.ids import Origin, identity
from messages_app.models import MAX_METADATA_PAIRS, Message, Thread
from messages_app.store import deletion
from messages_app.store.backend import backend
from messages_app.store.errors import Kind, TooManyPairs
from messages_app.store.paging import Page, PageRequest, Position, Window, in_window, page_of


def create(
    tenant: str,
    *,
    metadata: dict[str, str],
    messages: Sequence[Mapping[str, Any]] = (),
    origin: Origin | None = None,
) -> Thread:
    """Store a thread and its messages, all or nothing, and return the thread.

    Each message is a mapping with its CONTENT_FIELDS.
    """
    at, random = (origin.at, origin.random()) if origin else (None, None)
    thread = Thread.from_values(**identity("thread", at, random), tenant=tenant, metadata=metadata)
    rows = [
        Message.from_values(**identity("msg", at, random), thread_id=thread.id, position=position, **content)
        for position, content in enumerate(messages, start=1)
    ]
    return backend().store_once(thread, rows)


def get(tenant: str, thread_id: str) -> Thread:
    """Return a thread. One query. Raises Thread.DoesNotExist."""
    return backend().thread(tenant, thread_id)


def page(tenant: str, request: PageRequest, metadata: Mapping[str, str] | None = None) -> Page:
    """Return a page of a tenant's threads, or only of those whose metadata has all of these pairs.

    The page is ordered by (created_at, id). Raises UnknownCursor.
    """
    return page_of(ThreadList(tenant, metadata or {}), request)


class ThreadList(NamedTuple):
    """The list of a tenant's threads whose metadata has these pairs. Any thread of the tenant is a valid cursor."""

    tenant: str
    pairs: Mapping[str, str]
    kind: Kind = "thread"

    def positions(self, ids: Iterable[str]) -> dict[str, Position]:
        known = Thread.objects.visible(self.tenant).filter(id__in=[each for each in ids if "\0" not in each])
        return {thread_id: position for thread_id, *position in known.values_list("id", *known.order)}

    def rows(self, window: Window) -> list[Thread]:
        if len(self.pairs) > MAX_METADATA_PAIRS:
            return []
        if self.pairs:
            return backend().threads_with(self.tenant, self.pairs, window)
        return list(in_window(Thread.objects.visible(self.tenant), window))


def change_metadata(tenant: str, thread_id: str, changes: Mapping[str, str | None]) -> Thread:
    """Set these pairs, remove the keys whose value is None, and return the thread. Safe under concurrent updates.

    Raises Thread.DoesNotExist. Raises TooManyPairs and changes nothing if the thread would have too many pairs.
    """
    threads = Thread.objects.visible(tenant).named(id=thread_id)
    changed: Thread = merge_metadata(threads, changes)
    return changed


def merge_metadata(row: QuerySet[Any], changes: Mapping[str, str | None]) -> Any:
    """Change the metadata of the one row that the query finds, and return the row."""
    if not changes:
        return row.get()

    def write() -> Any:
        found = backend().lock(row).get()
        merged = {key: value for key, value in {**found.metadata, **changes}.items() if value is not None}
        if len(merged) > MAX_METADATA_PAIRS:
            raise TooManyPairs
        if merged != found.metadata:
            backend().replace_metadata(found, merged)
        return found

    return backend().attempt(write)


def delete(tenant: str | None, thread_id: str) -> None:
    """Hide a thread and its messages, and start their removal in the background.

    Raises Thread.DoesNotExist.
    """
    if not backend().mark_deleted(Thread.objects.visible(tenant).named(id=thread_id), [thread_id]):
        raise Thread.DoesNotExist
    transaction.on_commit(deletion.wake_purger, using=backend().database)
