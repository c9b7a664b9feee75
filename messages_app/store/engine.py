"""The interface between the store and an engine, beyond Django's own. The project implements it for each engine."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from django.db import IntegrityError, connections

from messages_app.store.errors import WriteConflict

Result = TypeVar("Result")

# Seconds to wait after each of 100 attempts that conflict with another writer.
RETRY_PAUSES = [attempt // 4 * 0.001 for attempt in range(100)]


class EngineFeatures(Protocol):
    supports_transactions: bool
    has_native_json_field: bool
    has_select_for_no_key_update: bool
    # Documents with arrays and objects as values, instead of rows.
    stores_documents: bool
    # One prepared INSERT run for many rows is faster than one INSERT of many rows.
    prefers_executemany: bool
    # LIKE ignores the case of all letters, not only of ASCII letters.
    folds_unicode_case: bool


class EngineConnection(Protocol):
    """The connection of this thread. `ops` also has `adapt_document` and `adapt_pairs`, which JSON columns call."""

    features: EngineFeatures

    def fetch_all(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, without Django's cursor where possible."""

    def write_turn(self) -> AbstractContextManager[None]:
        """Wrap one statement that writes, outside of a transaction. Waits for its turn if the engine queues writers."""

    def expect_many_writes(self) -> None:
        """Prepare this process for storing millions of rows."""


# Returns this thread's connection to the database with an alias.
connection_to = cast(Callable[[str], EngineConnection], connections.__getitem__)


def retried(write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
    """Run `write` until it does not conflict with another writer (IntegrityError); return its result.

    Re-raises the error if `is_rejected` returns True: then it has another cause. Raises WriteConflict after the last
    pause.
    """
    for pause in RETRY_PAUSES:
        try:
            return write()
        except IntegrityError:
            if is_rejected():
                raise
        time.sleep(pause)
    raise WriteConflict("too many writers at once")
