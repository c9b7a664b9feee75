"""What the pool of connections is told: nobody waits for a server that is known to be away, or found silent."""

import socket
import time
from collections.abc import Generator
from struct import pack
from typing import Any, ClassVar, Self

import psycopg
from psycopg_pool import ConnectionPool

# How long a server may take over a statement before it is asked whether it still answers anybody; and to say so.
PROBE_SECONDS = 0.8

# "Do you speak TLS?", to which each server has an answer of one byte, before any log-in.
SSL_REQUEST = pack("!ii", 8, 80877103)


class Connection(psycopg.Connection[Any]):
    """Waits for a statement as long as the server answers others; psycopg would wait for one that hangs for good.

    Remembers why the last one could not be made: the pool tells that to its log alone.
    """

    failure: ClassVar = ""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._watched(gen), *args, **kwargs)

    def _watched(self, work: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same work for psycopg to drive. Raises OperationalError where the server keeps silent to all."""
        try:
            awaited, since = next(work), time.monotonic()
            while True:
                ready = yield awaited
                if ready:
                    since = time.monotonic()
                elif time.monotonic() - since > PROBE_SECONDS:
                    if not self._is_answered():
                        self.close()
                        raise psycopg.OperationalError("the database server does not answer")
                    since = time.monotonic()
                awaited = work.send(ready)
        except StopIteration as done:
            return done.value

    def _is_answered(self) -> bool:
        host, port = self.info.host, self.info.port
        is_local = host.startswith("/")  # the directory of a socket
        family = socket.AF_UNIX if is_local else socket.AF_INET6 if ":" in self.info.hostaddr else socket.AF_INET
        with socket.socket(family) as probe:
            probe.settimeout(PROBE_SECONDS)
            try:
                probe.connect(f"{host}/.s.PGSQL.{port}" if is_local else (self.info.hostaddr, port))
                probe.sendall(SSL_REQUEST)
                return bool(probe.recv(1))
            except OSError:
                return False

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
