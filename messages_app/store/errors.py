"""The exceptions that the store raises, and the messages of database errors.

For a missing row, the store raises the model's DoesNotExist.
"""

from collections.abc import Sequence
from typing import Literal

from django.db import OperationalError

Kind = Literal["thread", "message", "file"]


class TooManyPairs(ValueError):
    """The change would give the metadata more than MAX_METADATA_PAIRS pairs. Becomes 422."""


class UnknownCursor(LookupError):
    """The cursors in `names` (`after`, `before`) match no row in a list of `kind`. Becomes 422."""

    def __init__(self, kind: Kind, names: Sequence[str]) -> None:
        super().__init__(*names)
        self.kind, self.names = kind, names


class InvalidKey(ValueError):
    """The key is not 1 to 255 visible ASCII characters. Becomes 422."""


class KeyReused(ValueError):
    """The key was used on this path with another body. Becomes 422."""


class KeyInUse(Exception):
    """Another request with this key is in flight and may still succeed. Becomes 409."""


class WriteConflict(OperationalError):
    """Other writers changed the same row during every attempt. Becomes 503, because a retry may succeed."""

    stored_nothing = True


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, or the error's class name if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
