"""The content of a message: its parts, and their plain text for display."""

from collections.abc import Iterator
from typing import Any

# Keys that hold text in the parts of different APIs, and keys that hold a reference to a file or an image.
WORD_KEYS = ("text", "refusal", "transcript")
REFERENCE_KEYS = ("url", "file_id", "image_url", "file_url", "filename", "id")


def text_part(value: str) -> dict[str, Any]:
    """Return a content part with this text."""
    return {"type": "text", "text": {"value": value, "annotations": []}}


def text_of(content: Any) -> str:
    """Return the content as plain text, with at least one line for each part.

    A part without text becomes a line that names its type: `[image_file: file-9]`, `[reasoning]`. Never raises, because
    stored content may have parts of an API that this version does not know.
    """
    parts = content if isinstance(content, list) else [] if content is None else [content]
    return "\n".join(_line(part) for part in parts)


def _line(part: Any) -> str:
    if isinstance(part, str):
        return part
    fields = part if isinstance(part, dict) else {}
    for key in WORD_KEYS:
        value = fields.get(key)
        words = value.get("value") if isinstance(value, dict) else value
        if isinstance(words, str):
            return words
    kind = fields.get("type")
    if not isinstance(kind, str):
        kind = "unknown"
    reference = next(_references(fields, kind), None)
    return f"[{kind}: {reference}]" if reference else f"[{kind}]"


def _references(fields: dict[str, Any], kind: str) -> Iterator[str]:
    """Yield the URLs and ids of a part: first from the value under the key of its type, then from the part itself."""
    for value in (fields.get(kind), fields):
        found = [value.get(key) for key in REFERENCE_KEYS] if isinstance(value, dict) else [value]
        for reference in found:
            if isinstance(reference, dict):  # for example {"type": "input_image", "image_url": {"url": ...}}
                reference = reference.get("url")
            if isinstance(reference, str) and reference:
                yield reference
