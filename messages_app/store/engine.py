"""What the engines differ in, as far as the domain must know: documents, transactions, and writers that meet."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

# How often what another writer changed meanwhile is tried anew. Engines that lock rows never need it.
ATTEMPTS = 100


def stores_documents(connection: BaseDatabaseWrapper) -> bool:
    return getattr(connection.features, "stores_documents", False)


def can_roll_back(database: str) -> bool:
    """Whether what a block of writes left half done is undone. Where not, each write must be sound by itself."""
    return connections[database].features.supports_transactions


def one_write(database: str) -> AbstractContextManager[None]:
    """Around a write of one statement, which is a transaction by itself, or a part of the one that is open.

    An engine whose writers queue has a way of its own to take its turn for that.
    """
    connection = connections[database]
    if not connection.in_atomic_block and hasattr(connection, "turn_to_write"):
        turn: AbstractContextManager[None] = connection.turn_to_write()
        return turn
    return transaction.atomic(using=database)


def expect_many_writes(database: str) -> None:
    """Lets the engine make ready for a process that stores millions of rows, where it has something to make ready."""
    make_ready = getattr(connections[database], "expect_many_writes", None)
    if make_ready is not None:
        make_ready()


def pauses() -> Iterable[float]:
    """Seconds to wait after each attempt that met another writer: at first none, then longer and longer."""
    for attempt in range(ATTEMPTS):
        yield attempt // 4 * 0.001
