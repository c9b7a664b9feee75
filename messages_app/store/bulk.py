"""Bulk INSERT of rows and bulk SELECT of columns.

On SQLite, Django's `bulk_create` takes several times as long as the INSERT statements that it runs, because it converts
each value separately. This module converts all values of a column together, which is faster.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, CharField, DateTimeField, Model, PositiveBigIntegerField, QuerySet
from django.db.models.sql import InsertQuery

from messages_app.models import Message, Thread, ThreadPair
from messages_app.models.fields import DocumentField, json_values
from messages_app.store.engine import connection_to

# Drivers accept the values of these fields without conversion.
PLAIN_FIELDS = (CharField, PositiveBigIntegerField)


def insert(model: type[Thread | ThreadPair | Message], rows: Iterable[Model], database: str) -> int:
    """Store unsaved rows of a model and return their number.

    SQLite runs one prepared statement for each row (executemany). PostgreSQL and MongoDB accept many rows in one
    statement (`bulk_create`). On PostgreSQL, psycopg's executemany would also log a warning for each rejected row.
    """
    if connection_to(database).features.prefers_executemany:
        return _insert_into(model, database).run(list(rows))
    manager: Any = model.objects
    return len(manager.using(database).bulk_create(rows))


class _Insert:
    """The INSERT statement for whole rows of a model, without automatic keys, which the database generates."""

    def __init__(self, model: type[Model], database: str) -> None:
        self.model, self.database = model, database
        self.fields = [field for field in model._meta.concrete_fields if not isinstance(field, AutoField)]
        self.values_of = itemgetter(*(field.attname for field in self.fields))
        self.statements: dict[tuple[str, ...], str] = {}

    def run(self, rows: Sequence[Model]) -> int:
        connection = connections[self.database]
        columns = zip(*(self.values_of(row.__dict__) for row in rows), strict=True)
        # Omit columns that are NULL in every row: binding NULLs is slow.
        given = [
            (field, values)
            for field, values in zip(self.fields, columns, strict=bool(rows))
            if not field.null or values.count(None) < len(rows)
        ]
        if given:
            values = [prepared(field, values, connection) for field, values in given]
            with connection.cursor() as cursor:
                cursor.executemany(self.sql([field for field, _ in given]), list(zip(*values, strict=True)))
        for row in rows:
            row._state.adding, row._state.db = False, self.database
        return len(rows)

    def sql(self, fields: Sequence[Any]) -> str:
        names = tuple(field.name for field in fields)
        if names not in self.statements:
            query = InsertQuery(self.model)
            query.insert_values(fields, [self.model()])
            ((self.statements[names], _),) = query.get_compiler(self.database).as_sql()
        return self.statements[names]


@lru_cache
def _insert_into(model: type[Model], database: str) -> _Insert:
    return _Insert(model, database)


def prepared(field: Any, values: Sequence[Any], connection: BaseDatabaseWrapper) -> Sequence[Any]:
    """Return the values of a column in SQLite's stored form. The field's own conversion returns the same values."""
    if isinstance(field.target_field if field.is_relation else field, PLAIN_FIELDS):
        return values
    if isinstance(field, DocumentField):
        ops: Any = connection.ops
        return [ops.adapt_document(value, field.encoder) for value in values]
    zone = connection.timezone
    if isinstance(field, DateTimeField) and all(value and value.tzinfo is zone is UTC for value in values):
        # Django writes the same text but takes ten times as long, because it converts the time zone of each value.
        texts = orjson.dumps(values).decode()[len('["') : -len('"]')]
        return texts.replace("T", " ").replace("+00:00", "").split('","')
    return [field.get_db_prep_save(value, connection) for value in values]


def select(query: QuerySet[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the same rows as `values_list` with these columns, but faster. One query."""
    connection = connections[query.db]
    rows = query.values_list(*names)
    fields = [query.model._meta.get_field(name) for name in names]
    sql, params = rows.query.get_compiler(query.db).as_sql()
    columns: list[Sequence[Any]] = list(zip(*connection_to(query.db).fetch_all(sql, params), strict=True))
    restored_columns = (restored(*column, connection) for column in zip(fields, columns, strict=bool(columns)))
    return list(zip(*restored_columns, strict=True))


def restored(field: Any, values: Sequence[Any], connection: BaseDatabaseWrapper) -> Sequence[Any]:
    """Convert the stored values of a column to Python values. This is the inverse of `prepared`, on any engine."""
    if isinstance(field.target_field if field.is_relation else field, PLAIN_FIELDS):
        return values
    if isinstance(field, DocumentField) and not connection.features.has_native_json_field:
        return json_values(values)
    column = field.get_col(field.model._meta.db_table)
    for convert in connection.ops.get_db_converters(column) + field.get_db_converters(connection):
        values = [convert(value, column, connection) for value in values]
    return values
