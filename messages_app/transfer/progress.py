"""The interface through which an import or export shows its progress. The caller implements it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class ProgressReport(Protocol):
    def update(self, done: int, note: str = "") -> None:
        """Show that `done` units are finished so far, and a note."""


# Called with the total (None if unknown) and its unit, such as "messages".
ShowProgress = Callable[[int | None, str], AbstractContextManager[ProgressReport]]
