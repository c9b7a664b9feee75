"""Messages in which plainly nothing is wrong: looked at quickly, because there are millions of them. What is not plain,
good or not, is for given.py to judge, by the classes of fields.py."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from messages_app.fields import (
    MAX_AUTHOR_CHARACTERS,
    MAX_CONTENT_CHARACTERS_V2,
    MAX_PARTS,
    AttachmentsField,
    Faults,
    MetadataField,
    text_fault,
)
from messages_app.ids import EPOCH, MAX_SECONDS, OBJECT_ID, new_object_id
from messages_app.models import Message, MessageRow, text_part

MAX_ID_CHARACTERS = 64

# All that an export, OpenAI's API and Rubra's database have of a message.
_KEYS = {
    "_id",
    "assistant_id",
    "attachments",
    "content",
    "created_at",
    "file_ids",
    "id",
    "metadata",
    "object",
    "role",
    "run_id",
    "thread_id",
}
_ROLES = frozenset(Message.Role.values)
_ATTACHMENTS = AttachmentsField()
_METADATA = MetadataField()


def plain_row(value: Any, thread_id: str, position: int) -> MessageRow | None:
    """The row of a message, just as given.py reads it, of which nothing is left out; None where that is to be asked."""
    if not isinstance(value, dict):
        return None
    if not value.keys() <= _KEYS and any(value[key] is not None for key in value.keys() - _KEYS):
        return None
    get: Callable[[str], Any] = value.get
    public_id, object_id, created_at, role = get("id"), get("_id"), get("created_at"), get("role")
    assistant_id, run_id = get("assistant_id"), get("run_id")
    content = _plain_content(get("content"))
    attachments, metadata = get("attachments"), get("metadata")
    if (
        content is None
        or text_fault(public_id, at_least=1, at_most=MAX_ID_CHARACTERS)
        or not (object_id is None or (isinstance(object_id, str) and OBJECT_ID.fullmatch(object_id)))
        or type(created_at) is not int  # a bool is one too
        or not 0 <= created_at <= MAX_SECONDS
        or not (isinstance(role, str) and role in _ROLES)
        or (assistant_id is not None and text_fault(assistant_id, at_most=MAX_AUTHOR_CHARACTERS))
        or (run_id is not None and text_fault(run_id, at_most=MAX_AUTHOR_CHARACTERS))
        or get("file_ids") not in (None, [])
        or get("thread_id") not in (None, thread_id)
    ):
        return None
    try:
        files = [] if attachments is None or attachments == [] else _ATTACHMENTS.run_validation(attachments)
        pairs = {} if metadata is None or metadata == {} else _METADATA.run_validation(metadata)
    except Faults:
        return None
    at = EPOCH + timedelta(seconds=created_at)
    return MessageRow(
        public_id,
        object_id or object_id_for(public_id, at),
        thread_id,
        position,
        role,
        content,
        files,
        assistant_id or "",
        run_id or None,
        pairs,
        at,
    )


def _plain_content(content: Any) -> list[dict[str, Any]] | None:
    """The parts of a content that is nothing but text; None where it is not."""
    if not isinstance(content, list) or len(content) > MAX_PARTS:
        return None
    parts, characters = [], 0
    for part in content:
        if not isinstance(part, dict) or len(part) != 2 or part.get("type") != "text":
            return None
        text = part.get("text")
        if not isinstance(text, dict) or not text.keys() <= {"value", "annotations"}:
            return None
        value: Any = text.get("value")
        if text.get("annotations") not in (None, []) or text_fault(value):
            return None
        characters += len(value)
        parts.append(text_part(value))
    return parts if characters <= MAX_CONTENT_CHARACTERS_V2 else None


def object_id_for(public_id: str, created_at: datetime) -> str:
    """An `_id` for what has none: the same each time, so that an import can be repeated elsewhere."""
    soonest = EPOCH + timedelta(seconds=created_at.timestamp() % 2**32)  # all that there is room for
    return new_object_id(soonest, hashlib.blake2b(public_id.encode(), digest_size=8).digest())
