"""What commands share."""

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from django.core.management import CommandError
from tqdm import tqdm

from messages_app.models.thread import MAX_TENANT_CHARACTERS


def reason_of(error: Exception) -> str:
    """Why a database refused, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_tenant_name(tenant: str | None) -> None:
    """Raises CommandError for what cannot be the name of a tenant; None is none."""
    if tenant is not None and not 0 < len(tenant) <= MAX_TENANT_CHARACTERS:
        raise CommandError(f"--tenant takes 1 to {MAX_TENANT_CHARACTERS} characters")
    if tenant is not None and any("\ud800" <= character <= "\udfff" for character in tenant):
        raise CommandError("--tenant is not UTF-8")


# Containers, beyond those that were given up, after which Python looks for garbage: more than a batch of messages has.
LOOKED_THROUGH_AT = 100_000


@contextmanager
def many_objects() -> Iterator[None]:
    """For what makes millions of objects and gives them up again: Python seldom looks for garbage among them.

    There are no cycles in them. It would look each few hundred objects, and that would take a third of the time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(LOOKED_THROUGH_AT)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Progress:
    """On stderr: a bar with rate and time left on a terminal; elsewhere a line at most every two seconds.

    `total` and what `update` is told are counts of `unit` ("messages"); without a total no time left is told.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.start = self.told = time.monotonic()
        self.bar = tqdm(total=total, unit=f" {unit}", unit_scale=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, also: str = "") -> None:
        """`done` is how many there are by now, in all; `also` is told behind it."""
        if self.bar is not None:
            self.bar.set_postfix_str(also, refresh=False)
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.told >= 2:
            self.told = time.monotonic()
            rate = done / (self.told - self.start)
            of_all, left = "", ""
            if self.total is not None:
                of_all, left = f" of {self.total:,}", f", {(self.total - done) / rate:,.0f} s left" if rate else ""
            more = f", {also}" if also else ""
            print(f"{done:,}{of_all} {self.unit}, {rate:,.0f}/s{left}{more}", file=sys.stderr, flush=True)
