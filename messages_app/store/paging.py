"""Cursor pagination for lists.

A cursor is the id of a row. A page starts at this row's position in an index. Reading a page therefore takes the same
time at the start and at the end of a list, and in short and long lists. Source: threads-api contract, "Lists".
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from django.db.models import F, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan

from messages_app.store.errors import Kind, UnknownCursor

# The values of the columns that sort a list. Positions are compared from left to right.
Position = tuple[Any, ...]

Rows = TypeVar("Rows", bound=QuerySet[Any, Any])


class PageRequest(NamedTuple):
    """A request for at most `limit` rows after the row with the id `after` and before the row with the id `before`."""

    limit: int
    descending: bool
    after: str | None = None
    before: str | None = None


class Window(NamedTuple):
    """The first `limit` rows between the positions `low` and `high`, in ascending or descending order.

    None means unbounded.
    """

    low: Any
    high: Any
    descending: bool
    limit: int | None


class Page(NamedTuple):
    rows: list[Any]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        return self.rows[0].id if self.rows else None

    @property
    def last_id(self) -> str | None:
        return self.rows[-1].id if self.rows else None


class Listing(Protocol):
    """An ordered list of rows with ids."""

    @property
    def kind(self) -> Kind: ...

    def positions(self, ids: Iterable[str]) -> Mapping[str, Any]:
        """Return the positions of those ids that have one. One query."""

    def rows(self, window: Window) -> list[Any]:
        """Return the rows of a window. One query."""


def page_of(listing: Listing, page: PageRequest) -> Page:
    """Return a page of a list. One query, plus one if there are cursors. Raises UnknownCursor."""
    cursors = {name: value for name in ("after", "before") if (value := getattr(page, name)) is not None}
    positions = listing.positions(cursors.values()) if cursors else {}
    if unknown := [name for name, cursor in cursors.items() if cursor not in positions]:
        raise UnknownCursor(listing.kind, unknown)
    after, before = (None if cursor is None else positions[cursor] for cursor in (page.after, page.before))
    low, high = (before, after) if page.descending else (after, before)
    # With `before` but no `after`, the page shows the rows nearest to the cursor. Read backwards from the cursor, and
    # reverse the rows.
    backwards = before is not None and after is None
    # Read one more row than the page shows, to see whether more rows follow.
    found = listing.rows(Window(low, high, page.descending != backwards, page.limit + 1))
    shown = found[: page.limit]
    return Page(shown[::-1] if backwards else shown, has_more=len(found) > len(shown))


class FileList(list[Any]):
    """The list of a message's files, in ascending order and without repeated ids."""

    kind: Kind = "file"

    def positions(self, ids: Iterable[str]) -> dict[str, int]:
        positions = {row.id: position for position, row in enumerate(self)}
        return {public_id: positions[public_id] for public_id in ids if public_id in positions}

    def rows(self, window: Window) -> list[Any]:
        rows = self[0 if window.low is None else window.low + 1 : window.high]
        return (rows[::-1] if window.descending else rows)[: window.limit]


def in_window(rows: Rows, window: Window) -> Rows:
    """Return the query for the rows in a window, in the order of the list. The window's positions are tuples."""
    order: tuple[str, ...] = rows.order  # type: ignore[attr-defined]  # every OrderedQuerySet has this attribute
    columns = Tuple(*map(F, order))
    if window.low is not None:
        rows = rows.filter(TupleGreaterThan(columns, window.low))
    if window.high is not None:
        rows = rows.filter(TupleLessThan(columns, window.high))
    return rows.order_by(*(f"-{column}" if window.descending else column for column in order))[: window.limit]
