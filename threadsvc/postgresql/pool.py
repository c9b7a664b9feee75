"""What the pool of connections is told: nobody waits for a server that is known to be away."""

from typing import Any, ClassVar, Self

import psycopg
from psycopg_pool import ConnectionPool


class Connection(psycopg.Connection[Any]):
    """Remembers why the last one could not be made: the pool tells that to its log alone."""

    failure: ClassVar = ""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        try:
            return super().connect(*args, **kwargs)
        except psycopg.Error as error:
            Connection.failure = str(error).partition("\n")[0]
            raise


def fail_who_waits(pool: ConnectionPool[Any]) -> None:
    """Called where a new connection failed: whoever waits for one need not, unless others will be given back.

    The pool itself would let them wait until its time-out; then every answer of an outage would take that long.
    """
    if pool.get_stats()["pool_size"]:
        return
    with pool._lock:
        waiting = list(pool._waiting)
        pool._waiting.clear()
    for client in waiting:
        client.fail(psycopg.OperationalError(Connection.failure))


def pool_options(connections: int, seconds_to_wait: float) -> dict[str, Any]:
    """Up to that many connections, made when they are needed; waits as long for one that others have."""
    return {
        "min_size": 0,
        "max_size": connections,
        "timeout": seconds_to_wait,
        # To try again is the next request's part: the pool's own tries come ever more seldom, and after an outage of
        # minutes would be minutes late.
        "reconnect_timeout": 0,
        "reconnect_failed": fail_who_waits,
        "connection_class": Connection,
    }
