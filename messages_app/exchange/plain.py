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
    assistant_id, run_id, metadata = get("assistant_id"), get("run_id"), get("metadata")
    content, files = _plain_content(get("content")), _plain_files(get("attachments"))
    if (
        content is None
        or files is None
        or not (_is_text(public_id, MAX_ID_CHARACTERS) and public_id)
        or not (object_id is None or (isinstance(object_id, str) and OBJECT_ID.fullmatch(object_id)))
        or type(created_at) is not int  # a bool is one too
        or not 0 <= created_at <= MAX_SECONDS
        or not (isinstance(role, str) and role in _ROLES)
        or not (assistant_id is None or _is_text(assistant_id, MAX_AUTHOR_CHARACTERS))
        or not (run_id is None or _is_text(run_id, MAX_AUTHOR_CHARACTERS))
        or not (metadata is None or _are_pairs(metadata))
        or get("file_ids") not in (None, [])
        or get("thread_id") not in (None, thread_id)
    ):
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
        metadata or {},
        at,
    )


def _is_text(value: Any, at_most: int) -> bool:
    return isinstance(value, str) and len(value) <= at_most and not text_fault(value)


def _are_pairs(metadata: Any) -> bool:
    try:
        return metadata == {} or bool(_METADATA.to_internal_value(metadata))
    except Faults:
        return False


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
        if text.get("annotations") not in (None, []) or not _is_text(value, MAX_CONTENT_CHARACTERS_V2):
            return None
        characters += len(value)
        parts.append(text_part(value))
    return parts if characters <= MAX_CONTENT_CHARACTERS_V2 else None


def _plain_files(attachments: Any) -> list[dict[str, Any]] | None:
    if attachments is None or attachments == []:
        return []
    try:
        files: list[dict[str, Any]] = _ATTACHMENTS.to_internal_value(attachments)
    except Faults:
        return None
    return files


def object_id_for(public_id: str, created_at: datetime) -> str:
    """An `_id` for what has none: the same each time, so that an import can be repeated elsewhere."""
    soonest = EPOCH + timedelta(seconds=created_at.timestamp() % 2**32)  # all that there is room for
    return new_object_id(soonest, hashlib.blake2b(public_id.encode(), digest_size=8).digest())
