"""What the rows of threads and messages share: look-ups by public id, pages in a total order, changes of metadata."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from django.db import OperationalError, connections, models, transaction
from django.db.models import F
from django.db.models.base import ModelState
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan

from messages_app.store.engine import can_roll_back, pauses

MAX_METADATA_PAIRS = 16

Row = TypeVar("Row", bound=models.Model)


class QuickModel(models.Model):
    """A model whose rows are read without the signals and the constructor of Django's, which nobody here listens to."""

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Iterable[str], values: Iterable[Any], **_: Any) -> Self:
        row = cls.__new__(cls)
        row._state = ModelState()
        row._state.adding, row._state.db = False, db
        row.__dict__.update(zip(field_names, values, strict=True))
        return row


class TooManyPairs(ValueError):
    """Metadata would hold more than MAX_METADATA_PAIRS."""


class RowQuerySet(models.QuerySet[Row]):
    """What threads and messages share: look-ups by public id, pages in a total order, changes of metadata.

    `place` names the columns of the order, which an index has; the place of a row is the tuple of their values.
    """

    place: ClassVar[tuple[str, ...]]

    def named(self, **texts: str) -> Self:
        """The rows whose columns are these texts, whatever a client sent for an id."""
        # Nothing stored has a U+0000, and PostgreSQL refuses a query that has one.
        return self.none() if any("\0" in text for text in texts.values()) else self.filter(**texts)

    def by_id(self, public_id: str) -> Row:
        """The row of that id. Raises DoesNotExist, for any text."""
        return self.named(id=public_id).get()

    def places(self, public_ids: Iterable[str]) -> dict[str, tuple[Any, ...]]:
        """The places of those rows that are there. One query."""
        known = self.filter(id__in=[public_id for public_id in public_ids if "\0" not in public_id])
        return {public_id: place for public_id, *place in known.values_list("id", *self.place)}

    def window(self, low: Any, high: Any, *, descending: bool) -> Self:
        """The rows after place `low` and before place `high` (None: no bound), in order."""
        rows, columns = self, Tuple(*map(F, self.place))
        if low is not None:
            rows = rows.filter(TupleGreaterThan(columns, low))
        if high is not None:
            rows = rows.filter(TupleLessThan(columns, high))
        return rows.order_by(*(f"-{column}" if descending else column for column in self.place))

    def between(self, low: Any, high: Any, *, descending: bool, limit: int) -> list[Any]:
        """The first `limit` of them. One query."""
        return list(self.window(low, high, descending=descending)[:limit])

    def locked(self) -> Self:
        """Locks the rows that are read until the transaction ends, where the engine has locks on rows."""
        can_lock = connections[self.db].features.has_select_for_no_key_update
        return self.select_for_update(no_key=True) if can_lock else self

    def merge_metadata(self, public_id: str, changes: Mapping[str, str | None]) -> Any:
        """Sets the pairs given and removes those given as None; returns the row. Two at once lose nothing.

        Raises DoesNotExist, and TooManyPairs, which changes nothing.
        """
        for pause in pauses():
            with transaction.atomic(using=self.db):
                row: Any = self.locked().by_id(public_id)
                merged = {key: value for key, value in {**row.metadata, **changes}.items() if value is not None}
                if len(merged) > MAX_METADATA_PAIRS:
                    raise TooManyPairs
                if merged == row.metadata or self.replace_metadata(row, merged):
                    return row
            time.sleep(pause)
        raise OperationalError("too many writers change this row at once")

    def replace_metadata(self, row: Any, metadata: dict[str, str]) -> bool:
        """Stores other metadata, in the transaction that is open; False where no lock kept another from doing so."""
        rows = self.named(id=row.id)
        if not can_roll_back(self.db):
            rows = rows.filter(metadata=row.metadata)  # compare and set: one write, or none
        row.metadata = metadata
        return bool(rows.update(metadata=metadata))
