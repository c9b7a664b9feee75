"""The engine's DatabaseWrapper; everything else is Django's."""

import atexit
from collections.abc import Sequence
from select import POLLIN, poll
from typing import Any, Self

from django.db.backends.postgresql import base, features, operations
from django.db.backends.postgresql.schema import DatabaseSchemaEditor as DjangosSchemaEditor
from django.db.utils import OperationalError
from psycopg import Connection, Cursor, Error, errors
from psycopg.pq import ConnStatus

from threadsvc.engines.base import EngineConnection, EngineFeatures, EngineOperations

# How long a server may take to answer nothing.
SECONDS_TO_ANSWER = 0.9


def is_open(connection: Connection[Any]) -> bool:
    """Whether the server has not closed the connection, as far as is known here. Raises OperationalError where it keeps
    silent though it has something to say.

    Nothing waits to be read on one that is open, and then nothing is asked: a server that hangs is noticed by the
    statement that comes (pool.py). Otherwise it is asked for nothing; psycopg itself would wait for that answer as long
    as the server's machine is there.
    """
    server = connection.pgconn
    if server.status == ConnStatus.OK:
        said = poll()
        said.register(server.socket, POLLIN)
        if not said.poll(0):
            return True
    try:
        server.send_query(b"")
        while server.is_busy():
            readable = poll()
            readable.register(server.socket, POLLIN)
            if not readable.poll(SECONDS_TO_ANSWER * 1000):
                connection.close()
                raise OperationalError("the database server does not answer")
            server.consume_input()
        while server.get_result():
            pass
    except Error:
        return False
    return server.status == ConnStatus.OK


class DatabaseSchemaEditor(DjangosSchemaEditor):
    """Migrations may take as long as they take, though nobody else may.

    Text columns with an index get no second one for LIKE 'x%': nobody searches so, and each write would pay for it.
    """

    def _create_like_index_sql(self, model: Any, field: Any) -> None:
        return None

    def __enter__(self) -> Self:
        entered = super().__enter__()
        if self.atomic_migration and not self.collect_sql:
            self.execute("SET LOCAL statement_timeout = 0")
        return entered


class DatabaseFeatures(EngineFeatures, features.DatabaseFeatures): ...


class DatabaseOperations(EngineOperations, operations.DatabaseOperations): ...


class DatabaseWrapper(EngineConnection, base.DatabaseWrapper):
    """Gives out connections that are open: what a server closed when it was restarted is thrown away first.

    The pool's own check waits longer after each closed connection that it meets, beyond the time that a request has.
    """

    SchemaEditorClass = DatabaseSchemaEditor
    features_class = DatabaseFeatures
    ops_class = DatabaseOperations

    def is_disk_full(self, error: Exception) -> bool:
        return isinstance(error, errors.DiskFull)

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[Any]:
        """Use a prepared statement. Django's cursors interpolate values, so the server plans each statement anew."""
        with Cursor(self.connection) as prepared:
            return prepared.execute(sql, params).fetchall()

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Does not wait for a new connection where one was given up amid a transaction: a new one commits by itself."""
        if self.connection is not None or not autocommit:
            super().set_autocommit(autocommit, *args, **kwargs)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        pool = self.pool
        if pool is None:  # of Django's own, to make and drop databases
            return connection
        for _ in range(pool.max_size):
            try:
                if is_open(connection):
                    return connection
            except OperationalError:
                pool.putconn(connection)
                raise
            pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection


@atexit.register
def close_pools() -> None:
    """A pool has threads of its own, which must end before the interpreter does."""
    for pool in base.DatabaseWrapper._connection_pools.values():  # type: ignore[attr-defined]  # not in the stubs
        pool.close()
