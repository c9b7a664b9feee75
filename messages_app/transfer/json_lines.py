"""Export to JSON Lines. Each thread with its messages is one line, with the same bytes on every engine."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from tempfile import SpooledTemporaryFile
from typing import Any

import orjson

from messages_app.models import Thread
from messages_app.store.exports import COLUMNS, count_threads, read_messages, threads_oldest_first, visible_among
from messages_app.transfer.files import output_file
from messages_app.transfer.progress import ShowProgress
from messages_app.transfer.source import MESSAGE_OBJECT, THREAD_OBJECT

# The maximum number of messages in memory, and of threads whose messages one query reads. The second limit is needed
# because threads may have no messages.
MESSAGES_PER_READ = 1000
MAX_THREADS_AT_ONCE = 500

# The number of bytes of a long thread that are kept in memory while it is read, and the number of characters in each
# piece of its line.
BYTES_IN_MEMORY = 4_000_000
PIECE_CHARACTERS = 65_536

# The keys of a message: all columns that are read, except thread and position.
_KEYS = tuple("_id" if column == "object_id" else column for column in COLUMNS[2:])

_encode_in_python = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode  # fmt: skip


def _encode(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # orjson rejects lone surrogates and integers of more than 64 bits
        return _encode_in_python(value)


def export_to_file(name: str, tenant: str | None, show_progress: ShowProgress) -> int:
    """Export the threads of a tenant, or of all tenants, to a file (`-`: stdout). Return the number of threads.

    Raises OSError if the file cannot be written. An older file of that name then remains.
    """
    lines = 0
    with show_progress(count_threads(tenant), "threads") as progress, output_file(name) as output:
        for piece in export_lines(threads_oldest_first(tenant)):
            output.write(piece.encode())
            lines += piece.endswith("\n")
            progress.update(lines)
    return lines


def export_lines(threads: Iterable[Thread]) -> Iterator[str]:
    """Yield the lines of these threads in pieces. The last piece of each thread ends with a newline.

    Memory use does not grow with the number or the length of threads. A batch of several threads takes two queries. A
    thread with more than MESSAGES_PER_READ messages takes a query for every MESSAGES_PER_READ messages. Deleted threads
    and messages are left out. If a thread is deleted while it is read, the whole thread is left out.
    """
    rest = iter(threads)
    at_once = 1
    while batch := list(islice(rest, at_once)):
        done = 0
        while done < len(batch):
            some = batch[done : done + at_once]
            rows = read_messages([thread.id for thread in some], limit=MESSAGES_PER_READ + 1)
            if len(rows) <= MESSAGES_PER_READ:
                yield from _whole_lines(some, rows)
                done += len(some)
                if len(rows) < MESSAGES_PER_READ // 2:
                    at_once = min(2 * at_once, MAX_THREADS_AT_ONCE)
            elif len(some) > 1:
                at_once = len(some) // 2
            else:
                yield from _long_line(some[0], rows)
                done += 1


def _whole_lines(threads: Sequence[Thread], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    existing = visible_among([thread.id for thread in threads])
    messages = {thread_id: _joined(of_thread) for thread_id, of_thread in groupby(rows, itemgetter(0))}
    for thread in threads:
        if thread.id in existing:
            head, tail = _head_and_tail(thread)
            yield f"{head}{messages.get(thread.id, '')}{tail}"


def _long_line(thread: Thread, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """Yield the line in pieces after all messages are read, because the thread may be deleted during the read."""
    head, tail = _head_and_tail(thread)
    with SpooledTemporaryFile(BYTES_IN_MEMORY, mode="w+", encoding="utf-8", newline="") as line:
        separator = head
        while rows:
            line.write(separator + _joined(rows))
            separator = ","
            rows = read_messages([thread.id], limit=MESSAGES_PER_READ, after=rows[-1][1])
        line.write(tail)
        if thread.id in visible_among([thread.id]):
            line.seek(0)
            while piece := line.read(PIECE_CHARACTERS):
                yield piece


def _head_and_tail(thread: Thread) -> tuple[str, str]:
    """Return the parts of a thread's line before and after its messages."""
    head = {"_id": thread.object_id, "created_at": int(thread.created_at.timestamp()), "id": thread.id}
    tail = {"metadata": thread.metadata, "object": THREAD_OBJECT, "tenant": thread.tenant}
    return f'{_encode(head)[:-1]},"messages":[', f"],{_encode(tail)[1:]}\n"


def _joined(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return the JSON of messages, separated with commas."""
    return _encode(list(map(_message, rows)))[1:-1]


def _message(row: tuple[Any, ...]) -> dict[str, Any]:
    message = dict(zip(_KEYS, row[2:], strict=True))
    message["created_at"] = int(message["created_at"].timestamp())
    message["assistant_id"] = message["assistant_id"] or None
    message["run_id"] = message["run_id"] or None
    message["object"] = MESSAGE_OBJECT
    return message
