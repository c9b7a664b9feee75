"""The base of the models of threads and messages."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

from django.db import models
from django.db.models.base import ModelState

Row = TypeVar("Row", bound=models.Model)


class FastModel(models.Model):
    """A model whose rows are made without Django's constructor and its signals: they cost ten times as much."""

    # The functions that make default values, for columns that `from_values` may leave out.
    DEFAULTS: ClassVar[dict[str, Callable[[], Any]]] = {"deleted_at": lambda: None}

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Iterable[str], values: Iterable[Any], **_: Any) -> Self:
        """Return the stored row with these values of these attributes."""
        row = cls.__new__(cls)
        row._state = ModelState()
        row._state.adding, row._state.db = False, db
        row.__dict__.update(zip(field_names, values, strict=True))
        return row

    @classmethod
    def from_values(cls, **values: Any) -> Self:
        """Return an unsaved row. Columns without one of DEFAULTS need a value; foreign keys are set by their id."""
        row = cls.__new__(cls)
        row._state = ModelState()
        for name, make in cls.DEFAULTS.items():
            if name not in values:
                values[name] = make()
        row.__dict__.update(values)
        return row


class OrderedQuerySet(models.QuerySet[Row]):
    """Rows of a list. `order` names the columns that order it; an index starts with them."""

    order: ClassVar[tuple[str, ...]]

    def named(self, **texts: str) -> Self:
        """Return the rows whose columns equal these texts; any text is allowed."""
        # PostgreSQL rejects a query that contains U+0000, and no stored text contains it.
        return self.none() if any("\0" in text for text in texts.values()) else self.filter(**texts)
