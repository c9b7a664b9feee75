"""The parts of a message's content."""

from typing import Any


def text_part(value: str) -> dict[str, Any]:
    """Return a text as the one part of a content."""
    return {"type": "text", "text": {"value": value, "annotations": []}}
