"""Rows of bulk commands, which are tuples: INSERT, as SQL that the ORM compiles once and that is kept, and SELECT.

Values are converted column by column. An instance and its way through `bulk_create` cost several times what SQLite
takes to store the row.
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

from messages_app.models.fields import DocumentField, json_values

# What such a column holds is what drivers take.
PLAIN_FIELDS = (CharField, PositiveBigIntegerField)


def takes_rows(using: str) -> bool:
    """Whether Insert is for this database.

    To PostgreSQL and MongoDB, `bulk_create` sends many rows in one statement; psycopg's executemany would also log a
    warning for each refusal.
    """
    connection: Any = connections[using]
    return bool(connection.features.prefers_executemany)


class Insert:
    """INSERT of whole rows of a model into SQLite; a key that the database makes is no part of them."""

    def __init__(self, model: type[Model], using: str) -> None:
        self.model, self.using = model, using
        self.fields = [field for field in model._meta.concrete_fields if not isinstance(field, AutoField)]
        self._values_of = itemgetter(*(field.attname for field in self.fields))
        self._sql: dict[tuple[str, ...], str] = {}

    def rows(self, rows: Iterable[Sequence[Any]]) -> int:
        """Stores rows, which are the values of the model's columns in their order; returns their number."""
        connection = connections[self.using]
        stored = list(rows)
        # What is NULL in all of them is so untold, and NULLs are dear: the driver looks each time for what adapts them.
        columns = [
            (field, values)
            for field, values in zip(self.fields, zip(*stored, strict=True), strict=bool(stored))
            if not field.null or values.count(None) < len(stored)
        ]
        if columns:
            sql = self.sql([field for field, _ in columns])
            values = [prepared(field, values, connection) for field, values in columns]
            with connection.cursor() as cursor:
                cursor.executemany(sql, list(zip(*values, strict=True)))
        return len(stored)

    def sql(self, fields: Sequence[Any]) -> str:
        """The statement for these columns."""
        names = tuple(field.name for field in fields)
        if names not in self._sql:
            query = InsertQuery(self.model)
            query.insert_values(fields, [self.model()])
            ((self._sql[names], _),) = query.get_compiler(self.using).as_sql()
        return self._sql[names]

    def instances(self, instances: Iterable[Model]) -> int:
        """Stores instances of the model that are not stored yet; returns their number."""
        stored = list(instances)
        self.rows(self._values_of(instance.__dict__) for instance in stored)
        for instance in stored:
            instance._state.adding, instance._state.db = False, self.using
        return len(stored)


@lru_cache
def insert_of(model: type[Model], using: str) -> Insert:
    return Insert(model, using)


def prepared(field: Any, values: Sequence[Any], connection: BaseDatabaseWrapper) -> Sequence[Any]:
    """What SQLite is given for these values of a field: what the field itself makes of them."""
    if isinstance(field.target_field if field.is_relation else field, PLAIN_FIELDS):
        return values
    if isinstance(field, DocumentField):
        ops: Any = connection.ops
        return [ops.adapt_document(value, field.encoder) for value in values]
    zone = connection.timezone
    if isinstance(field, DateTimeField) and all(value and value.tzinfo is zone is UTC for value in values):
        # As Django writes them, who goes over the time zone of each, which takes ten times as long.
        texts = orjson.dumps(values).decode()[len('["') : -len('"]')]
        return texts.replace("T", " ").replace("+00:00", "").split('","')
    return [field.get_db_prep_save(value, connection) for value in values]


def rows_of(query: QuerySet[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """What `values_list` gives of these columns, sooner. One query."""
    connection = connections[query.db]
    rows = query.values_list(*names)
    fields = [query.model._meta.get_field(name) for name in names]
    sql, params = rows.query.get_compiler(query.db).as_sql()
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        columns: list[Sequence[Any]] = list(zip(*cursor.fetchall(), strict=True))
    return list(
        zip(*(restored(*column, connection) for column in zip(fields, columns, strict=bool(columns))), strict=True)
    )


def restored(field: Any, values: Sequence[Any], connection: BaseDatabaseWrapper) -> Sequence[Any]:
    """The values of a field that were stored as these: what `prepared` undoes."""
    if isinstance(field.target_field if field.is_relation else field, PLAIN_FIELDS):
        return values
    if isinstance(field, DocumentField) and not connection.features.has_native_json_field:
        return json_values(values)
    column = field.get_col(field.model._meta.db_table)
    for convert in connection.ops.get_db_converters(column) + field.get_db_converters(connection):
        values = [convert(value, column, connection) for value in values]
    return values
