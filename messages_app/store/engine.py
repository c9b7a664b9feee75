"""What the store asks of an engine, beyond what Django asks of it. The project implements it for each engine."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from django.db import IntegrityError, connections

from messages_app.store.errors import WriteConflict

Result = TypeVar("Result")

# The seconds to wait after each attempt at a write that met another writer: none at first, then more and more.
PAUSES = [attempt // 4 * 0.001 for attempt in range(100)]


class EngineFeatures(Protocol):
    supports_transactions: bool
    has_native_json_field: bool
    has_select_for_no_key_update: bool
    # Documents with arrays and objects as values, instead of rows.
    stores_documents: bool
    # One prepared INSERT run for many rows is faster than one INSERT of many rows.
    prefers_executemany: bool
    # LIKE ignores the case of all letters, not of ASCII's alone.
    folds_unicode_case: bool


class EngineConnection(Protocol):
    """A connection of this thread. `ops` also has `adapt_document` and `adapt_pairs`, which JSON columns call."""

    features: EngineFeatures

    def fetch_all(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, by the shortest way that the engine has."""

    def write_turn(self) -> AbstractContextManager[None]:
        """Wrap one statement that writes, outside of a transaction. Where writers queue, wait for the turn."""

    def expect_many_writes(self) -> None:
        """Prepare this process for storing millions of rows."""


# Returns this thread's connection to a database, by its alias.
connection_to = cast(Callable[[str], EngineConnection], connections.__getitem__)


def retried(write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
    """Run `write` until it meets no other writer, which raises IntegrityError; return what it returns.

    Re-raises the error if `is_rejected` returns that it has another reason. Raises WriteConflict after the last pause.
    """
    for pause in PAUSES:
        try:
            return write()
        except IntegrityError:
            if is_rejected():
                raise
        time.sleep(pause)
    raise WriteConflict("too many writers at once")
