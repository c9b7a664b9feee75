"""How an import or an export shows its progress, which is the caller's choice."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class ProgressReport(Protocol):
    def update(self, done: int, note: str = "") -> None:
        """Show that `done` units are finished in all, and a note."""


# Takes a total (None: unknown) and its unit, "messages".
ShowProgress = Callable[[int | None, str], AbstractContextManager[ProgressReport]]
