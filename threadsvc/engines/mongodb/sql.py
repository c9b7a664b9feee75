"""A parser for the SQL that Django writes for one table. It replaces djongo's parser (`djongo.sql2mongo`).

djongo skips tokens that it does not know, so conditions are lost and queries return wrong rows. This parser parses a
whole statement or raises NotSupportedError (joins, DISTINCT, HAVING, functions, expressions).
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from django.db import NotSupportedError

from threadsvc.engines.base import MAX_CACHED_CHARACTERS
from threadsvc.engines.mongodb import statements

_TOKENS = re.compile(
    r'\s*(?:"(?P<name>[^"]+)"|(?P<param>%s)|(?P<number>\d+)|(?P<word>[A-Za-z_]\w*)'
    r"|(?P<sign>->|@>|<=|>=|<>|!=|[=<>(),.*]))"
)


class Token(NamedTuple):
    kind: str  # name, param, number, word, sign, or end
    text: str


END = Token("end", "")
AGGREGATES = ("COUNT", "MAX", "MIN")


def read(sql: str) -> statements.SQLStatement:
    """Return the parsed statement. Raises NotSupportedError for SQL that MongoDB or this parser does not support."""
    return _read_cached(sql) if len(sql) <= MAX_CACHED_CHARACTERS else Reader(sql).statement()


@lru_cache(maxsize=1024)
def _read_cached(sql: str) -> statements.SQLStatement:
    return Reader(sql).statement()


class Reader:
    """A recursive descent parser of one statement."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = list(self.split(sql))
        self.at = 0
        self.params = 0
        self.names: set[str] = set()  # names that can qualify a column of the table

    def split(self, sql: str) -> Iterator[Token]:
        end = 0
        while match := _TOKENS.match(sql, end):
            end = match.end()
            kind = str(match.lastgroup)
            text = match[kind]
            yield Token(kind, text.upper() if kind == "word" else text)
        if sql[end:].strip():
            self.refuse(sql[end : end + 20])
        yield END

    def refuse(self, what: str) -> NoReturn:
        raise NotSupportedError(f"MongoDB cannot do {what or 'the end'!r} in: {self.sql[:1000]}")

    # Parsing steps

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self, *texts: str) -> bool:
        """Consume these words or signs if they come next. Return whether they did."""
        for offset, text in enumerate(texts):
            token = self.tokens[min(self.at + offset, len(self.tokens) - 1)]
            if token.kind not in ("word", "sign") or token.text != text:
                return False
        self.at += len(texts)
        return True

    def need(self, *texts: str) -> None:
        if not self.take(*texts):
            self.refuse(self.next.text)

    def kind(self, kind: str) -> str:
        token = self.next
        if token.kind != kind:
            self.refuse(token.text)
        self.at += 1
        return token.text

    def listed(self, read: Callable[[], Any]) -> list[Any]:
        found = [read()]
        while self.take(","):
            found.append(read())
        return found

    # Statements

    def statement(self) -> statements.SQLStatement:
        kinds = {"SELECT": self.select, "INSERT": self.insert, "UPDATE": self.update, "DELETE": self.delete}
        word = self.kind("word")
        if word not in kinds:
            self.refuse(word)
        statement = kinds[word]()
        if self.next is not END:
            self.refuse(self.next.text)
        return statement

    def select(self) -> statements.SelectStatement:
        # To check that the selected columns belong to the table, the parser needs the table's name. It therefore skips
        # to FROM, reads the name, and then returns to the items.
        start, depth = self.at, 0
        while self.next is not END and not (depth == 0 and self.next == Token("word", "FROM")):
            depth += {"(": 1, ")": -1}.get(self.next.text, 0)
            self.at += 1
        self.need("FROM")
        if self.take("(", "SELECT"):
            return self.counted(start)
        outer = self.names
        table = self.table()
        after, self.at = self.at, start
        select = statements.SelectStatement(table, items=self.listed(self.select_item))
        self.need("FROM")
        self.at = after
        if self.take("WHERE"):
            select.where = self.either()
        if self.take("GROUP", "BY"):
            select.group = self.column_of(select.items)
        # Besides aggregates, only the column of GROUP BY may be selected.
        others = (item for item in select.items if item.function or item.column is None or item.column != select.group)
        aggregates = [item.function for item in others]
        if any(aggregates) and not all(aggregates):
            self.refuse("SELECT of rows and aggregates")
        if select.group and not any(aggregates):
            self.refuse("GROUP BY")
        if self.take("ORDER", "BY"):
            select.order = self.listed(lambda: self.ordering(select.items))
        if self.take("LIMIT"):
            select.limit = int(self.kind("number"))
            if not select.limit:
                self.refuse("LIMIT 0")
        if self.take("OFFSET"):
            select.offset = int(self.kind("number"))
        if any(aggregates) and (select.limit or select.offset or select.order):
            self.refuse("LIMIT of aggregates")
        self.names = outer
        return select

    def counted(self, start: int) -> statements.SelectStatement:
        """Parse SELECT COUNT(*) FROM (SELECT ...) name."""
        inner = self.select()
        self.need(")")
        self.kind("word")
        after, self.at = self.at, start
        items = self.listed(self.select_item)
        self.need("FROM")
        self.at = after
        if [(item.function, item.column) for item in items] != [("COUNT", None)]:
            self.refuse("FROM (SELECT")
        if any(item.function for item in inner.items):
            self.refuse("FROM (SELECT COUNT")
        return statements.SelectStatement(inner.table, items=items, inner=inner)

    def table(self) -> str:
        name = self.kind("name")
        self.names = {name}
        if self.next.kind == "word" and re.fullmatch(r"[A-Z]\d+", self.next.text):
            self.names = {self.kind("word")}  # Django's alias for a table in a subquery
        return name

    def select_item(self) -> statements.SelectItem:
        if self.next.kind in ("param", "number"):
            item = statements.SelectItem(constant=self.value())
        elif self.next.kind == "word" and self.next.text in AGGREGATES:
            function = self.kind("word")
            self.need("(")
            column = None if function == "COUNT" and self.take("*") else self.column().name
            self.need(")")
            item = statements.SelectItem(column, function=function)
        else:
            item = statements.SelectItem(self.column().name)
        if self.take("AS"):
            self.kind("name")
        return item

    def ordering(self, items: list[statements.SelectItem]) -> tuple[str, int]:
        column = self.column_of(items)
        descending = not self.take("ASC") and self.take("DESC")
        return column, -1 if descending else 1

    def column_of(self, items: list[statements.SelectItem]) -> str:
        """Parse a column, which is given by its name or by its number in the SELECT."""
        if self.next.kind != "number":
            return self.column().name
        number = int(self.kind("number"))
        item = items[number - 1] if 0 < number <= len(items) else statements.SelectItem()
        if item.column is None or item.function:
            self.refuse(str(number))
        return item.column

    def insert(self) -> statements.InsertStatement:
        self.need("INTO")
        table = self.table()
        self.need("(")
        columns = self.listed(lambda: self.kind("name"))
        self.need(")", "VALUES")
        rows = self.listed(self.row)
        returning = [column.name for column in self.listed(self.column)] if self.take("RETURNING") else []
        if any(len(row) != len(columns) for row in rows):
            self.refuse("VALUES")
        return statements.InsertStatement(table, columns, rows, returning)

    def row(self) -> list[statements.Value]:
        self.need("(")
        values = self.listed(self.value)
        self.need(")")
        return values

    def update(self) -> statements.UpdateStatement:
        table = self.table()
        self.need("SET")
        values = self.listed(self.assignment)
        return statements.UpdateStatement(table, self.either() if self.take("WHERE") else None, values)

    def assignment(self) -> tuple[str, statements.Value]:
        column = self.kind("name")
        self.need("=")
        return column, self.value()

    def delete(self) -> statements.DeleteStatement:
        self.need("FROM")
        table = self.table()
        return statements.DeleteStatement(table, self.either() if self.take("WHERE") else None)

    # Conditions

    def either(self) -> statements.Condition:
        parts = [self.both()]
        while self.take("OR"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else statements.Junction(tuple(parts), either=True)

    def both(self) -> statements.Condition:
        parts = [self.term()]
        while self.take("AND"):
            parts.append(self.term())
        return parts[0] if len(parts) == 1 else statements.Junction(tuple(parts))

    def term(self) -> statements.Condition:
        if self.take("NOT"):
            return statements.Not(self.term())
        if self.take("("):
            condition = self.either()
            self.need(")")
            return condition
        return self.comparison(self.operand())

    def comparison(self, operand: statements.Operand) -> statements.Condition:
        if self.take("IS", "NULL"):
            return statements.IsNull(operand, negated=False)
        if self.take("IS", "NOT", "NULL"):
            return statements.IsNull(operand, negated=True)
        if self.take("IN", "("):
            values = self.select() if self.take("SELECT") else tuple(self.listed(self.value))
            if isinstance(values, statements.SelectStatement) and (
                len(values.items) != 1 or values.items[0].column is None
            ):
                self.refuse("IN (SELECT")
            self.need(")")
            return statements.In(operand, values)
        if self.take("BETWEEN"):
            low = statements.Comparison(operand, ">=", self.value())
            self.need("AND")
            return statements.Junction((low, statements.Comparison(operand, "<=", self.value())))
        for word, any_case in (("LIKE", False), ("ILIKE", True)):
            if self.take(word):
                return statements.Like(operand, self.value(), any_case)
        if isinstance(operand, statements.Column) and self.take("@>"):
            return statements.HasPairs(operand, self.value())
        operator = self.kind("sign")
        if operator not in ("=", *statements.ORDERED):
            self.refuse(operator)
        return statements.Comparison(operand, operator, self.value())

    def operand(self) -> statements.Operand:
        if self.take("PAIR", "("):
            column = self.column()
            self.need(",")
            pair = statements.Pair(column.name, self.value())
            self.need(")")
            return pair
        column = self.column()
        keys = []
        while self.take("->"):
            keys.append(self.value())
        return statements.Column(column.name, tuple(keys))

    def column(self) -> statements.Column:
        """Parse a column of this statement's own table, not of a joined or outer table."""
        table = self.next
        self.at += 1
        if table.kind not in ("name", "word") or table.text not in self.names:
            self.refuse(table.text)
        self.need(".")
        return statements.Column(self.kind("name"))

    def value(self) -> statements.Value:
        if self.next.kind == "param":
            self.at += 1
            self.params += 1
            return statements.Value(self.params - 1)
        if self.next.kind == "number":
            return statements.Value(None, int(self.kind("number")))
        self.need("NULL")
        return statements.Value(None, None)
