"""The line of a thread, written: JSON with sorted keys, the same bytes for the same thread on every engine."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from messages_app.models import Message, Thread

# How many messages are in memory at a time, and how many threads: each of those may turn out to have no message.
MESSAGES_AT_ONCE = 1000
THREADS_AT_ONCE = 500

_COLUMNS = (
    "thread_id",
    "position",
    "id",
    "object_id",
    "created_at",
    "role",
    "content",
    "attachments",
    "assistant_id",
    "run_id",
    "metadata",
)

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def visible_threads(tenant: str | None = None) -> Iterator[Thread]:
    """All threads, or all of a tenant, oldest first: in the order of (created_at, id), in pages by an index."""
    threads = Thread.objects.filter(deleted_at=None) if tenant is None else Thread.objects.of_tenant(tenant)
    last = None
    while page := threads.between(last, None, descending=False, limit=THREADS_AT_ONCE):
        yield from page
        last = page[-1].created_at, page[-1].id


def exported(threads: Iterable[Thread]) -> Iterator[str]:
    """The lines of these threads, in pieces, of which the last of each thread ends with a newline.

    Memory stays the same however many threads there are and however long they are. One query for several threads; for
    a thread of more than MESSAGES_AT_ONCE messages one for each so many of them. What is deleted is left out.
    """
    rest = iter(threads)
    at_once = 1
    while batch := list(islice(rest, at_once)):
        done = 0
        while done < len(batch):
            some = batch[done : done + at_once]
            rows = _messages([thread.id for thread in some], limit=MESSAGES_AT_ONCE + 1)
            if len(rows) <= MESSAGES_AT_ONCE:
                yield from _whole(some, rows)
                done += len(some)
                if len(rows) < MESSAGES_AT_ONCE // 2:
                    at_once = min(2 * at_once, THREADS_AT_ONCE)
            elif len(some) > 1:
                at_once = len(some) // 2
            else:
                yield from _in_pieces(some[0], rows)
                done += 1


def _messages(thread_ids: Sequence[str], *, limit: int, after: int = 0) -> list[tuple[Any, ...]]:
    """The first messages of these threads behind a position."""
    visible = Message.objects.filter(thread__in=thread_ids, deleted_at=None)
    if after:
        visible = visible.filter(position__gt=after)
    return list(visible.order_by("thread_id", "position").values_list(*_COLUMNS)[:limit])


def _whole(threads: Iterable[Thread], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    messages = {thread_id: _joined(of_one) for thread_id, of_one in groupby(rows, itemgetter(0))}
    for thread in threads:
        head, tail = _around(thread)
        yield f"{head}{messages.get(thread.id, '')}{tail}"


def _in_pieces(thread: Thread, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    head, tail = _around(thread)
    yield head
    comma = ""
    while rows:
        yield comma + _joined(rows)
        comma = ","
        rows = _messages([thread.id], limit=MESSAGES_AT_ONCE, after=rows[-1][1])
    yield tail


def _around(thread: Thread) -> tuple[str, str]:
    """What stands before and after the messages."""
    head = {"_id": thread.object_id, "created_at": int(thread.created_at.timestamp()), "id": thread.id}
    tail = {"metadata": thread.metadata, "object": "thread", "tenant": thread.tenant}
    return f'{_encode(head)[:-1]},"messages":[', f"],{_encode(tail)[1:]}\n"


def _joined(rows: Iterable[tuple[Any, ...]]) -> str:
    """Messages with commas between them."""
    return _encode(list(map(_message, rows)))[1:-1]


def _message(row: tuple[Any, ...]) -> dict[str, Any]:
    _, _, public_id, object_id, created_at, role, content, attachments, assistant_id, run_id, metadata = row
    return {
        "_id": object_id,
        "assistant_id": assistant_id or None,
        "attachments": attachments,
        "content": content,
        "created_at": int(created_at.timestamp()),
        "id": public_id,
        "metadata": metadata,
        "object": "thread.message",
        "role": role,
        "run_id": run_id or None,
    }
