"""What the engines differ in, as far as the domain must know: documents, transactions, and writers that meet."""

from collections.abc import Iterable

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

# How often what another writer changed meanwhile is tried anew. Engines that lock rows never need it.
ATTEMPTS = 100


def stores_documents(connection: BaseDatabaseWrapper) -> bool:
    return getattr(connection.features, "stores_documents", False)


def can_roll_back(database: str) -> bool:
    """Whether what a block of writes left half done is undone. Where not, each write must be sound by itself."""
    return connections[database].features.supports_transactions


def expect_many_writes(database: str) -> None:
    """Lets the engine make ready for a process that stores millions of rows, where it has something to make ready."""
    make_ready = getattr(connections[database], "expect_many_writes", None)
    if make_ready is not None:
        make_ready()


def pauses() -> Iterable[float]:
    """Seconds to wait after each attempt that met another writer: at first none, then longer and longer."""
    for attempt in range(ATTEMPTS):
        yield attempt // 4 * 0.001
