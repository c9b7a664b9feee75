"""Helpers for the commands: the check of --tenant, the garbage collector in bulk commands, and progress output."""

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from django.core.management import CommandError
from tqdm import tqdm

from messages_app.models import MAX_TENANT_CHARACTERS

# Larger than the number of container objects in one batch of messages.
GC_THRESHOLD = 100_000


def require_tenant_name(tenant: str | None) -> None:
    """Raise CommandError if --tenant is given but is not a valid tenant name."""
    if tenant is not None and not 0 < len(tenant) <= MAX_TENANT_CHARACTERS:
        raise CommandError(f"--tenant takes 1 to {MAX_TENANT_CHARACTERS} characters")
    if tenant is not None and any("\ud800" <= character <= "\udfff" for character in tenant):
        raise CommandError("--tenant is not UTF-8")


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Run the garbage collector less often in code that creates and releases millions of objects without cycles.

    With the default threshold, the collector takes a third of the time of such code.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Progress:
    """Shows progress on stderr: a bar on a terminal, otherwise at most one line every two seconds.

    `total` and `done` are numbers of units, such as "messages". The remaining time is shown only if the total is known.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.start = self.last_line = time.monotonic()
        self.bar = tqdm(total=total, unit=f" {unit}", unit_scale=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` units are finished so far, followed by a note."""
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.last_line >= 2:
            self.last_line = time.monotonic()
            rate = done / (self.last_line - self.start)
            of_total = "" if self.total is None else f" of {self.total:,}"
            remaining = f", {(self.total - done) / rate:,.0f} s left" if rate and self.total is not None else ""
            after = f", {note}" if note else ""
            print(f"{done:,}{of_total} {self.unit}, {rate:,.0f}/s{remaining}{after}", file=sys.stderr, flush=True)
