"""The connection class and the options of the connection pool.

They ensure that no request waits for a server that is down or does not respond.
"""

import socket
import time
from collections.abc import Generator
from struct import pack
from typing import Any, ClassVar, Self

import psycopg
from psycopg_pool import ConnectionPool

# How long a statement may run before the server is probed, and how long the probe may take.
PROBE_SECONDS = 0.8

# Every server responds to this message with one byte, with or without TLS, before any authentication.
SSL_REQUEST = pack("!ii", 8, 80877103)


class Connection(psycopg.Connection[Any]):
    """Waits for a statement only while the server responds to probes. psycopg would wait for a hung server forever.

    `failure` is the reason why the last attempt to connect failed. The pool itself only logs it.
    """

    failure: ClassVar = ""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._watched(gen), *args, **kwargs)

    def _watched(self, work: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Wrap the generator that psycopg drives. Raises OperationalError if the server does not respond to a probe."""
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
        is_local = host.startswith("/")  # the directory of a Unix socket
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
    """Fail the requests that wait for a connection if a new one could not be opened and none is in use.

    Otherwise they would wait until the pool's time-out, so every response during an outage would take that long.
    """
    if pool.get_stats()["pool_size"]:
        return
    with pool._lock:
        waiting = list(pool._waiting)
        pool._waiting.clear()
    for client in waiting:
        client.fail(psycopg.OperationalError(Connection.failure))


def pool_options(connections: int, seconds_to_wait: float) -> dict[str, Any]:
    """Return the options of a pool that opens up to `connections` on demand and waits for a free one."""
    return {
        "min_size": 0,
        "max_size": connections,
        "timeout": seconds_to_wait,
        # 0 turns off the pool's own retries, because the next request retries. The pool waits longer after each failed
        # retry, so after an outage of minutes its next retry would be minutes late.
        "reconnect_timeout": 0,
        "reconnect_failed": fail_who_waits,
        "connection_class": Connection,
    }
