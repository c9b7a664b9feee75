"""The engine's DatabaseWrapper; everything else is Django's."""

import os
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
        turn = _turns.setdefault(str(self.settings_dict["NAME"]), Lock())
        if not turn.acquire(timeout=self.settings_dict["OPTIONS"]["timeout"]):
            raise OperationalError("database is locked")
        self._turn = turn
        try:
            super()._start_transaction_under_autocommit()
        except BaseException:
            self._end_turn()
            raise

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
