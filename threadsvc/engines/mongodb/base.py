"""The MongoDB engine's DatabaseWrapper, clients, cursor, features and operations."""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from json import JSONEncoder
from threading import Lock
from typing import Any, ClassVar, NoReturn

from bson import Decimal128
from django.db import DataError, NotSupportedError
from django.db.models import DecimalField, Field, JSONField
from djongo import base, creation, cursor, features, introspection, operations
from pymongo import MongoClient
from pymongo.database import Database

from threadsvc.engines.base import EngineConnection, EngineFeatures, EngineOperations
from threadsvc.engines.mongodb import lookups
from threadsvc.engines.mongodb.errors import database_errors
from threadsvc.engines.mongodb.schema import DatabaseSchemaEditor
from threadsvc.engines.mongodb.sql import read
from threadsvc.engines.mongodb.statements import Document, ResultSet, is_field_name

lookups.register_lookups()

# One client for each process and server. All threads share its pool of connections.
_clients: dict[tuple[int, str], MongoClient[Document]] = {}
_clients_lock = Lock()


def process_client(options: dict[str, Any]) -> MongoClient[Document]:
    """Return this process's client. After a fork, the child creates a new one, because a fork copies no threads."""
    key = os.getpid(), repr(sorted(options.items()))
    with _clients_lock:
        if key not in _clients:
            _clients[key] = MongoClient(connect=False, **options)
        return _clients[key]


@atexit.register
def close_clients() -> None:
    """Close the clients of this process: their sockets, and the threads that monitor servers."""
    with _clients_lock:
        for key in [key for key in _clients if key[0] == os.getpid()]:
            _clients.pop(key).close()


class MongoCursor(cursor.Cursor):
    """Runs one statement at a time. Rows are tuples in the order of the selected columns."""

    result_set: ResultSet = ResultSet(iter(()))

    def execute(self, sql: str, params: Sequence[Any] | None = None) -> None:
        self.close()
        with database_errors():
            self.result_set = read(sql).run(self.db_conn, params or ())

    def executemany(self, sql: str, param_list: Sequence[Sequence[Any]]) -> None:
        for params in param_list:
            self.execute(sql, params)

    def close(self) -> None:
        self.result_set.close()

    @property
    def rowcount(self) -> int:
        return self.result_set.rowcount

    def fetchone(self) -> tuple[Any, ...] | None:
        with database_errors():
            return next(self.result_set.rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        with database_errors():
            return [row for _, row in zip(range(size), self.result_set.rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        with database_errors():
            return list(self.result_set.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row


class DatabaseFeatures(EngineFeatures, features.DatabaseFeatures):
    allows_group_by_select_index = False
    can_clone_databases = False
    can_return_columns_from_insert = True
    can_return_rows_from_bulk_insert = True
    has_native_json_field = True  # JSON is stored as documents, not as text
    stores_documents = True
    supports_expression_indexes = False
    supports_foreign_keys = False
    supports_ignore_conflicts = False
    supports_nullable_unique_constraints = False
    supports_select_difference = False
    supports_select_intersection = False
    supports_select_union = False
    supports_table_check_constraints = False
    supports_column_check_constraints = False
    supports_tuple_lookups = False
    test_db_allows_multiple_connections = True


class DatabaseOperations(EngineOperations, operations.DatabaseOperations):
    # The lookups of JSONField that are supported. Others would compare or sort values as BSON, not as text.
    json_lookups = ("exact", "in", "isnull")

    def conditional_expression_supported_in_where_clause(self, expression: Any) -> bool:
        return False  # Django then writes `WHERE "flag" = %s` instead of `WHERE "flag"`

    def bulk_insert_sql(self, fields: "Sequence[Field[Any, Any]]", placeholder_rows: Sequence[Sequence[str]]) -> str:
        return "VALUES " + ", ".join(f"({', '.join(row)})" for row in placeholder_rows)

    def return_insert_columns(self, fields: "Sequence[Field[Any, Any]]") -> tuple[str, tuple[()]]:
        columns = (f"{self.quote_name(f.model._meta.db_table)}.{self.quote_name(f.column)}" for f in fields)
        return f"RETURNING {', '.join(columns)}", ()

    def fetch_returned_insert_rows(self, cursor: Any) -> list[tuple[Any, ...]]:
        return list(cursor.fetchall())

    def lookup_cast(self, lookup_type: str, internal_type: str | None = None) -> str:
        if internal_type == "JSONField" and lookup_type not in self.json_lookups:
            raise NotSupportedError(f"MongoDB cannot do {lookup_type!r} with a JSONField")
        return "%s"

    def regex_lookup(self, lookup_type: str) -> str:
        raise NotSupportedError(f"MongoDB: no {lookup_type!r}; its regular expressions are not Python's")

    def no_function(self, *_: Any) -> NoReturn:
        raise NotSupportedError("MongoDB: no functions of dates and times; use ranges")

    date_extract_sql = datetime_extract_sql = time_extract_sql = no_function
    date_trunc_sql = datetime_trunc_sql = time_trunc_sql = no_function
    datetime_cast_date_sql = datetime_cast_time_sql = no_function

    def adapt_json_value(self, value: Any, encoder: type[JSONEncoder] | None) -> Any:
        return to_document(value, encoder or JSONEncoder)

    def adapt_document(self, value: Any, encoder: type[JSONEncoder]) -> Any:
        """Return the document itself, or JSON text if one of its keys is not a valid field name in MongoDB."""
        return value if has_field_names(value) else encoder().encode(value)

    def adapt_pairs(self, value: dict[str, str], encoder: type[JSONEncoder]) -> list[Document]:
        """Return [{"k": key, "v": text}, ...].

        In this form, any string may be a key, and one index finds every pair.
        """
        return [{"k": key, "v": text} for key, text in value.items()]

    def get_db_converters(self, expression: Any) -> list[Any]:
        converters: list[Any] = super().get_db_converters(expression)
        field = expression.output_field
        if isinstance(field, JSONField) and not getattr(field, "takes_documents", False):
            converters.append(to_json)
        elif isinstance(field, DecimalField):
            converters.append(to_decimal)
        return converters

    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str:
        return f"{sql} -- {params!r}"

    def sql_flush(self, style: Any, tables: Sequence[str], **options: Any) -> list[str]:
        return [f"DELETE FROM {self.quote_name(table)}" for table in tables]  # noqa: S608  # constant names


def has_field_names(value: Any) -> bool:
    """Return whether every key in a JSON value, at any depth, is a valid field name in MongoDB."""
    match value:
        case dict():
            return all(is_field_name(key) and has_field_names(item) for key, item in value.items())
        case list():
            return all(map(has_field_names, value))
    return True


def to_document(value: Any, encoder: type[JSONEncoder]) -> Any:
    """Convert a JSON value to BSON. Raises DataError for a key that is not a valid field name in MongoDB."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            for key in value:
                if not is_field_name(key):
                    raise DataError(f"MongoDB: {key!r} cannot be the key of a document")
            return {key: to_document(item, encoder) for key, item in value.items()}
        case list() | tuple():
            return [to_document(item, encoder) for item in value]
    return to_document(encoder().default(value), encoder)


def to_json(value: Any, *_: Any) -> str | None:
    """Convert a value to the JSON text that Django's own JSONField reads."""
    return None if value is None else JSONEncoder().encode(value)


def to_decimal(value: Any, *_: Any) -> Decimal | None:
    return value.to_decimal() if isinstance(value, Decimal128) else value


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    def get_table_list(self, cursor: Any) -> list[Any]:
        with self.connection.errors():
            return list(super().get_table_list(cursor))

    def get_constraints(self, cursor: Any, table_name: str) -> dict[str, Any]:
        with self.connection.errors():
            return dict(super().get_constraints(cursor, table_name))


class DatabaseCreation(creation.DatabaseCreation):
    """Creates test databases.

    No command creates a database: MongoDB creates it when the migrations create its first collection. Only an old test
    database with the same name must be dropped.
    """

    def _create_test_db(self, verbosity: int, autoclobber: bool, keepdb: bool = False) -> str:
        name: str = self._get_test_db_name()
        if not keepdb:
            self._destroy_test_db(name, verbosity)
        return name

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        process_client(self.connection.get_connection_params()).drop_database(test_database_name)


class DatabaseWrapper(EngineConnection, base.DatabaseWrapper):
    # Metrics time only queries. All connections share a client that opens its sockets by itself, and there are no
    # transactions to begin or commit.
    timed_methods: ClassVar[dict[str, str]] = {"fetch_directly": "query"}
    data_types = {
        **base.DatabaseWrapper.data_types,
        "JSONField": "object",
        "PositiveBigIntegerField": "long",
        "SmallAutoField": "int",
    }
    # The operators of regular expressions are left out. Django then calls `regex_lookup`, which raises
    # NotSupportedError.
    operators = {name: sql for name, sql in base.DatabaseWrapper.operators.items() if "regex" not in name}
    SchemaEditorClass = DatabaseSchemaEditor
    creation_class = DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        return dict(self.settings_dict["CLIENT"])

    def get_new_connection(self, connection_params: dict[str, Any]) -> Database[Document]:
        with database_errors():
            self.client_connection = process_client(connection_params)
            return self.client_connection[self.settings_dict["NAME"]]

    def create_cursor(self, name: str | None = None) -> MongoCursor:
        # Look up the client for each cursor, because this process may be the child of a fork and need its own client.
        self.connection = self.get_new_connection(self.get_connection_params())
        return MongoCursor(self.client_connection, self.connection, self.djongo_connection)

    def fetch_directly(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = self.create_cursor()
        cursor.execute(sql, params)
        return cursor.fetchall()

    def _close(self) -> None:
        """Keep the client open, because other threads use it."""

    def close_pool(self) -> None:
        """Close this process's connections. The next query opens new ones."""
        self.close()
        close_clients()

    def _start_transaction_under_autocommit(self) -> None:
        """Do nothing. Without this method, Django would log a BEGIN that reaches no server."""

    def _rollback(self) -> None:
        """Do nothing. Code that must not leave partial writes checks `features.supports_transactions`."""

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Convert pymongo's exceptions to Django's, for code without a cursor."""
        with self.wrap_database_errors, database_errors():
            yield
