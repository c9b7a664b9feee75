"""Compiles Django expressions for document paths and pairs to SQL that only this engine supports (sql.py)."""

from typing import Any

from django.db import NotSupportedError
from django.db.models.expressions import OrderBy
from django.db.models.fields.json import DataContains, HasKeyLookup, JSONField, JSONIContains, KeyTransform
from django.db.models.fields.tuple_lookups import TupleGreaterThan, TupleLessThan
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual

CompiledSQL = tuple[str, list[Any]]


def stores_pairs(expression: Any) -> bool:
    return getattr(expression.output_field, "stores_pairs", False)


def key_transform(self: KeyTransform, compiler: Any, connection: Any) -> CompiledSQL:
    column, params, keys = self.preprocess_lhs(compiler, connection)
    previous: Any = self.lhs
    while isinstance(previous, KeyTransform):
        previous = previous.lhs
    if not stores_pairs(previous):
        return f"{column}{' -> %s' * len(keys)}", [*params, *keys]
    if len(keys) > 1:
        raise NotSupportedError("MongoDB: the values of pairs have no keys")
    return f"PAIR({column}, %s)", [*params, *keys]


def data_contains(self: DataContains, compiler: Any, connection: Any) -> CompiledSQL:
    if not stores_pairs(self.lhs):
        raise NotSupportedError("MongoDB: 'contains' is for fields of pairs")
    column, params = self.process_lhs(compiler, connection)
    value, value_params = self.process_rhs(compiler, connection)
    return f"{column} @> {value}", [*params, *value_params]


def json_icontains(self: JSONIContains, compiler: Any, connection: Any) -> CompiledSQL:
    """Compile a search for text in the keys and values of a field of pairs."""
    if not stores_pairs(self.lhs):
        raise NotSupportedError("MongoDB: 'icontains' is for fields of pairs, and for texts in documents")
    column, params = compiler.compile(self.lhs)
    _, (pattern,) = self.process_rhs(compiler, connection)
    condition = f"({column} -> %s ILIKE %s OR {column} -> %s ILIKE %s)"
    return condition, [*params, "k", pattern, *params, "v", pattern]


def has_key(self: HasKeyLookup, compiler: Any, connection: Any) -> CompiledSQL:
    raise NotSupportedError(f"MongoDB: no {self.lookup_name!r}; KEY__isnull=False says the same")


def tuple_comparison(self: TupleGreaterThan | TupleLessThan, compiler: Any, connection: Any) -> CompiledSQL:
    """Compile (a, b) > (x, y), the start of a page, to a >= x AND (a > x OR (a = x AND b > y)).

    Without the first condition, the server would scan the index from its start.
    """
    (column, *_), (value, *_) = tuple(self.lhs), tuple(self.rhs)
    bound = (GreaterThanOrEqual if isinstance(self, TupleGreaterThan) else LessThanOrEqual)(column, value)
    bound_sql, bound_params = compiler.compile(bound)
    sql, params = self.get_fallback_sql(compiler, connection)
    return f"({bound_sql} AND {sql})", [*bound_params, *params]


def order_by(self: OrderBy, compiler: Any, connection: Any) -> CompiledSQL:
    expression: Any = self.expression
    if isinstance(expression.output_field, JSONField):
        raise NotSupportedError("MongoDB does not order documents as text")
    sql, params = self.as_sql(compiler, connection)
    return sql, list(params)


def register_lookups() -> None:
    """Register each function as the method `as_djongo` of its expression.

    Django calls this method instead of `as_sql` if the connection's vendor is "djongo".
    """
    methods = {
        KeyTransform: key_transform,
        DataContains: data_contains,
        HasKeyLookup: has_key,
        JSONIContains: json_icontains,
        OrderBy: order_by,
        TupleGreaterThan: tuple_comparison,
        TupleLessThan: tuple_comparison,
    }
    for node, method in methods.items():
        setattr(node, "as_djongo", method)  # noqa: B010
