"""The line of a thread, written: JSON with sorted keys, the same bytes for the same thread on every engine."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from tempfile import SpooledTemporaryFile
from typing import Any

import orjson

from messages_app.models import Message, Thread
from messages_app.store.bulk import rows_of

# How many messages are in memory at a time, and how many threads: each of those may turn out to have no message.
MESSAGES_AT_ONCE = 1000
THREADS_AT_ONCE = 500

# Bytes of a long thread that are held in memory until all of it is read, and characters that are written at a time.
HELD_IN_MEMORY = 4_000_000
PIECE = 65_536

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

_exactly = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _encode(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # what orjson refuses is for Python to judge
        return _exactly(value)


def visible_threads(tenant: str | None = None) -> Iterator[Thread]:
    """All threads, or all of a tenant, oldest first: in the order of (created_at, id), in pages by an index."""
    threads = Thread.objects.visible(tenant)
    last = None
    while page := threads.between(last, None, descending=False, limit=THREADS_AT_ONCE):
        yield from page
        last = page[-1].created_at, page[-1].id


def exported(threads: Iterable[Thread]) -> Iterator[str]:
    """The lines of these threads, in pieces, of which the last of each thread ends with a newline.

    Memory stays the same however many threads there are and however long they are. Two queries for several threads; for
    a thread of more than MESSAGES_AT_ONCE messages one for each so many of them. What is deleted is left out, also
    while it is read: a line is of a whole thread.
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
    return rows_of(visible.order_by("thread_id", "position")[:limit], _COLUMNS)


def _still_there(threads: Iterable[Thread]) -> set[str]:
    """The ids of those that were not deleted while their messages were read: purge may have removed some before."""
    ids = [thread.id for thread in threads]
    return set(Thread.objects.filter(id__in=ids, deleted_at=None).values_list("id", flat=True))


def _whole(threads: Sequence[Thread], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    there = _still_there(threads)
    messages = {thread_id: _joined(of_one) for thread_id, of_one in groupby(rows, itemgetter(0))}
    for thread in threads:
        if thread.id not in there:
            continue
        head, tail = _around(thread)
        yield f"{head}{messages.get(thread.id, '')}{tail}"


def _in_pieces(thread: Thread, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """Held back, in a file where it is long, until all of it was read."""
    head, tail = _around(thread)
    with SpooledTemporaryFile(HELD_IN_MEMORY, mode="w+", encoding="utf-8", newline="") as held:
        comma = head
        while rows:
            held.write(comma + _joined(rows))
            comma = ","
            rows = _messages([thread.id], limit=MESSAGES_AT_ONCE, after=rows[-1][1])
        held.write(tail)
        if thread.id in _still_there([thread]):
            held.seek(0)
            while piece := held.read(PIECE):
                yield piece


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
