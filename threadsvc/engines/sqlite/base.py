"""The SQLite engine: Django's engine with a queue of writers and faster conversions."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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

from threadsvc.engines.base import EngineConnection, EngineFeatures, EngineOperations

# SQLITE_IOERR_SHMSIZE: the shared-memory file of the write-ahead log cannot grow.
DISK_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)

# For processes that store millions of rows. Ids are random, so each commit changes many index pages. A cache of 16 MB
# holds these pages. With a log of up to 160 MB, SQLite copies a page from the log to the database only once for many
# commits. The larger log does not make commits less durable.
MANY_WRITES = ("PRAGMA cache_size = -16384", "PRAGMA wal_autocheckpoint = 40000")  # 16,384 KiB; 40,000 pages

# A wait in the write queue reduces SQLite's busy time-out by the same time, so that a write waits no longer than its
# time-out. After a wait shorter than BRIEF_SECONDS, the engine skips this, because it takes three statements.
BRIEF_SECONDS = 0.1


class WriteQueue:
    """A lock for the writers to one database file, in all threads and processes.

    The threads of a process first wait for an in-process lock, with a time-out. The thread that holds this lock then
    waits for a `flock`. This wait has no time-out, but the kernel releases the `flock` when its process ends, even if
    it is killed.
    """

    def __init__(self, database: str) -> None:
        self._threads = Lock()
        self._file = Path(f"{database}.turn").open("ab")  # noqa: SIM115  # stays open until the process ends

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
# After a fork, no thread of the child could release an inherited lock, and an inherited file would share the parent's
# `flock`.
os.register_at_fork(after_in_child=_write_queues.clear)


def write_queue(database: str) -> WriteQueue:
    return _write_queues.get(database) or _write_queues.setdefault(database, WriteQueue(database))


@lru_cache(maxsize=256)
def convert_query(query: str) -> str:
    """Return a query of `fetch_all` with SQLite's placeholders. Cached, because the conversion takes 6 µs."""
    return base.FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


class DatabaseFeatures(EngineFeatures, features.DatabaseFeatures):
    # Queries for pages compare tuples: (created_at, id) < (?, ?). SQLite supports such comparisons since 3.15, but
    # Django 5.2 uses them on SQLite only if this attribute is True.
    supports_tuple_lookups = True
    prefers_executemany = True
    folds_unicode_case = False


def parse_datetime(text: bytes) -> datetime | None:
    """Return a stored time.

    Faster than Django's converter, which is used only for times that this service has not written.
    """
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        return dateparse.parse_datetime(text.decode())


sqlite3.register_converter("datetime", parse_datetime)


class DatabaseOperations(EngineOperations, operations.DatabaseOperations):
    def adapt_document(self, value: Any, encoder: type[JSONEncoder]) -> str:
        """Return the JSON text that the encoder writes.

        orjson writes the same text faster, or raises TypeError.
        """
        try:
            return orjson.dumps(value).decode()
        except TypeError:  # for a lone surrogate or an integer of more than 64 bits
            return encoder().encode(value)

    adapt_pairs = adapt_document

    def convert_datetimefield_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return a stored time as an aware datetime. Columns hold UTC, the time zone of the settings."""
        if value is None or (type(value) is datetime and value.tzinfo is None):
            return value and value.replace(tzinfo=UTC)
        return super().convert_datetimefield_value(value, expression, connection)


class DatabaseWrapper(EngineConnection, base.DatabaseWrapper):
    """Waits in the write queue before it asks SQLite for the write lock.

    Without the queue, writers poll for the lock with pauses of up to 100 ms, and a new writer may overtake others. If
    there are many writers, some then wait for seconds. Queued writers wake as soon as the lock is free.
    """

    features_class = DatabaseFeatures
    ops_class = DatabaseOperations
    timed_methods: ClassVar[dict[str, str]] = {
        **EngineConnection.timed_methods,
        "_start_transaction_under_autocommit": "begin",
        "enter_queue": "begin",
    }
    _queue: WriteQueue | None = None

    def is_disk_full(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", None) in DISK_FULL_CODES

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[Any]:
        return list(self.connection.execute(convert_query(sql), params).fetchall())

    @contextmanager
    def write_turn(self) -> Iterator[None]:
        if self.in_atomic_block:
            yield
            return
        self.ensure_connection()
        left = self.enter_queue()
        try:
            with nullcontext() if left is None else self.busy_timeout(left):
                yield
        finally:
            self.leave_queue()

    def _start_transaction_under_autocommit(self) -> None:
        left = self.enter_queue()
        try:
            with nullcontext() if left is None else self.busy_timeout(left):
                super()._start_transaction_under_autocommit()
        except BaseException:
            self.leave_queue()
            raise

    def enter_queue(self) -> float | None:
        """Wait for the write queue.

        After a long wait, returns the seconds that remain to wait for SQLite's lock, which another program may hold.
        Raises OperationalError after the time-out.
        """
        seconds: float = self.settings_dict["OPTIONS"]["timeout"]
        start = time.monotonic()
        try:
            queue = write_queue(str(self.settings_dict["NAME"]))
            acquired = queue.acquire(seconds)
        except OSError as error:  # for example a read-only directory, or a file system without locks
            raise OperationalError(f"cannot queue beside the database: {error.strerror}") from error
        if not acquired:
            raise OperationalError("database is locked")
        self._queue = queue
        waited = time.monotonic() - start
        return seconds - waited if waited > BRIEF_SECONDS else None

    @contextmanager
    def busy_timeout(self, seconds: float) -> Iterator[None]:
        """Set SQLite's busy time-out for a block, so that the waits for the queue and the lock share one time-out."""
        with self.cursor() as cursor:
            (usual,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")
            try:
                yield
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {usual}")

    def expect_many_writes(self) -> None:
        """Use a larger cache and a longer log until the connection ends."""
        with self.cursor() as cursor:
            for statement in MANY_WRITES:
                cursor.execute(statement)

    def close_pool(self) -> None:
        """Do nothing, because SQLite has no pool. Other engines close their pools here."""

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
        self.leave_queue()  # if a thread ended inside a transaction, other writers must not wait for it
