"""The engine's DatabaseWrapper; everything else is Django's."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

# A database file -> the turn to write to it.
_turns: dict[str, Lock] = {}
os.register_at_fork(after_in_child=_turns.clear)  # a lock that another thread held would stay locked in the child


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits for this process's turn before it asks SQLite for the write lock.

    SQLite lets writers poll for its lock with pauses that grow to 100 ms, and whoever comes new may overtake: with many
    threads some wait for seconds. Threads that queue here wake as soon as it is their turn; only one a process polls.
    """

    _turn: "Lock | None" = None

    def _start_transaction_under_autocommit(self) -> None:
        seconds = self.settings_dict["OPTIONS"]["timeout"]
        turn = _turns.setdefault(str(self.settings_dict["NAME"]), Lock())
        start = time.monotonic()
        if not turn.acquire(timeout=seconds):
            raise OperationalError("database is locked")
        self._turn = turn
        try:
            left = seconds - (time.monotonic() - start)
            with self._busy_seconds(left) if left < seconds / 2 else nullcontext():
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

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

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
