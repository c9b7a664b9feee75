"""Threads and messages in which plainly nothing is wrong: looked at quickly, because there are millions of them. What
is not plain, good or not, is for given.py to judge, by the classes of fields.py."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from messages_app.api.errors import Faults
from messages_app.api.fields import (
    MAX_AUTHOR_CHARACTERS,
    MAX_CONTENT_CHARACTERS_V2,
    MAX_PARTS,
    AttachmentsField,
    MetadataField,
    text_fault,
)
from messages_app.ids import EPOCH, MAX_SECONDS, OBJECT_ID, new_object_id
from messages_app.models import Message
from messages_app.models.thread import MAX_TENANT_CHARACTERS, MessageRow, text_part

MAX_ID_CHARACTERS = 64

# All that an export, OpenAI's API and Rubra's database have of a thread and of a message.
_THREAD_KEYS = {"_id", "created_at", "id", "messages", "metadata", "object", "tenant"}
_MESSAGE_KEYS = {
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


def plain_thread(value: Any) -> dict[str, Any] | None:
    """The columns of a thread as given.py reads them, where nothing is left out; None where that is to be asked."""
    if not _has_only(_THREAD_KEYS, value):
        return None
    get: Callable[[str], Any] = value.get
    public_id, object_id, created_at = get("id"), get("_id"), get("created_at")
    metadata, tenant = get("metadata"), get("tenant")
    if (
        not _are_identity(public_id, object_id, created_at)
        or not (metadata is None or _are_pairs(metadata))
        or not (tenant is None or (_is_text(tenant, MAX_TENANT_CHARACTERS) and tenant))
    ):
        return None
    at = datetime.fromtimestamp(created_at, UTC)
    return {
        "id": public_id,
        "object_id": object_id or object_id_for(public_id, at),
        "created_at": at,
        "metadata": metadata or {},
        "tenant": tenant,
    }


def plain_row(value: Any, thread_id: str, position: int) -> MessageRow | None:
    """The row of a message, likewise."""
    if not _has_only(_MESSAGE_KEYS, value):
        return None
    get: Callable[[str], Any] = value.get
    public_id, object_id, created_at, role = get("id"), get("_id"), get("created_at"), get("role")
    assistant_id, run_id, metadata = get("assistant_id"), get("run_id"), get("metadata")
    assistant_id, run_id = "" if assistant_id is None else assistant_id, "" if run_id is None else run_id
    content, files = _plain_content(get("content")), _plain_files(get("attachments"))
    if (
        content is None
        or files is None
        or not _are_identity(public_id, object_id, created_at)
        or not (isinstance(role, str) and role in _ROLES)
        or not (isinstance(assistant_id, str) and isinstance(run_id, str))
        or not (len(assistant_id) <= MAX_AUTHOR_CHARACTERS and len(run_id) <= MAX_AUTHOR_CHARACTERS)
        or text_fault(assistant_id + run_id)
        or not (metadata is None or _are_pairs(metadata))
        or get("file_ids") not in (None, [])
        or get("thread_id") not in (None, thread_id)
    ):
        return None
    at = datetime.fromtimestamp(created_at, UTC)
    return MessageRow(
        public_id,
        object_id or object_id_for(public_id, at),
        thread_id,
        position,
        role,
        content,
        files,
        assistant_id,
        run_id or None,
        metadata or {},
        at,
    )


def _has_only(keys: set[str], value: Any) -> bool:
    """Whether it is an object of which no key beyond these says anything."""
    return isinstance(value, dict) and (value.keys() <= keys or all(value[key] is None for key in value.keys() - keys))


def _are_identity(public_id: Any, object_id: Any, created_at: Any) -> bool:
    return (
        _is_text(public_id, MAX_ID_CHARACTERS)
        and public_id != ""
        and (object_id is None or (isinstance(object_id, str) and OBJECT_ID.fullmatch(object_id) is not None))
        and type(created_at) is int  # a bool is one too
        and 0 <= created_at <= MAX_SECONDS
    )


def _is_text(value: Any, at_most: int) -> bool:
    return text_fault(value, at_most=at_most) is None


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
