"""The interface of the three engines: what the domain and the project need from a connection beyond Django's own.

Each engine inherits EngineConnection in its DatabaseWrapper, EngineFeatures in its DatabaseFeatures and
EngineOperations in its DatabaseOperations, before Django's class. The domain calls these names on
`django.db.connections[alias]` without a fallback: a database of another engine does not work.

A field of a model has two optional class attributes for the engine:

- `takes_documents`: `from_db_value` accepts a JSON array or object. Other JSONFields get JSON text.
- `stores_pairs`: the field is an object of text to text, stored by `adapt_pairs`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from json import JSONEncoder
from typing import Any, ClassVar

from django.db import DataError, OperationalError
from django.db.utils import DatabaseErrorWrapper

# Caches of SQL skip longer statements: bulk inserts and long lists of ids seldom repeat.
MAX_CACHED_CHARACTERS = 4096


class RowTooLarge(DataError):
    """A row is larger than its engine accepts (16 MB in MongoDB). Becomes 413."""


class DiskFull(OperationalError):
    """The database has no disk space left for a write, and wrote nothing. Becomes 507."""

    stored_nothing = True  # the domain tells this error from those with an unknown outcome


def error_reason(error: Exception) -> str:
    """Return the first line of a database's error message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class DatabaseErrors(DatabaseErrorWrapper):
    """Converts a driver's exceptions to Django's, and a full disk to DiskFull."""

    wrapper: Any

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is not None and self.wrapper.is_disk_full(error):
            self.wrapper.errors_occurred = True
            raise DiskFull(*error.args).with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)


class EngineConnection:
    """The methods that every DatabaseWrapper has beyond Django's."""

    # Methods that reach the database without Django's cursor, or wait before they do. Metrics count each as this
    # operation.
    timed_methods: ClassVar[dict[str, str]] = {
        "get_new_connection": "connect",
        "_commit": "commit",
        "_rollback": "rollback",
        "fetch_directly": "query",
    }
    is_timed = False  # True inside one of them: metrics count a nested operation as part of it

    def fetch_all(self: Any, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; for a write, the rows of its RETURNING.

        Skips Django's cursor, unless something listens to it (`execute_wrapper`, CaptureQueriesContext). Raises the
        same exceptions as a cursor.
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
        """Run one statement with as few layers over the driver as possible and return its rows. For `fetch_all`
        only.
        """
        raise NotImplementedError

    def write_turn(self) -> AbstractContextManager[None]:
        """Return a context manager for a single statement that writes, which is a transaction by itself.

        If writers of the engine queue (SQLite), the statement waits for its turn first. In an open `atomic` block, and
        on engines without a queue, the context manager does nothing: no transaction, no savepoint.
        """
        return nullcontext()

    def expect_many_writes(self) -> None:
        """Prepare this connection for a process that stores millions of rows, where the engine can."""

    def is_disk_full(self, error: Exception) -> bool:
        """Whether an exception of the driver means that the disk is full."""
        return False

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrors:
        return DatabaseErrors(self)

    @property
    def queries_logged(self: Any) -> bool:
        """Whether statements are logged: only if a test asks for it.

        Django also logs them if DEBUG is set, and reads that setting for each statement. Nothing reads or empties that
        log.
        """
        return bool(self.force_debug_cursor)


class EngineFeatures:
    """The attributes of `connection.features` beyond Django's."""

    # JSON columns hold documents, and metadata a list of pairs; there are no transactions, joins or subqueries.
    stores_documents = False
    # Bulk rows are fastest by `executemany` of the driver. Elsewhere by `bulk_create`, many rows in a statement.
    prefers_executemany = False
    # LIKE ignores the case of letters beyond ASCII.
    folds_unicode_case = True


class EngineOperations:
    """The methods of `connection.ops` beyond Django's."""

    def adapt_document(self: Any, value: Any, encoder: type[JSONEncoder]) -> Any:
        """Return the parameter for a JSON array or object of a column whose field has this encoder.

        The field must be able to read the parameter back: a document, or JSON text.
        """
        return self.adapt_json_value(value, encoder)

    def adapt_pairs(self, value: dict[str, str], encoder: type[JSONEncoder]) -> Any:
        """Return the parameter for an object of text to text, of any keys."""
        return self.adapt_document(value, encoder)
