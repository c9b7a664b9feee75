"""Format Markdown tables and targets."""

from collections.abc import Iterable, Sequence
from typing import Any


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table with aligned columns, which is also readable as text."""
    texts = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in texts]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def at_least(target: float | None, found: float) -> str:
    return target_text(target, "at least", found >= (target or 0))


def at_most(target: float | None, found: float) -> str:
    return target_text(target, "at most", target is None or found <= target)


def target_text(target: float | None, bound: str, is_met: bool) -> str:
    """Return the text of a target. A missed target is marked."""
    if target is None:
        return ""
    return f"{bound} {target:g}" if is_met else f"**missed**: {bound} {target:g}"
