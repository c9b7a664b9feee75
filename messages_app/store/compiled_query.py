"""Compiled queries: the ORM compiles a query once, and each run only fills in values.

Compiling a query takes longer than running it in the database.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from messages_app.store.engine import connection_to

# Placeholders for values during compilation. No constant of a query equals a placeholder.
_TEXT = "\0{}"
_NUMBER = 2**62


class Parameter:
    """A placeholder in a statement for the value with this name."""

    def __init__(self, name: str) -> None:
        self.name = name


class CompiledStatement:
    """An SQL statement and its parameters. Each run replaces the Parameters among them with values."""

    def __init__(self, sql: str, params: Sequence[Any]) -> None:
        self.sql, self.params = sql, params

    def rows(self, database: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows without conversion, as the database returns them. One query."""
        params = [values[param.name] if isinstance(param, Parameter) else param for param in self.params]
        return connection_to(database).fetch_all(self.sql, params)


class CompiledQuery:
    """A query for whole rows, or for some columns (`values_list`).

    `kinds` contains the names and types of the query's values. The types are str and int, which need no conversion.
    `build` takes the values as keyword arguments and returns the query. `rows` takes the same keyword arguments. The
    values must not change the form of the query.
    """

    def __init__(self, build: Callable[..., models.QuerySet[Any, Any]], **kinds: type) -> None:
        stand_ins: dict[str, Any] = {
            name: _TEXT.format(name) if kind is str else _NUMBER + number
            for number, (name, kind) in enumerate(kinds.items())
        }
        names = {value: name for name, value in stand_ins.items()}
        query = build(**stand_ins)
        compiler = query.query.get_compiler(query.db)
        sql, params = compiler.as_sql()
        self.database = query.db
        self.statement = CompiledStatement(
            sql,
            [Parameter(names[param]) if isinstance(param, str | int) and param in names else param for param in params],
        )
        columns = [column for column, _, _ in compiler.select]
        self.converters = [
            (index, rebindable(convert, connections[query.db]), expression)
            for index, (converters, expression) in compiler.get_converters(columns).items()
            for convert in converters
        ]
        self.model: Any = query.model if query.query.default_cols else None
        self.attributes = [column.target.attname for column in columns if self.model]

    def rows(self, **values: Any) -> list[Any]:
        """Return the rows, or lists of column values for `values_list`. One query."""
        # No stored text contains U+0000, so no row matches it. PostgreSQL would reject the query.
        if any(isinstance(value, str) and "\0" in value for value in values.values()):
            return []
        rows = list(map(list, self.statement.rows(self.database, values)))
        if rows:
            connection = connections[self.database]
            for index, convert, expression in self.converters:
                convert_here = convert(connection)
                for row in rows:
                    row[index] = convert_here(row[index], expression, connection)
        model = self.model
        return rows if model is None else [model.from_db(self.database, self.attributes, row) for row in rows]


def rebindable(convert: Callable[..., Any], connection: BaseDatabaseWrapper) -> Callable[[Any], Callable[..., Any]]:
    """Return a function that takes a connection and returns the converter for that connection.

    Each Python thread has its own connection. A converter that is a method of `connection.ops` would keep the
    connection that compiled the query, even after the Python thread of this connection has ended.
    """
    if getattr(convert, "__self__", None) is connection.ops:
        return attrgetter(f"ops.{convert.__name__}")
    return lambda _: convert
