"""The engine's DatabaseWrapper; everything else is Django's."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_UN, flock
from functools import lru_cache
from json import JSONEncoder
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import orjson
from django.db.backends.sqlite3 import base, features, operations
from django.db.utils import OperationalError
from django.utils import dateparse

from threadsvc.engines.base import MAX_CACHED_CHARACTERS, EngineConnection, EngineFeatures, EngineOperations

# The second: the file by which processes find their way in the log cannot grow.
DISK_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)

# For who stores millions of rows: indexes of random ids are found in 16 MB of memory, and a page of them that changes
# with each commit goes from the log, which may get 160 MB long, to the database once for many. What a commit promises
# is the same.
MANY_WRITES = ("PRAGMA cache_size = -16384", "PRAGMA wal_autocheckpoint = 40000")  # KiB; pages of 4 KiB

# A wait in line as short as this is not taken off SQLite's own time-out: telling SQLite costs three statements.
BRIEF_SECONDS = 0.1


class WriteQueue:
    """The turn to write to one database file, among the threads of this process and among processes.

    Threads wait for each other here, with a time-out; then one thread a process waits in a `flock`. That has no
    time-out, but ends with the transaction of the process that has it, however that process ends.
    """

    def __init__(self, database: str) -> None:
        self._threads = Lock()
        self._file = Path(f"{database}.turn").open("ab")  # noqa: SIM115  # as long as the process lives

    def acquire(self, seconds: float) -> bool:
        if not self._threads.acquire(timeout=seconds):
            return False
        try:
            flock(self._file, LOCK_EX)
        except BaseException:
            self._threads.release()
            raise
        return True

    def release(self) -> None:
        flock(self._file, LOCK_UN)
        self._threads.release()


_write_queues: dict[str, WriteQueue] = {}
# In a child the thread that holds a lock does not exist, and an inherited file is the parent's place in the line.
os.register_at_fork(after_in_child=_write_queues.clear)


def write_queue(database: str) -> WriteQueue:
    return _write_queues.get(database) or _write_queues.setdefault(database, WriteQueue(database))


class SQLiteCursor(base.SQLiteCursorWrapper):
    """Django's, which puts SQLite's placeholders into a statement each time it is run."""

    def convert_query(self, query: str, *, param_names: Any = None) -> str:
        if param_names is None and len(query) <= MAX_CACHED_CHARACTERS:
            return convert_query(query)
        return str(super().convert_query(query, param_names=param_names))


@lru_cache(maxsize=256)
def convert_query(query: str) -> str:
    return base.FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


class DatabaseFeatures(EngineFeatures, features.DatabaseFeatures):
    # Django 5.2 leaves them out for SQLite, which has had them since 3.15: pages start by (created_at, id) < (?, ?).
    supports_tuple_lookups = True
    prefers_executemany = True
    folds_unicode_case = False


def parse_datetime(text: bytes) -> datetime | None:
    """Django's, which takes longer; that one is asked for what nobody of ours has written."""
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        return dateparse.parse_datetime(text.decode())


sqlite3.register_converter("datetime", parse_datetime)


class DatabaseOperations(EngineOperations, operations.DatabaseOperations):
    def adapt_document(self, value: Any, encoder: type[JSONEncoder]) -> str:
        """Return the JSON text that the encoder writes. orjson writes the same, faster, and refuses the rest."""
        try:
            return orjson.dumps(value).decode()
        except TypeError:  # a lone surrogate, an integer of more than 64 bits
            return encoder().encode(value)

    adapt_pairs = adapt_document

    def convert_datetimefield_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Django's, for a time of a column, which is in UTC: the one time zone of the settings."""
        if value is None or (type(value) is datetime and value.tzinfo is None):
            return value and value.replace(tzinfo=UTC)
        return super().convert_datetimefield_value(value, expression, connection)


class QueuedWrite(AbstractContextManager[None]):
    """A context manager as a class: one made of a generator takes three times as long."""

    def __init__(self, connection: "DatabaseWrapper") -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.ensure_connection()
        left = self.connection.enter_queue()
        self.busy = None if left is None else self.connection.busy_timeout(left)
        try:
            if self.busy:
                self.busy.__enter__()
        except BaseException:
            self.connection.leave_queue()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self.busy:
                self.busy.__exit__(None, None, None)
        finally:
            self.connection.leave_queue()


class DatabaseWrapper(EngineConnection, base.DatabaseWrapper):
    """Waits for its turn before it asks SQLite for the write lock.

    SQLite lets writers poll for its lock with pauses that grow to 100 ms, and whoever comes new may overtake: with many
    writers some wait for seconds. Writers that queue wake as soon as it is their turn.
    """

    features_class = DatabaseFeatures
    ops_class = DatabaseOperations
    timed_methods: ClassVar[dict[str, str]] = {
        **EngineConnection.timed_methods,
        "_start_transaction_under_autocommit": "begin",
        "enter_queue": "begin",
    }
    _queue: WriteQueue | None = None

    def create_cursor(self, name: str | None = None) -> SQLiteCursor:
        cursor: SQLiteCursor = self.connection.cursor(factory=SQLiteCursor)
        return cursor

    def is_disk_full(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", None) in DISK_FULL_CODES

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[Any]:
        return list(self.connection.execute(convert_query(sql), params).fetchall())

    def write_turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self.in_atomic_block else QueuedWrite(self)

    def _start_transaction_under_autocommit(self) -> None:
        left = self.enter_queue()
        try:
            with nullcontext() if left is None else self.busy_timeout(left):
                super()._start_transaction_under_autocommit()
        except BaseException:
            self.leave_queue()
            raise

    def enter_queue(self) -> float | None:
        """Waits for it. Of a long wait returns the seconds that are left to wait for SQLite, which others than the
        service may have locked."""
        seconds: float = self.settings_dict["OPTIONS"]["timeout"]
        start = time.monotonic()
        try:
            queue = write_queue(str(self.settings_dict["NAME"]))
            acquired = queue.acquire(seconds)
        except OSError as error:  # a directory that cannot be written, a file system without locks
            raise OperationalError(f"cannot queue beside the database: {error.strerror}") from error
        if not acquired:
            raise OperationalError("database is locked")
        self._queue = queue
        waited = time.monotonic() - start
        return seconds - waited if waited > BRIEF_SECONDS else None

    @contextmanager
    def busy_timeout(self, seconds: float) -> Iterator[None]:
        """SQLite's own time-out for a moment, so that waiting in line and waiting for SQLite have one together."""
        with self.cursor() as cursor:
            (usual,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")
            try:
                yield
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {usual}")

    def expect_many_writes(self) -> None:
        """Use more memory and a longer log until the connection ends."""
        with self.cursor() as cursor:
            for statement in MANY_WRITES:
                cursor.execute(statement)

    def close_pool(self) -> None:
        """Do nothing: there is no pool."""

    def leave_queue(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.release()

    def _commit(self) -> None:
        try:
            super()._commit()
        finally:
            self.leave_queue()

    def _rollback(self) -> None:
        try:
            super()._rollback()
        finally:
            self.leave_queue()

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            self.leave_queue()

    def __del__(self) -> None:
        self.leave_queue()  # of a thread that ended amid a transaction
