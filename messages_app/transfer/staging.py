"""The staging database: holds separate threads and messages, in any order, until all files are read.

It is a temporary SQLite file, so memory use does not grow with the input.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

from messages_app.transfer.source import (
    MESSAGE_OBJECT,
    THREAD_OBJECT,
    InvalidInput,
    SkippedValues,
    SourceLocation,
    SourceValue,
    UnvalidatedThread,
)
from messages_app.transfer.validation import thread_id_of


class StagedObject(NamedTuple):
    """A row of the staging database. `file` is an index into its list of file names. `path` and `body` are JSON."""

    id: str | None
    created_at: int | None
    file: int
    line: int
    path: str
    is_listed: int
    body: str


_COLUMNS_OF_OBJECT = ", ".join(StagedObject._fields)


class StagingDatabase:
    """Collects threads and messages, and then groups them. Its file is removed at the end of the `with` block."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="threadsvc-import-")
        self._database = sqlite3.connect(Path(self._directory.name) / "staging.db", isolation_level=None)
        self._files: list[str] = []
        self.objects = self.messages = 0
        self._database.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA temp_store = FILE;
            BEGIN;
            CREATE TABLE staged (
                number INTEGER PRIMARY KEY, thread TEXT, is_message INTEGER, id TEXT, created_at INTEGER,
                file INTEGER, line INTEGER, path TEXT, is_listed INTEGER, body TEXT
            );
            """
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._directory.cleanup()

    def add(self, source: SourceValue, is_listed: bool) -> None:
        """Add a thread or a message. Raises InvalidInput if it has no valid thread id.

        `is_listed` is True if it is from a list of the API. Such a list is newest first, unless the client requested
        another order.
        """
        location, value = source
        is_message = value["object"] == MESSAGE_OBJECT
        thread_id = thread_id_of(source)
        created_at, public_id = value.get("created_at"), value.get("id")
        row = (
            thread_id,
            is_message,
            public_id if isinstance(public_id, str) and public_id.isprintable() else None,
            created_at if isinstance(created_at, int) and abs(created_at) < 2**63 else None,
            self._index_of(location.file),
            location.line,
            json.dumps(location.path),
            is_listed,
            json.dumps(value, sort_keys=True),
        )
        self._database.execute("INSERT INTO staged VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.objects += 1
        self.messages += is_message

    def _index_of(self, file: str) -> int:
        if file not in self._files:
            self._files.append(file)
        return self._files.index(file)

    def threads(self, skipped: SkippedValues) -> Iterator[UnvalidatedThread | InvalidInput]:
        """Yield the threads in the order in which the thread, or one of its messages, was first added.

        Counts repeated objects in `skipped`. Yields InvalidInput for a thread in which two different objects have the
        same id.
        """
        self._database.execute("CREATE INDEX of_thread ON staged (thread, is_message, number)")
        newest_first = {file: self._is_newest_first(file) for file in range(len(self._files))}
        thread_ids = "SELECT thread FROM staged GROUP BY thread ORDER BY min(number)"
        for (thread_id,) in self._database.execute(thread_ids):
            try:
                yield self._thread(thread_id, newest_first, skipped)
            except InvalidInput as invalid:
                yield invalid

    def _thread(
        self, thread_id: str, newest_first: dict[int, bool | None], skipped: SkippedValues
    ) -> UnvalidatedThread:
        query = f"SELECT is_message, {_COLUMNS_OF_OBJECT} FROM staged WHERE thread = ? ORDER BY is_message, number"  # noqa: S608
        rows = [(row[0], StagedObject(*row[1:])) for row in self._database.execute(query, [thread_id])]
        threads = self._without_repeats([row for is_message, row in rows if not is_message], skipped)
        messages = self._without_repeats([row for is_message, row in rows if is_message], skipped)
        size = sum(len(row.body) for _, row in rows)
        if messages:
            times, first = [row.created_at for row in messages], messages[0]
            guesses = (_descends(times), newest_first[first.file], bool(first.is_listed))
            if next(guess for guess in guesses if guess is not None):
                messages.reverse()
            # The sort is stable, so messages with the same second keep their order.
            messages.sort(key=lambda row: row.created_at if row.created_at is not None else -1)
        values = [json.loads(row.body) for row in messages]

        def message_location(i: int) -> SourceLocation:
            return self._location(messages[i])

        if threads:
            thread = SourceValue(self._location(threads[0]), json.loads(threads[0].body))
        else:
            value = {"id": thread_id, "object": THREAD_OBJECT, "created_at": messages[0].created_at}
            thread = SourceValue(message_location(0), value)
        return UnvalidatedThread(thread, values, message_location, size, has_own_object=bool(threads))

    def _is_newest_first(self, file: int) -> bool | None:
        """Return whether times mostly decrease from one message of a thread to the next in this file.

        Returns None if they decrease as often as they increase.
        """
        (balance,) = self._database.execute(
            """
            SELECT sum((created_at < before) - (created_at > before)) FROM (
                SELECT created_at, lag(created_at) OVER (PARTITION BY thread ORDER BY number) AS before
                FROM staged WHERE is_message AND file = ?
            )
            """,
            [file],
        ).fetchone()
        return balance > 0 if balance else None

    def _without_repeats(self, rows: list[StagedObject], skipped: SkippedValues) -> list[StagedObject]:
        """Return the rows without repeated objects. Raises InvalidInput if different objects have the same id."""
        by_id: dict[str, StagedObject] = {}
        kept, faults = [], []
        for row in rows:
            before = row if row.id is None else by_id.setdefault(row.id, row)
            if before is row:
                kept.append(row)
            elif before.body == row.body:
                skipped.add("repeated object", self._location(row))
            else:
                first = self._location(before)
                faults.append((self._location(row).at("id"), f"{first} has the same id but different values"))
        if faults:
            raise InvalidInput(faults)
        return kept

    def _location(self, row: StagedObject) -> SourceLocation:
        return SourceLocation(self._files[row.file], row.line, tuple(json.loads(row.path)))


def _descends(times: list[int | None]) -> bool | None:
    """Return whether times mostly decrease. Returns None if they decrease as often as they increase."""
    balance = sum((a > b) - (a < b) for a, b in pairwise(times) if a is not None and b is not None)
    return balance > 0 if balance else None
