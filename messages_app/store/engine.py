"""The engine interface that the store needs, in addition to Django's own. The project implements it for each engine."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from django.db import IntegrityError, connections

from messages_app.store.errors import WriteConflict

Result = TypeVar("Result")

# Seconds to wait after each attempt that conflicts with another writer. There are at most 100 attempts.
RETRY_PAUSES = [attempt // 4 * 0.001 for attempt in range(100)]


class EngineFeatures(Protocol):
    supports_transactions: bool
    has_native_json_field: bool
    has_select_for_no_key_update: bool
    # The engine stores documents, whose values can be arrays and objects, instead of rows.
    stores_documents: bool
    # A prepared INSERT that runs once per row is faster than one INSERT of many rows.
    prefers_executemany: bool
    # LIKE ignores case for all letters, not only for ASCII letters.
    folds_unicode_case: bool


class EngineConnection(Protocol):
    """A connection to the database. Each Python thread has its own.

    Its `ops` also has `adapt_document` and `adapt_pairs`, which JSON columns call.
    """

    features: EngineFeatures

    def fetch_all(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, without Django's cursor if possible."""

    def write_turn(self) -> AbstractContextManager[None]:
        """Return a context manager for one write statement outside of a transaction.

        If the engine queues writers, the context manager waits in the queue first.
        """

    def expect_many_writes(self) -> None:
        """Prepare this process for storing millions of rows."""


# Returns the connection of the current Python thread to the database with this alias.
connection_to = cast(Callable[[str], EngineConnection], connections.__getitem__)


def retried(write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
    """Run `write`, and run it again while it conflicts with another writer (IntegrityError). Return its result.

    If `is_rejected` returns True, the error has a different cause and is raised again. Raises WriteConflict after the
    last pause.
    """
    for pause in RETRY_PAUSES:
        try:
            return write()
        except IntegrityError:
            if is_rejected():
                raise
        time.sleep(pause)
    raise WriteConflict("too many writers at once")
