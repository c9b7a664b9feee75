"""The PostgreSQL engine: Django's engine with prepared statements and checks of pooled connections."""

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

# How long a server may take to respond to an empty query.
SECONDS_TO_ANSWER = 0.9


def is_open(connection: Connection[Any]) -> bool:
    """Return whether a connection is open, as far as this process knows.

    If no data is waiting to be read, the server has not closed the connection. If the server hangs, the next statement
    detects it (pool.py). If data is waiting, this function sends an empty query with its own time-out, because psycopg
    would wait as long as the server's machine is up. Raises OperationalError after the time-out.
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
    """Runs migrations without the statement time-out.

    Creates no second index for LIKE 'x%' on an indexed text column. No query would use it, but each write would have to
    maintain it.
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
    """Discards pooled connections that the server has closed, for example in a restart.

    This class replaces the pool's own check. That check waits longer after each closed connection that it finds, and
    would soon wait longer than a request may take.
    """

    SchemaEditorClass = DatabaseSchemaEditor
    features_class = DatabaseFeatures
    ops_class = DatabaseOperations

    def is_disk_full(self, error: Exception) -> bool:
        return isinstance(error, errors.DiskFull)

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[Any]:
        """Run a prepared statement.

        Does not use Django's cursor, which inserts the values into the SQL. The server would then have to plan each
        statement again.
        """
        with Cursor(self.connection) as prepared:
            return prepared.execute(sql, params).fetchall()

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing if the connection was lost in a transaction, because a new connection starts in autocommit."""
        if self.connection is not None or not autocommit:
            super().set_autocommit(autocommit, *args, **kwargs)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        pool = self.pool
        if pool is None:  # a connection without a pool, with which Django creates and drops databases
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
    """Stop the threads of the pools, before the interpreter ends."""
    for pool in base.DatabaseWrapper._connection_pools.values():  # type: ignore[attr-defined]  # not in the stubs
        pool.close()
