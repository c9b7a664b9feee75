"""SQL that the ORM compiles once and that is kept: INSERT, for the rows of bulk commands, which are tuples.

An instance and its way through `bulk_create` cost several times what SQLite takes to store the row.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from functools import lru_cache
from operator import itemgetter
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, CharField, DateTimeField, Model, PositiveBigIntegerField
from django.db.models.sql import InsertQuery

from messages_app.documents import DocumentField, json_text

# What such a column holds is what drivers take.
PLAIN_FIELDS = (CharField, PositiveBigIntegerField)


class Insert:
    """INSERT of whole rows of a model; a key that the database makes is no part of them."""

    def __init__(self, model: type[Model], using: str) -> None:
        self.using = using
        self.fields = [field for field in model._meta.concrete_fields if not isinstance(field, AutoField)]
        query = InsertQuery(model)
        query.insert_values(self.fields, [model()])
        ((self.sql, _),) = query.get_compiler(using).as_sql()
        self._values_of = itemgetter(*(field.attname for field in self.fields))

    def rows(self, rows: Iterable[Sequence[Any]]) -> int:
        """Stores rows, which are the values of the model's columns in their order; returns their number."""
        connection = connections[self.using]
        columns = list(zip(*rows, strict=True))
        if not columns:
            return 0
        prepared = [
            map(prepare, column) if (prepare := preparation(field, connection)) else column
            for field, column in zip(self.fields, columns, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(self.sql, list(zip(*prepared, strict=True)))
        return len(columns[0])

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


def preparation(field: Any, connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    """What makes of a field's value what the driver takes, as the field itself does; None where that is the value."""

    def as_field(value: Any) -> Any:
        return field.get_db_prep_save(value, connection)

    def text_of_time(value: Any) -> Any:
        if value is None:
            return None
        # Django goes over the time zones, which takes five times as long.
        return value.isoformat(" ")[: -len("+00:00")] if value.tzinfo is UTC else as_field(value)

    if isinstance(field.target_field if field.is_relation else field, PLAIN_FIELDS):
        return None
    if isinstance(field, DocumentField) and not connection.features.has_native_json_field:
        return json_text
    if isinstance(field, DateTimeField) and connection.vendor == "sqlite" and connection.timezone is UTC:
        return text_of_time
    return as_field
