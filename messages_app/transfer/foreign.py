"""What was saved elsewhere: threads and messages one by one, in files of their own, in lists, in any order.

OpenAI's API gives lists of objects, Assistants v1 and v2 alike; `mongoexport` gives the documents of Rubra's
collections, whose values may be MongoDB's Extended JSON (https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/,
version 2). They are kept in a temporary SQLite file until all is read, and come out of it as whole threads.
"""

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from messages_app.transfer.validation import Draft, LeftOut, Located, Place, Wrong, thread_id_of

THREAD, MESSAGE, LIST = "thread", "thread.message", "list"

_INTEGER = re.compile("-?[0-9]{1,19}")


def plain(value: Any) -> Any:
    """The value without Extended JSON: ids as text, numbers as numbers, dates as Unix seconds.

    What only looks like it stays as it is, for the fields to judge."""
    match value:
        case list():
            return [plain(item) for item in value]
        case {"$oid": str(digits)} if len(value) == 1:
            return digits
        case {"$numberInt": str(digits)} | {"$numberLong": str(digits)} if len(value) == 1 and _INTEGER.fullmatch(
            digits
        ):
            return int(digits)
        case {"$date": {"$numberLong": str(digits)}} if len(value) == 1 and _INTEGER.fullmatch(digits):
            return int(digits) // 1000
        case {"$date": str(text)} if len(value) == 1:
            with suppress(ValueError):
                at = datetime.fromisoformat(text)
                return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 1)
            return value
        case dict():
            return {key: plain(item) for key, item in value.items()}
    return value


def kind_of(value: Any) -> str | None:
    """What an object says that it is."""
    kind = value.get("object") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


class Item(NamedTuple):
    located: Located
    is_listed: bool  # in a list as the API gives it, newest first unless it was asked otherwise


def items_of(located: Located) -> Iterator[Item]:
    """The object itself, or what is in the list that it is."""
    place, value = located
    if kind_of(value) == LIST and isinstance(value.get("data"), list):
        for i, item in enumerate(value["data"]):
            yield Item(Located(place.at("data", i), item), True)
    else:
        yield Item(located, False)


class Spool:
    """Threads and messages until all are read, in a temporary file that goes with it; memory stays the same."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="threadsvc-import-")
        self._database = sqlite3.connect(Path(self._directory.name) / "spool.db", isolation_level=None)
        self._files: list[str] = []
        self.items = self.messages = 0
        self._database.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA temp_store = FILE;
            BEGIN;
            CREATE TABLE item (
                number INTEGER PRIMARY KEY, thread TEXT, id TEXT, is_message INTEGER, at INTEGER,
                file INTEGER, line INTEGER, steps TEXT, is_listed INTEGER, body TEXT
            );
            """
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._directory.cleanup()

    def add(self, item: Item) -> None:
        """Keeps a thread or a message. Raises Wrong where nobody can tell which thread it belongs to."""
        place, value = item.located
        is_message = kind_of(value) == MESSAGE
        thread_id = thread_id_of(item.located)
        at, public_id = value.get("created_at"), value.get("id")
        row = (
            thread_id,
            public_id if isinstance(public_id, str) and public_id.isprintable() else None,
            is_message,
            at if isinstance(at, int) and abs(at) < 2**63 else None,
            self._number_of(place.file),
            place.line,
            json.dumps(place.steps),
            item.is_listed,
            json.dumps(value, sort_keys=True),
        )
        self._database.execute("INSERT INTO item VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.items += 1
        self.messages += is_message

    def _number_of(self, file: str) -> int:
        if file not in self._files:
            self._files.append(file)
        return self._files.index(file)

    def drafts(self, left_out: LeftOut) -> Iterator[Draft | Wrong]:
        """The threads in the order in which they or their messages were first met; Wrong for one of which something was
        given twice and not alike. What was given twice is counted in `left_out`."""
        self._database.execute("CREATE INDEX of_thread ON item (thread, is_message, number)")
        newest_first = {file: self._is_newest_first(file) for file in range(len(self._files))}
        first_met = "SELECT thread FROM item GROUP BY thread ORDER BY min(number)"
        for (thread_id,) in self._database.execute(first_met):
            try:
                yield self._draft(thread_id, newest_first, left_out)
            except Wrong as wrong:
                yield wrong

    def _draft(self, thread_id: str, newest_first: dict[int, bool | None], left_out: LeftOut) -> Draft:
        rows = self._database.execute(
            "SELECT is_message, id, at, file, line, steps, is_listed, body FROM item "
            "WHERE thread = ? ORDER BY is_message, number",
            [thread_id],
        ).fetchall()
        threads = self._once([row[1:] for row in rows if not row[0]], left_out)
        messages = self._once([row[1:] for row in rows if row[0]], left_out)
        size = sum(len(row[-1]) for row in rows)
        if messages:
            times = [row[1] for row in messages]
            descends = descending(times)
            if descends is None:
                descends = newest_first[messages[0][2]]
            if descends is None:
                descends = bool(messages[0][5])
            if descends:
                messages.reverse()
            messages.sort(key=lambda row: row[1] if row[1] is not None else -1)  # keeps the order of equal ones
        values = [json.loads(row[-1]) for row in messages]

        def place_of(i: int) -> Place:
            return self._place(messages[i])

        if threads:
            return Draft(self._located(threads[0]), values, place_of, size)
        made = {"id": thread_id, "object": THREAD, "created_at": messages[0][1], "metadata": {}}
        return Draft(Located(place_of(0), made), values, place_of, size, has_own_object=False)

    def _is_newest_first(self, file: int) -> bool | None:
        """How the messages of a thread are ordered in a file, as most neighbours tell; None where none tells."""
        (balance,) = self._database.execute(
            """
            SELECT sum((at < before) - (at > before)) FROM (
                SELECT at, lag(at) OVER (PARTITION BY thread ORDER BY number) AS before
                FROM item WHERE is_message AND file = ?
            )
            """,
            [file],
        ).fetchone()
        return balance > 0 if balance else None

    def _once(self, rows: list[Any], left_out: LeftOut) -> list[Any]:
        """The rows without those that repeat another in all. Raises Wrong where one has its id and is not the same."""
        by_id: dict[str, Any] = {}
        kept, faults = [], []
        for row in rows:
            public_id = row[0]
            before = by_id.get(public_id) if public_id is not None else None
            if before is None:
                by_id[public_id] = row
                kept.append(row)
            elif before[-1] == row[-1]:
                left_out.add("repeated object", self._place(row))
            else:
                other = self._place(before)
                faults.append((self._place(row).at("id"), f"{other} has the same id and other values"))
        if faults:
            raise Wrong(faults)
        return kept

    def _located(self, row: Any) -> Located:
        return Located(self._place(row), json.loads(row[-1]))

    def _place(self, row: Any) -> Place:
        _, _, file, line, steps, _, _ = row
        return Place(self._files[file], line, tuple(json.loads(steps)))


def descending(times: list[int | None]) -> bool | None:
    """Whether times go down more often than up from one to the next; None where neither."""
    balance = sum((a > b) - (a < b) for a, b in pairwise(times) if a is not None and b is not None)
    return balance > 0 if balance else None
