"""What the engines differ in, as far as the domain must know: documents, transactions, and writers that meet."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from django.db import connections

# How often what another writer changed meanwhile is tried anew. Engines that lock rows never need it.
ATTEMPTS = 100


def stores_documents(connection: Any) -> bool:
    return bool(connection.features.stores_documents)


def can_roll_back(database: str) -> bool:
    """Whether what a block of writes left half done is undone. Where not, each write must be sound by itself."""
    return connections[database].features.supports_transactions


def one_write(database: str) -> AbstractContextManager[None]:
    """Around a write of one statement, which is a transaction by itself, or a part of the one that is open.

    An engine whose writers queue has a way of its own to take its turn for that.
    """
    connection: Any = connections[database]
    turn: AbstractContextManager[None] = connection.write_turn()
    return turn


def expect_many_writes(database: str) -> None:
    """Lets the engine make ready for a process that stores millions of rows, where it has something to make ready."""
    connection: Any = connections[database]
    connection.expect_many_writes()


def pauses() -> Iterable[float]:
    """Seconds to wait after each attempt that met another writer: at first none, then longer and longer."""
    for attempt in range(ATTEMPTS):
        yield attempt // 4 * 0.001
