"""The base classes of the Thread and Message models."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

from django.db import models
from django.db.models.base import ModelState

Row = TypeVar("Row", bound=models.Model)


class FastModel(models.Model):
    """A model that creates rows without Django's constructor and its signals, which take ten times as long."""

    # Functions that return the defaults of the columns that `from_values` does not require.
    DEFAULTS: ClassVar[dict[str, Callable[[], Any]]] = {"deleted_at": lambda: None}

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Iterable[str], values: Iterable[Any], **_: Any) -> Self:
        """Return a stored row with these attributes and values."""
        row = cls.__new__(cls)
        row._state = ModelState()
        row._state.adding, row._state.db = False, db
        row.__dict__.update(zip(field_names, values, strict=True))
        return row

    @classmethod
    def from_values(cls, **values: Any) -> Self:
        """Return an unsaved row. Pass a value for each column that is not in DEFAULTS. Pass foreign keys as ids."""
        row = cls.__new__(cls)
        row._state = ModelState()
        for name, make in cls.DEFAULTS.items():
            if name not in values:
                values[name] = make()
        row.__dict__.update(values)
        return row


class OrderedQuerySet(models.QuerySet[Row]):
    """The rows of a list. `order` names the columns that sort the list. An index contains them in the same order."""

    order: ClassVar[tuple[str, ...]]

    def named(self, **texts: str) -> Self:
        """Return the rows whose columns equal these strings. Any string is allowed."""
        # No stored text contains U+0000, so no row matches it. PostgreSQL would reject the query.
        return self.none() if any("\0" in text for text in texts.values()) else self.filter(**texts)
