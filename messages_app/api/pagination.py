"""Keyset pagination: which rows a page of a list has. Source: threads-api contract, "Lists".

A cursor is the id of a row. Its sort key is looked up, and the page is read from there in an index, so every page of
every list costs the same.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from messages_app.api.errors import Code, Fault, Faults

SortKey = Any  # a tuple of the column values that rows are ordered by


class Cursors(Protocol):
    """The rows that a cursor may name."""

    def places(self, public_ids: Iterable[str]) -> Mapping[str, SortKey]: ...


class Rows(Protocol):
    """The rows that a page may show."""

    def between(self, low: SortKey, high: SortKey, *, descending: bool, limit: int) -> list[Any]: ...


class Page(NamedTuple):
    rows: list[Any]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        return self.rows[0].id if self.rows else None

    @property
    def last_id(self) -> str | None:
        return self.rows[-1].id if self.rows else None


def page_of(rows: Rows, cursors: Cursors, unknown: Code, query: Mapping[str, Any]) -> Page:
    """Return the page that limit, order, after and before of `query` ask for. One query, two with a cursor.

    Raises Faults with the code `unknown` (422) for each cursor that names no row.
    """
    named = {name: query[name] for name in ("after", "before") if query[name] is not None}
    places = cursors.places(named.values()) if named else {}
    faults = [Fault(unknown, (name,)) for name, public_id in named.items() if public_id not in places]
    if faults:
        raise Faults(faults, root="query")
    after, before = (places.get(query[name]) for name in ("after", "before"))
    descending = query["order"] == "desc"
    low, high = (before, after) if descending else (after, before)
    # With `before` alone the page has the rows nearest to it: read backwards from there, then reverse.
    backwards = before is not None and after is None
    # One row more than the limit, to see whether there are more.
    found = rows.between(low, high, descending=descending != backwards, limit=query["limit"] + 1)
    shown = found[: query["limit"]]
    return Page(shown[::-1] if backwards else shown, has_more=len(found) > len(shown))


class Listed(list[Any]):
    """Rows in memory, in ascending order, with unique ids."""

    def places(self, public_ids: Iterable[str]) -> dict[str, SortKey]:
        places = {row.id: (number,) for number, row in enumerate(self)}
        return {public_id: places[public_id] for public_id in public_ids if public_id in places}

    def between(self, low: SortKey, high: SortKey, *, descending: bool, limit: int) -> list[Any]:
        first = 0 if low is None else low[0] + 1
        rows = self[first : None if high is None else high[0]]
        return (rows[::-1] if descending else rows)[:limit]
