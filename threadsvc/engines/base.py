"""The interface of the three engines: what the domain and the project ask of a connection beyond Django's own.

Each engine inherits EngineConnection in its DatabaseWrapper, EngineFeatures in its DatabaseFeatures and
EngineOperations in its DatabaseOperations, before Django's class. The domain calls these names on
`django.db.connections[alias]` without a fallback: a database of another engine does not work.

An engine asks a field of a model for two optional class attributes:

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

    stored_nothing = True  # for the domain, which tells this error from those with an unknown outcome


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
    """What every DatabaseWrapper offers beyond Django's own."""

    # Methods that go to the database without a cursor of Django's, or wait before they do, and the operation that
    # metrics count each as.
    timed_methods: ClassVar[dict[str, str]] = {
        "get_new_connection": "connect",
        "_commit": "commit",
        "_rollback": "rollback",
        "fetch_directly": "query",
    }
    is_timed = False  # inside one of them: metrics count a nested operation as part of it

    def fetch_all(self: Any, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of one statement; for a write, those of its RETURNING.

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
        """Return the rows of one statement by the shortest way of the driver. For `fetch_all` only."""
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
        """Whether statements are logged: only in tests that ask for it.

        Django logs them with DEBUG too, and reads that setting for each statement. Nobody reads or empties that log.
        """
        return bool(self.force_debug_cursor)


class EngineFeatures:
    """What `connection.features` tells beyond Django's own."""

    # JSON columns hold documents, and metadata a list of pairs; there are no transactions, joins or subqueries.
    stores_documents = False
    # Bulk rows are fastest by `executemany` of the driver. Elsewhere by `bulk_create`, many rows in a statement.
    prefers_executemany = False
    # LIKE without regard to case knows letters beyond ASCII.
    folds_unicode_case = True


class EngineOperations:
    """What `connection.ops` does beyond Django's own."""

    def adapt_document(self: Any, value: Any, encoder: type[JSONEncoder]) -> Any:
        """Return the parameter for a JSON array or object of a column, whose field has this encoder.

        A field must read what this makes: a document, or JSON text.
        """
        return self.adapt_json_value(value, encoder)

    def adapt_pairs(self, value: dict[str, str], encoder: type[JSONEncoder]) -> Any:
        """Return the parameter for an object of text to text, of any keys."""
        return self.adapt_document(value, encoder)
