"""Queries that the ORM compiles once and that are kept: building one anew takes longer than a database to answer it.

What a query is and what its columns mean is said in the ORM's words, once; each run only fills its values in.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

# Stand-ins, which no constant of a query is equal to.
_TEXT = "\0{}"
_NUMBER = 2**62


class Statement:
    """SQL with places for values, by their names. What has no name is a constant of the query."""

    def __init__(self, sql: str, params: Sequence[Any]) -> None:
        self.sql, self.params = sql, params

    def run(self, connection: Any, params: Sequence[Any]) -> list[Any]:
        """The rows, as the database gives them."""
        rows: list[Any] = connection.fetch_all(self.sql, params)
        return rows

    def filled_in(self, values: dict[str, Any]) -> list[Any]:
        return [values[param.name] if isinstance(param, Named) else param for param in self.params]


class Named:
    """The place of a value."""

    def __init__(self, name: str) -> None:
        self.name = name


class KeptQuery:
    """A query for whole rows, or of single columns (`values_list`), compiled when it is first run.

    `build` makes it of one argument for each of `kinds` (str or int: what a column takes without conversion); the
    values of a run have the same names. What the values are must not change the query's form.
    """

    def __init__(self, build: Callable[..., models.QuerySet[Any, Any]], **kinds: type) -> None:
        self.build, self.kinds = build, kinds

    @cached_property
    def compiled(self) -> "Compiled":
        return Compiled(self.build, self.kinds)

    @property
    def database(self) -> str:
        database: str = self.compiled.database
        return database

    def rows(self, **values: Any) -> list[Any]:
        """The rows; of `values_list`, lists. One query."""
        return self.compiled.rows(values)


class Compiled:
    """A query as its database is asked it."""

    def __init__(self, build: Callable[..., Any], kinds: dict[str, type]) -> None:
        stand_ins: dict[str, Any] = {
            name: _TEXT.format(name) if kind is str else _NUMBER + number
            for number, (name, kind) in enumerate(kinds.items())
        }
        names = {value: name for name, value in stand_ins.items()}
        query = build(**stand_ins)
        compiler = query.query.get_compiler(query.db)
        sql, params = compiler.as_sql()
        named = [Named(names[param]) if isinstance(param, str | int) and param in names else param for param in params]
        self.database = query.db
        self.statement = Statement(sql, named)
        columns = [column for column, _, _ in compiler.select]
        self.converters = [
            (index, of_running(convert, connections[query.db]), expression)
            for index, (converters, expression) in compiler.get_converters(columns).items()
            for convert in converters
        ]
        self.model = query.model if query.query.default_cols else None
        self.attributes = [column.target.attname for column in columns if self.model]

    def rows(self, values: dict[str, Any]) -> list[Any]:
        # Nothing stored has a U+0000, and PostgreSQL refuses a query that has one.
        if any(isinstance(value, str) and "\0" in value for value in values.values()):
            return []
        connection = connections[self.database]
        found = self.statement.run(connection, self.statement.filled_in(values))
        rows = list(map(list, found))
        for index, convert, expression in self.converters:
            convert_here = convert(connection)
            for row in rows:
                row[index] = convert_here(row[index], expression, connection)
        model = self.model
        return rows if model is None else [model.from_db(self.database, self.attributes, row) for row in rows]


def of_running(convert: Callable[..., Any], connection: BaseDatabaseWrapper) -> Callable[[Any], Callable[..., Any]]:
    """What gives the same converter of the connection that runs a query: one of the connection that compiled it would
    hold that for good, though its thread has ended."""
    if getattr(convert, "__self__", None) is connection.ops:
        return attrgetter(f"ops.{convert.__name__}")
    return lambda _: convert
