"""The interface of the three engines: additions to Django's connections for the domain and the project.

In each engine, DatabaseWrapper inherits EngineConnection, DatabaseFeatures inherits EngineFeatures, and
DatabaseOperations inherits EngineOperations, before Django's class. The domain uses these names on
`django.db.connections[alias]` without a fallback, so other engines do not work.

A model field can have two class attributes for the engine:

- `takes_documents`: `from_db_value` accepts a JSON array or object. Other JSONFields get JSON text.
- `stores_pairs`: the field is an object whose values are strings. `adapt_pairs` converts it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from json import JSONEncoder
from typing import Any, ClassVar

from django.db import DataError, OperationalError
from django.db.utils import DatabaseErrorWrapper

# Longer statements are not cached, because bulk inserts and long lists of ids seldom repeat.
MAX_CACHED_CHARACTERS = 4096


class RowTooLarge(DataError):
    """A row is larger than its engine accepts (16 MB in MongoDB). Becomes 413."""


class DiskFull(OperationalError):
    """The database had no disk space left for a write, and wrote nothing. Becomes 507."""

    stored_nothing = True  # distinguishes this error from errors with an unknown outcome


def error_reason(error: Exception) -> str:
    """Return the first line of a database's error message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class DatabaseErrors(DatabaseErrorWrapper):
    """Converts a driver's exceptions to Django's, and the exceptions for a full disk to DiskFull."""

    wrapper: Any

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is not None and self.wrapper.is_disk_full(error):
            self.wrapper.errors_occurred = True
            raise DiskFull(*error.args).with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)


class EngineConnection:
    """The methods that every DatabaseWrapper has in addition to Django's."""

    # Methods that use the database without Django's cursor, or wait before they use it. The values are the operations
    # under which metrics count them.
    timed_methods: ClassVar[dict[str, str]] = {
        "get_new_connection": "connect",
        "_commit": "commit",
        "_rollback": "rollback",
        "fetch_directly": "query",
    }
    is_timed = False  # True inside such a method: metrics count a nested operation as part of the outer one

    def fetch_all(self: Any, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. A write returns the rows of its RETURNING.

        Skips Django's cursor, unless other code observes the cursor (`execute_wrapper`, CaptureQueriesContext). Raises
        the same exceptions as a cursor.
        """
        if self.execute_wrappers or self.force_debug_cursor:
            with self.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall())
        self.ensure_connection()
        self.validate_no_broken_transaction()
        with self.wrap_database_errors:
            return list(self.fetch_directly(sql, params))

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement with as few layers over the driver as possible, and return its rows.

        Only `fetch_all` calls this method.
        """
        raise NotImplementedError

    def write_turn(self) -> AbstractContextManager[None]:
        """Return a context manager for a single write statement that is its own transaction.

        If the engine queues writers (SQLite), the context manager waits in the queue. In an open `atomic` block, and on
        engines without a queue, it does nothing: it opens no transaction and no savepoint.
        """
        return nullcontext()

    def expect_many_writes(self) -> None:
        """Prepare this connection for a process that stores millions of rows, if the engine supports it."""

    def is_disk_full(self, error: Exception) -> bool:
        """Return whether an exception of the driver means that the disk is full."""
        return False

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrors:
        return DatabaseErrors(self)

    @property
    def queries_logged(self: Any) -> bool:
        """True if Django logs statements. Only tests use this log.

        By default, Django also logs statements if DEBUG is set, and checks this setting for each statement. Nothing
        would read or empty that log.
        """
        return bool(self.force_debug_cursor)


class EngineFeatures:
    """The attributes that `connection.features` has in addition to Django's."""

    # True for MongoDB: JSON columns hold documents, and metadata is a list of pairs. There are no transactions, joins
    # or subqueries.
    stores_documents = False
    # True if the driver's `executemany` is the fastest way to insert many rows. On other engines, `bulk_create` with
    # many rows in a statement is faster.
    prefers_executemany = False
    # True if case-insensitive searches also ignore the case of non-ASCII letters.
    folds_unicode_case = True


class EngineOperations:
    """The methods that `connection.ops` has in addition to Django's."""

    def adapt_document(self: Any, value: Any, encoder: type[JSONEncoder]) -> Any:
        """Return the query parameter for a JSON array or object. `encoder` is the encoder of the column's field.

        The parameter is a document or JSON text, and the field must be able to read it back.
        """
        return self.adapt_json_value(value, encoder)

    def adapt_pairs(self, value: dict[str, str], encoder: type[JSONEncoder]) -> Any:
        """Return the query parameter for an object whose values are strings, with any keys."""
        return self.adapt_document(value, encoder)
