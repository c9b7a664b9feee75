"""The messages of a thread: append, get, list, change, delete.

All verbs raise Thread.DoesNotExist if the tenant has no such thread.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from django.utils import timezone

from messages_app.ids import Origin
from messages_app.models import Message, MessageQuerySet
from messages_app.store import idempotency
from messages_app.store.backend import backend
from messages_app.store.compiled_query import CompiledQuery
from messages_app.store.errors import Kind, UnknownCursor
from messages_app.store.paging import FileList, Page, PageRequest, Window, in_window, page_of
from messages_app.store.threads import merge_metadata


def append(tenant: str, thread_id: str, *, origin: Origin | None = None, **content: Any) -> Message:
    """Store a message with these CONTENT_FIELDS at the end of a thread, and return it.

    The order of positions is the order of commits, and a later message has no earlier time.
    """
    return backend().append(tenant, thread_id, content, origin)


def get(tenant: str, thread_id: str, message_id: str) -> Message:
    """Return a message. One query, if the message is there and the engine can join. Raises Message.DoesNotExist."""
    rows = _message().rows(tenant=tenant, thread_id=thread_id, message_id=message_id)
    for message in backend().in_thread(tenant, thread_id, rows):
        return message
    raise Message.DoesNotExist


def page(tenant: str, thread_id: str, request: PageRequest, run_id: str | None = None) -> Page:
    """Return a page of a thread's messages, or of those of a run. Raises UnknownCursor."""
    try:
        return page_of(MessageList(tenant, thread_id, run_id), request)
    except UnknownCursor:
        backend().require_thread(tenant, thread_id)  # A missing thread is reported before bad cursors.
        raise


class MessageList(NamedTuple):
    """The listing of a thread's messages, or of those of a run. Deleted messages may be cursors."""

    tenant: str
    thread_id: str
    run_id: str | None = None
    kind: Kind = "message"

    def positions(self, ids: Iterable[str]) -> dict[str, int]:
        """Look in this thread only; `rows` checks that the thread is the tenant's."""
        # No stored text contains U+0000.
        known = [each for each in dict.fromkeys(ids) if "\0" not in each]
        named = {f"message_{number}": each for number, each in enumerate(known)}
        return dict(_positions(tuple(named)).rows(thread_id=self.thread_id, **named)) if named else {}

    def rows(self, window: Window) -> list[Message]:
        """One query, plus one if there are no rows or the engine cannot join."""
        filters = {"low": window.low, "high": window.high, "run_id": self.run_id}
        values = {name: value for name, value in filters.items() if value is not None}
        query = _page(tuple(values), window.descending, window.limit)
        rows = query.rows(tenant=self.tenant, thread_id=self.thread_id, **values)
        return backend().in_thread(self.tenant, self.thread_id, rows)


def files_page(tenant: str, thread_id: str, message_id: str, request: PageRequest) -> Page:
    """Return a page of a message's files. Raises Message.DoesNotExist and UnknownCursor."""
    return page_of(FileList(get(tenant, thread_id, message_id).files), request)


def change_metadata(tenant: str, thread_id: str, message_id: str, changes: Mapping[str, str | None]) -> Message:
    """Set these pairs, remove those that are None, and return the message. Safe under concurrent changes.

    Raises Message.DoesNotExist, and TooManyPairs, which changes nothing.
    """
    backend().require_thread(tenant, thread_id)
    changed: Message = merge_metadata(Message.objects.visible_in(thread_id).named(id=message_id), changes)
    return changed


def delete(tenant: str, thread_id: str, message_id: str) -> None:
    """Erase a message. Raises Message.DoesNotExist."""
    backend().require_thread(tenant, thread_id)
    erase(thread_id, message_id)


def erase(thread_id: str, message_id: str) -> None:
    """Hide a message of any tenant and empty it, in one write. Raises Message.DoesNotExist.

    The row keeps its ids, times and position. Clients may use its id as a cursor for a day, and for as long as the
    message is the last of its thread.
    """

    def write() -> None:
        message = Message.objects.visible_in(thread_id).named(id=message_id)
        if not message.update(deleted_at=timezone.now(), **Message.empty_content()):
            raise Message.DoesNotExist
        idempotency.forget_message(message_id)

    backend().attempt(write)


# Queries, compiled once


@cache
def _message() -> CompiledQuery:
    def build(message_id: str, **thread: str) -> MessageQuerySet:
        return backend().visible_messages(**thread).filter(id=message_id)

    return CompiledQuery(build, tenant=str, thread_id=str, message_id=str)


@cache
def _positions(names: tuple[str, ...]) -> CompiledQuery:
    """The query for the positions of one or two messages, deleted ones included: a page has at most two cursors."""

    def build(thread_id: str, **ids: str) -> Any:
        return Message.objects.filter(thread_id=thread_id, id__in=list(ids.values())).values_list("id", "position")

    return CompiledQuery(build, thread_id=str, **dict.fromkeys(names, str))


@cache  # 1,600 forms: 100 limits, with or without each of three filters, in two orders
def _page(filters: tuple[str, ...], descending: bool, limit: int | None) -> CompiledQuery:
    def build(tenant: str, thread_id: str, **values: Any) -> MessageQuerySet:
        rows = backend().visible_messages(tenant, thread_id)
        if "run_id" in values:
            rows = rows.filter(run_id=values["run_id"])
        low, high = ((values[name],) if name in values else None for name in ("low", "high"))
        return in_window(rows, Window(low, high, descending, limit))

    kinds = {"low": int, "high": int, "run_id": str}
    return CompiledQuery(build, tenant=str, thread_id=str, **{name: kinds[name] for name in filters})
