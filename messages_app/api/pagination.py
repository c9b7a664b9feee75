"""Lists: which rows a page has. What may be asked for is read by serializers; rows and their order are the models'.

Every page starts at a place in an index, found by the cursor's id: it costs the same wherever it is in a list, and
however long the list is. Source: threads-api contract, "Lists".
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from messages_app.api.errors import Code, Fault, Faults

SortKey = Any  # what rows are ordered by: tuples of column values, compared from the left


class Cursors(Protocol):
    """Whatever a cursor may name."""

    def places(self, public_ids: Iterable[str]) -> Mapping[str, SortKey]: ...


class Rows(Protocol):
    """Whatever a page may show."""

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
    """The rows that limit, order, after and before of `query` ask for: one query, and one more where there are cursors.

    Raises Faults of code `unknown` for cursors that name nothing.
    """
    named = {name: query[name] for name in ("after", "before") if query[name] is not None}
    places = cursors.places(named.values()) if named else {}
    faults = [Fault(unknown, (name,)) for name, public_id in named.items() if public_id not in places]
    if faults:
        raise Faults(faults, root="query")
    after, before = (places.get(query[name]) for name in ("after", "before"))
    descending = query["order"] == "desc"
    low, high = (before, after) if descending else (after, before)
    # With `before` alone the page is what is nearest to it: read from there, and turned round.
    backwards = before is not None and after is None
    # One more than is shown tells whether there are more.
    found = rows.between(low, high, descending=descending != backwards, limit=query["limit"] + 1)
    shown = found[: query["limit"]]
    return Page(shown[::-1] if backwards else shown, has_more=len(found) > len(shown))


class Listed(list[Any]):
    """Rows that are in memory, in ascending order, each id once."""

    def places(self, public_ids: Iterable[str]) -> dict[str, SortKey]:
        places = {row.id: (number,) for number, row in enumerate(self)}
        return {public_id: places[public_id] for public_id in public_ids if public_id in places}

    def between(self, low: SortKey, high: SortKey, *, descending: bool, limit: int) -> list[Any]:
        first = 0 if low is None else low[0] + 1
        rows = self[first : None if high is None else high[0]]
        return (rows[::-1] if descending else rows)[:limit]
