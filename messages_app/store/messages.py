"""The messages of a thread: append, get, list, change, delete.

Functions with a `tenant` raise Thread.DoesNotExist if the tenant has no such thread.
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

    Positions are in the order of commits. A message with a later position never has an earlier time.
    """
    return backend().append(tenant, thread_id, content, origin)


def get(tenant: str, thread_id: str, message_id: str) -> Message:
    """Return a message. Raises Message.DoesNotExist.

    Takes one query if the message exists and the engine has joins, otherwise two.
    """
    rows = _message().rows(tenant=tenant, thread_id=thread_id, message_id=message_id)
    for message in backend().in_thread(tenant, thread_id, rows):
        return message
    raise Message.DoesNotExist


def page(tenant: str, thread_id: str, request: PageRequest, run_id: str | None = None) -> Page:
    """Return a page of a thread's messages, or only of the messages of one run. Raises UnknownCursor."""
    try:
        return page_of(MessageList(tenant, thread_id, run_id), request)
    except UnknownCursor:
        backend().require_thread(tenant, thread_id)  # Report a missing thread before an unknown cursor.
        raise


class MessageList(NamedTuple):
    """The list of a thread's messages, or only of the messages of one run. Deleted messages are valid cursors."""

    tenant: str
    thread_id: str
    run_id: str | None = None
    kind: Kind = "message"

    def positions(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the positions of those ids that are in this thread. `rows` checks the thread's tenant."""
        # No stored text contains U+0000, so such an id is unknown. PostgreSQL would reject the query.
        known = [each for each in dict.fromkeys(ids) if "\0" not in each]
        named = {f"message_{number}": each for number, each in enumerate(known)}
        return dict(_positions(tuple(named)).rows(thread_id=self.thread_id, **named)) if named else {}

    def rows(self, window: Window) -> list[Message]:
        """Run one query, plus one if there are no rows or the engine has no joins."""
        filters = {"low": window.low, "high": window.high, "run_id": self.run_id}
        values = {name: value for name, value in filters.items() if value is not None}
        query = _page(tuple(values), window.descending, window.limit)
        rows = query.rows(tenant=self.tenant, thread_id=self.thread_id, **values)
        return backend().in_thread(self.tenant, self.thread_id, rows)


def files_page(tenant: str, thread_id: str, message_id: str, request: PageRequest) -> Page:
    """Return a page of a message's files. Raises Message.DoesNotExist and UnknownCursor."""
    return page_of(FileList(get(tenant, thread_id, message_id).files), request)


def change_metadata(tenant: str, thread_id: str, message_id: str, changes: Mapping[str, str | None]) -> Message:
    """Set these pairs, remove the keys whose value is None, and return the message. Safe under concurrent updates.

    Raises Message.DoesNotExist. Raises TooManyPairs and changes nothing if the message would have too many pairs.
    """
    backend().require_thread(tenant, thread_id)
    changed: Message = merge_metadata(Message.objects.visible_in(thread_id).named(id=message_id), changes)
    return changed


def delete(tenant: str, thread_id: str, message_id: str) -> None:
    """Erase a message. Raises Message.DoesNotExist."""
    backend().require_thread(tenant, thread_id)
    erase(thread_id, message_id)


def erase(thread_id: str, message_id: str) -> None:
    """Hide and empty a message of any tenant in one write. Raises Message.DoesNotExist.

    The row keeps its ids, times and position. Clients can use its id as a cursor for a day, and as long as the message
    is the last one in its thread.
    """

    def write() -> None:
        message = Message.objects.visible_in(thread_id).named(id=message_id)
        if not message.update(deleted_at=timezone.now(), **Message.empty_content()):
            raise Message.DoesNotExist
        idempotency.forget_message(message_id)

    backend().attempt(write)


# Compiled queries


@cache
def _message() -> CompiledQuery:
    def build(message_id: str, **thread: str) -> MessageQuerySet:
        return backend().visible_messages(**thread).filter(id=message_id)

    return CompiledQuery(build, tenant=str, thread_id=str, message_id=str)


@cache
def _positions(names: tuple[str, ...]) -> CompiledQuery:
    """Return the query for the positions of one or two messages, including deleted ones.

    A page has at most two cursors.
    """

    def build(thread_id: str, **ids: str) -> Any:
        return Message.objects.filter(thread_id=thread_id, id__in=list(ids.values())).values_list("id", "position")

    return CompiledQuery(build, thread_id=str, **dict.fromkeys(names, str))


@cache  # at most 1,600 queries: 100 limits, 8 combinations of the three filters, 2 orders
def _page(filters: tuple[str, ...], descending: bool, limit: int | None) -> CompiledQuery:
    def build(tenant: str, thread_id: str, **values: Any) -> MessageQuerySet:
        rows = backend().visible_messages(tenant, thread_id)
        if "run_id" in values:
            rows = rows.filter(run_id=values["run_id"])
        low, high = ((values[name],) if name in values else None for name in ("low", "high"))
        return in_window(rows, Window(low, high, descending, limit))

    kinds = {"low": int, "high": int, "run_id": str}
    return CompiledQuery(build, tenant=str, thread_id=str, **{name: kinds[name] for name in filters})
