"""SQL statements for MongoDB: conditions become filters, and statements become commands.

Conditions have SQL's three-valued logic: a comparison with NULL is neither true nor false, and its negation is neither
as well. MongoDB's `$nor` would be true in this case. NOT is therefore pushed down to the comparisons, which can negate
themselves.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from bson import ObjectId
from django.apps import apps
from django.db import DataError, NotSupportedError
from pymongo import ReturnDocument
from pymongo.database import Database

Document = dict[str, Any]
Params = Sequence[Any]

NO_ROW: Document = {"_id": {"$in": []}}

MAX_EXPRESSION_BYTES = 16_000  # for a regular expression; the server's limit is slightly higher

# djongo's collection for metadata about other collections. This engine stores the last automatic key of each collection
# in it.
SCHEMA_COLLECTION = "__schema__"


class ResultSet(NamedTuple):
    """The rows of a statement, and the number of rows that it changed (-1 for a SELECT)."""

    rows: Iterator[tuple[Any, ...]]
    rowcount: int = -1
    close: Callable[[], None] = lambda: None


# Values


@dataclass(frozen=True)
class Value:
    """A parameter of the statement, given by its number, or a constant."""

    index: int | None
    constant: Any = None

    def of(self, params: Params) -> Any:
        return self.constant if self.index is None else params[self.index]


_HEX_OBJECT_ID = re.compile("[0-9a-f]{24}")


def to_bson(column: str, value: Any) -> Any:
    """Convert a valid `_id` to an ObjectId. Any other value is returned unchanged, and equals no stored `_id`."""
    return ObjectId(value) if column == "_id" and isinstance(value, str) and _HEX_OBJECT_ID.fullmatch(value) else value


def from_bson(value: Any) -> Any:
    return str(value) if isinstance(value, ObjectId) else value


def is_field_name(key: Any) -> bool:
    """Return whether MongoDB reads a key as a field name, not as a path or an operator."""
    return isinstance(key, str) and bool(key) and "." not in key and not key.startswith("$") and "\0" not in key


# Operands


@dataclass(frozen=True)
class Column:
    """A field of the document. With `keys`, it is a path into the field, and the path traverses arrays."""

    name: str
    keys: tuple[Value, ...] = ()

    def value(self, value: Any) -> Any:
        return to_bson(self.name, value)

    def where(self, condition: Document, params: Params) -> Document:
        return {self.path(params): condition}

    def equal(self, value: Any, params: Params) -> Document:
        """Return the short form of `$eq`, which some servers need in order to use an index. `value` is a scalar."""
        return {self.path(params): value}

    def is_null(self, params: Params, negated: bool) -> Document:
        return {self.path(params): {"$ne": None} if negated else None}

    def path(self, params: Params) -> str:
        keys = [key.of(params) for key in self.keys]
        for key in keys:
            if not is_field_name(key):
                raise NotSupportedError(f"MongoDB has no path to the key {key!r}")
        return ".".join([self.name, *keys])


@dataclass(frozen=True)
class Pair:
    """The value of a key in a field that holds [{"k": key, "v": value}, ...]. Any string may be a key."""

    name: str
    key: Value

    def value(self, value: Any) -> Any:
        return value

    def equal(self, value: Any, params: Params) -> Document:
        return self.where({"$eq": value}, params)

    def where(self, condition: Document, params: Params) -> Document:
        return {self.name: {"$elemMatch": {"k": {"$eq": self.key.of(params)}, "v": condition}}}

    def is_null(self, params: Params, negated: bool) -> Document:
        present = {"$elemMatch": {"k": {"$eq": self.key.of(params)}}}
        return {self.name: present if negated else {"$not": present}}


Operand = Column | Pair

# Conditions


class Condition(ABC):
    """A condition of WHERE. `filter` matches the rows for which it is true or, with `negated`, false."""

    @abstractmethod
    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document: ...


@dataclass(frozen=True)
class Junction(Condition):
    """Conditions that are joined with AND or, with `either`, OR.

    NOT is pushed down with De Morgan's laws, which hold in three-valued logic too.
    """

    parts: tuple[Condition, ...]
    either: bool = False

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        filters = [part.filter(params, negated, database) for part in self.parts]
        return {"$or": filters} if self.either != negated else all_of(filters)


def all_of(filters: list[Document]) -> Document:
    """Return a filter that joins these filters with AND.

    If no two of them share a field, they are merged into one document, because some servers only then use an index.
    """
    together: Document = {}
    for each in filters:
        if together.keys() & each.keys():
            return {"$and": filters}
        together |= each
    return together


@dataclass(frozen=True)
class Not(Condition):
    part: Condition

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        return self.part.filter(params, not negated, database)


@dataclass(frozen=True)
class IsNull(Condition):
    operand: Operand
    negated: bool

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        return self.operand.is_null(params, negated != self.negated)


# Each operator and its negation. MongoDB's ordered comparisons compare only values of one type, and none is true for
# null, as in SQL.
ORDERED = {"<": ("$lt", "$gte"), "<=": ("$lte", "$gt"), ">": ("$gt", "$lte"), ">=": ("$gte", "$lt")}


@dataclass(frozen=True)
class Comparison(Condition):
    operand: Operand
    operator: str
    right: Value

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        value = self.operand.value(self.right.of(params))
        if value is None:
            return NO_ROW
        if self.operator in ORDERED:
            if isinstance(value, dict | list) or (self.operand == Column("_id") and not isinstance(value, ObjectId)):
                raise NotSupportedError(f"MongoDB does not order by {value!r}")
            return self.operand.where({ORDERED[self.operator][negated]: value}, params)
        equal = (self.operator == "=") != negated
        if isinstance(value, dict | list):
            return self.whole(value, params, equal)
        return self.operand.equal(value, params) if equal else self.operand.where({"$nin": [value, None]}, params)

    def whole(self, value: Any, params: Params, equal: bool) -> Document:
        """Return a filter that compares with a whole document or array.

        `$eq` would also match an element of an array.
        """
        if not isinstance(self.operand, Column) or self.operand.keys:
            raise NotSupportedError("MongoDB compares whole documents with whole columns")
        path = f"${self.operand.name}"
        same: Document = {"$expr": {"$eq": [path, {"$literal": value}]}}
        return same if equal else {"$nor": [same], self.operand.name: {"$ne": None}}


@dataclass(frozen=True)
class In(Condition):
    """An IN condition with a list of values, or with a subquery, which runs first."""

    operand: Operand
    values: "tuple[Value, ...] | SelectStatement"

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        found: Iterable[Any]
        if isinstance(self.values, SelectStatement):
            found = (value for (value,) in self.values.run(database, params).rows)
        else:
            found = (value.of(params) for value in self.values)
        values = [self.operand.value(value) for value in found]
        known = [value for value in values if value is not None]
        if any(isinstance(value, dict | list) for value in known):
            raise NotSupportedError("MongoDB compares whole documents one at a time")
        if not negated:
            return self.operand.where({"$in": known}, params)
        if not values:
            return {}  # NOT IN with an empty list is true for every row, even for NULL
        return NO_ROW if len(known) < len(values) else self.operand.where({"$nin": [*known, None]}, params)


@dataclass(frozen=True)
class Like(Condition):
    """A LIKE condition: `%` matches any text, `_` any character, and a backslash escapes.

    No other character is special.
    """

    operand: Operand
    pattern: Value
    any_case: bool

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        pattern = self.pattern.of(params)
        if not isinstance(pattern, str):
            raise NotSupportedError(f"LIKE {pattern!r}")
        if self.operand == Column("_id"):
            found = self.object_ids(pattern)
            return {"$nor": [found]} if negated else found  # no document lacks an _id, so NULL needs no check
        found = {"$regex": regular_expression(pattern), "$options": "is" if self.any_case else "s"}
        if not negated:
            return self.operand.where(found, params)
        # A path can traverse arrays. `$nor` is then true only if no element matches the pattern.
        if isinstance(self.operand, Column):
            return {"$nor": [self.operand.where(found, params)], **self.operand.where({"$ne": None}, params)}
        return self.operand.where({"$not": found, "$ne": None}, params)

    def object_ids(self, pattern: str) -> Document:
        """Return a filter for ObjectIds by their first digits, as a range. No other pattern is supported."""
        start, wildcard = pattern[:-1], pattern[-1:]
        if wildcard != "%" or not re.fullmatch(r"(?:[^%_\\]|\\.)*", start, re.DOTALL):
            raise NotSupportedError("MongoDB finds an _id by its first digits only")
        digits = start.lower() if self.any_case else start
        if not re.fullmatch("[0-9a-f]{0,24}", digits):
            return NO_ROW
        return {"_id": {"$gte": ObjectId(digits.ljust(24, "0")), "$lte": ObjectId(digits.ljust(24, "f"))}}


def regular_expression(pattern: str) -> str:
    """Return the regular expression for a LIKE pattern."""
    signs = {"%": ".*", "_": "."}
    parts = (signs.get(part) or literally(part[-1]) for part in re.findall(r"\\.|.", pattern, re.DOTALL))
    expression = f"^{''.join(parts)}\\z".removeprefix("^.*").removesuffix(".*\\z")
    if len(expression.encode()) > MAX_EXPRESSION_BYTES:
        raise DataError("MongoDB: the text to look for is too long")
    return expression


def literally(character: str) -> str:
    """Return a regular expression for one character, valid in PCRE and in Java."""
    if character == "\0":  # U+0000 would end a BSON regular expression
        return r"\x00"
    is_sign = character.isascii() and character.isprintable() and not character.isalnum()
    return f"\\{character}" if is_sign else character


@dataclass(frozen=True)
class HasPairs(Condition):
    """The condition that a field of pairs contains all of these pairs."""

    column: Column
    pairs: Value

    def filter(self, params: Params, negated: bool, database: Database[Document]) -> Document:
        pairs = self.pairs.of(params)
        found = {"$all": pairs} if pairs else {"$ne": None}
        return self.column.where({"$not": found, "$ne": None} if negated else found, params)


# Statements


@dataclass(frozen=True)
class SelectItem:
    """An item of a SELECT: a column, a constant, or an aggregate (`function` of a column or `*`)."""

    column: str | None = None
    constant: Value | None = None
    function: str | None = None


class SQLStatement(ABC):
    table: str

    @abstractmethod
    def run(self, database: Database[Document], params: Params) -> ResultSet: ...


@cache
def columns_of(table: str) -> set[str]:
    """Return the columns of the table's model, or an empty set if no model has this table."""
    models = [model for model in apps.get_models() if model._meta.db_table == table]
    return {str(field.column) for model in models for field in model._meta.concrete_fields}


@dataclass
class FilteredStatement(SQLStatement):
    table: str
    where: Condition | None = None

    def filter(self, database: Database[Document], params: Params) -> Document:
        return {} if self.where is None else self.where.filter(params, False, database)


@dataclass
class SelectStatement(FilteredStatement):
    items: list[SelectItem] = field(default_factory=list)
    group: str | None = None  # the column of GROUP BY
    order: list[tuple[str, int]] = field(default_factory=list)
    limit: int = 0
    offset: int = 0
    inner: "SelectStatement | None" = None  # the inner SELECT of SELECT COUNT(*) FROM (SELECT ...)

    def run(self, database: Database[Document], params: Params) -> ResultSet:
        if self.inner is not None:
            return ResultSet(iter([(self.inner.number(database, params),)]))
        if self.group is None and [(item.function, item.column) for item in self.items] == [("COUNT", None)]:
            return ResultSet(iter([(self.number(database, params),)]))
        if any(item.function for item in self.items):
            return self.aggregated(database, params)
        columns = [item.column for item in self.items]
        found = database[self.table].find(
            self.filter(database, params), self.projection(columns), self.offset, self.limit, sort=self.order or None
        )
        constants = [item.constant.of(params) if item.constant else None for item in self.items]
        cells = list(zip(columns, constants, strict=True))
        rows = (
            tuple(constant if column is None else from_bson(document.get(column)) for column, constant in cells)
            for document in found
        )
        return ResultSet(rows, close=found.close)

    def projection(self, columns: list[str | None]) -> Document | None:
        """Return the projection to these columns, or None if they are all columns of the table. None is cheaper."""
        asked = {column: 1 for column in columns if column is not None} or {"_id": 1}
        if asked.keys() == columns_of(self.table):
            return None
        return asked if "_id" in asked else {**asked, "_id": 0}

    def number(self, database: Database[Document], params: Params) -> int:
        bounds: Any = {name: bound for name, bound in (("skip", self.offset), ("limit", self.limit)) if bound}
        return database[self.table].count_documents(self.filter(database, params), **bounds)

    def aggregated(self, database: Database[Document], params: Params) -> ResultSet:
        """Return a row for each value of the GROUP BY column.

        Without GROUP BY, returns a single row, even if nothing matches.
        """
        group: Document = {"_id": self.group and f"${self.group}"}
        for number, item in enumerate(self.items):
            path = f"${item.column}"
            if item.function == "COUNT":
                counted = 1 if item.column is None else {"$cond": [{"$gt": [path, None]}, 1, 0]}
                group[str(number)] = {"$sum": counted}
            elif item.function:
                group[str(number)] = {f"${item.function.lower()}": path}
        found = database[self.table].aggregate([{"$match": self.filter(database, params)}, {"$group": group}])
        empty = {str(number): 0 for number, item in enumerate(self.items) if item.function == "COUNT"}
        documents: Iterable[Document] = found
        if self.group is None:
            with found:
                documents = [next(found, empty)]
        names = [str(number) if item.function else "_id" for number, item in enumerate(self.items)]
        rows = (tuple(from_bson(document.get(name)) for name in names) for document in documents)
        return ResultSet(rows, close=found.close)


@dataclass
class InsertStatement(SQLStatement):
    table: str
    columns: list[str]
    rows: list[list[Value]]
    returning: list[str]

    def run(self, database: Database[Document], params: Params) -> ResultSet:
        documents = [
            {column: to_bson(column, value.of(params)) for column, value in zip(self.columns, row, strict=True)}
            for row in self.rows
        ]
        missing = [column for column in self.returning if column not in self.columns]
        if missing:
            (column,) = missing
            first = last_number(database, self.table, len(documents)) - len(documents) + 1
            for number, document in enumerate(documents, start=first):
                document[column] = number
        collection = database[self.table]
        if len(documents) == 1:
            collection.insert_one(documents[0])
        else:
            collection.insert_many(documents)
        returned = (tuple(from_bson(document[column]) for column in self.returning) for document in documents)
        return ResultSet(returned, len(documents))


def last_number(database: Database[Document], table: str, count: int) -> int:
    """Reserve the next `count` automatic keys of a table and return the last one."""
    updated: Any = database[SCHEMA_COLLECTION].find_one_and_update(
        {"name": table}, {"$inc": {"auto.seq": count}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return int(updated["auto"]["seq"])


@dataclass
class UpdateStatement(FilteredStatement):
    values: list[tuple[str, Value]] = field(default_factory=list)

    def run(self, database: Database[Document], params: Params) -> ResultSet:
        changes = {"$set": {column: to_bson(column, value.of(params)) for column, value in self.values}}
        result = database[self.table].update_many(self.filter(database, params), changes)
        return ResultSet(iter(()), result.matched_count)


@dataclass
class DeleteStatement(FilteredStatement):
    def run(self, database: Database[Document], params: Params) -> ResultSet:
        return ResultSet(iter(()), database[self.table].delete_many(self.filter(database, params)).deleted_count)
