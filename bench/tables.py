"""Tables as GitHub Markdown shows them, and what is said of a target."""

from collections.abc import Iterable, Sequence
from typing import Any


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns are as wide as what is in them, so that the table can be read as text too."""
    texts = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in texts]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def at_least(target: float | None, found: float) -> str:
    return said(target, "at least", found >= (target or 0))


def at_most(target: float | None, found: float) -> str:
    return said(target, "at most", target is None or found <= target)


def said(target: float | None, bound: str, is_met: bool) -> str:
    """A missed target is a result like any other; it is only easy to see."""
    if target is None:
        return ""
    return f"{bound} {target:g}" if is_met else f"**missed**: {bound} {target:g}"
