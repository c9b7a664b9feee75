"""The engine's DatabaseWrapper; everything else is Django's."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fcntl import LOCK_EX, LOCK_UN, flock
from functools import cached_property
from pathlib import Path
from threading import Lock

from django.db.backends.sqlite3 import base, features
from django.db.utils import OperationalError

from threadsvc.databases import DatabaseErrors

# The second: the file by which processes find their way in the log cannot grow.
DISK_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)

# For who stores millions of rows: indexes of random ids are found in 16 MB of memory, and a page of them that changes
# with each commit goes from the log, which may get 160 MB long, to the database once for many. What a commit promises
# is the same.
MANY_WRITES = ("PRAGMA cache_size = -16384", "PRAGMA wal_autocheckpoint = 40000")  # KiB; pages of 4 KiB

# A wait in line as short as this is not taken off SQLite's own time-out: telling SQLite costs three statements.
BRIEF_SECONDS = 0.1


class Turn:
    """The turn to write to one database file, among the threads of this process and among processes.

    Threads wait for each other here, with a time-out; then one thread a process waits in a `flock`. That has no
    time-out, but ends with the transaction of the process that has it, however that process ends.
    """

    def __init__(self, database: str) -> None:
        self._threads = Lock()
        self._file = Path(f"{database}.turn").open("ab")  # noqa: SIM115  # as long as the process lives

    def take(self, seconds: float) -> bool:
        if not self._threads.acquire(timeout=seconds):
            return False
        try:
            flock(self._file, LOCK_EX)
        except BaseException:
            self._threads.release()
            raise
        return True

    def give_on(self) -> None:
        flock(self._file, LOCK_UN)
        self._threads.release()


_turns: dict[str, Turn] = {}
# In a child the thread that holds a lock does not exist, and an inherited file is the parent's place in the line.
os.register_at_fork(after_in_child=_turns.clear)


def turn_of(database: str) -> Turn:
    return _turns.get(database) or _turns.setdefault(database, Turn(database))


class DatabaseFeatures(features.DatabaseFeatures):
    # Django 5.2 leaves them out for SQLite, which has had them since 3.15: pages start by (created_at, id) < (?, ?).
    supports_tuple_lookups = True


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits for its turn before it asks SQLite for the write lock.

    SQLite lets writers poll for its lock with pauses that grow to 100 ms, and whoever comes new may overtake: with many
    writers some wait for seconds. Writers that queue wake as soon as it is their turn.
    """

    features_class = DatabaseFeatures
    _turn: Turn | None = None

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrors:
        return DatabaseErrors(self)

    def is_disk_full(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", None) in DISK_FULL

    def _start_transaction_under_autocommit(self) -> None:
        seconds = self.settings_dict["OPTIONS"]["timeout"]
        start = time.monotonic()
        try:
            turn = turn_of(str(self.settings_dict["NAME"]))
            taken = turn.take(seconds)
        except OSError as error:  # a directory that cannot be written, a file system without locks
            raise OperationalError(f"cannot queue beside the database: {error.strerror}") from error
        if not taken:
            raise OperationalError("database is locked")
        self._turn = turn
        try:
            waited = time.monotonic() - start
            with self._busy_seconds(seconds - waited) if waited > BRIEF_SECONDS else nullcontext():
                super()._start_transaction_under_autocommit()
        except BaseException:
            self._end_turn()
            raise

    @contextmanager
    def _busy_seconds(self, seconds: float) -> Iterator[None]:
        """SQLite's own time-out for a moment, so that waiting in line and waiting for SQLite have one together."""
        with self.cursor() as cursor:
            (usual,) = cursor.execute("PRAGMA busy_timeout").fetchone()
            cursor.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")
            try:
                yield
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {usual}")

    def expect_many_writes(self) -> None:
        """Takes more memory, and a longer log, as long as the connection lasts."""
        with self.cursor() as cursor:
            for statement in MANY_WRITES:
                cursor.execute(statement)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.give_on()

    def _commit(self) -> None:
        try:
            super()._commit()
        finally:
            self._end_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()
        finally:
            self._end_turn()

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            self._end_turn()

    def __del__(self) -> None:
        self._end_turn()  # of a thread that ended amid a transaction
