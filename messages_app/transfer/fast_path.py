"""The fast path of validation, for the millions of threads and messages that are valid at first sight.

A function here returns the same values as the classes of fields.py, or None. None does not mean invalid: the caller
then asks those classes. Missing keys of a thread have their defaults; an absent `_id` is None.
"""

from collections.abc import Callable, Set
from datetime import UTC, datetime
from typing import Any

from messages_app.api.errors import Faults
from messages_app.api.fields import MAX_AUTHOR_CHARACTERS, MAX_CONTENT_CHARACTERS_V2, MAX_PARTS, text_fault
from messages_app.ids import MAX_SECONDS, OBJECT_ID
from messages_app.models import MAX_TENANT_CHARACTERS, Message
from messages_app.models.content import text_part
from messages_app.transfer.fields import IMPLIED_KEYS, MAX_ID_CHARACTERS, MESSAGE_FIELDS, THREAD_FIELDS

_THREAD_KEYS = IMPLIED_KEYS | THREAD_FIELDS.keys()
_MESSAGE_KEYS = IMPLIED_KEYS | MESSAGE_FIELDS.keys()
_ROLES = frozenset(Message.Role.values)
_ATTACHMENTS = MESSAGE_FIELDS["attachments"]
_METADATA = MESSAGE_FIELDS["metadata"]


def fast_thread_values(value: Any) -> dict[str, Any] | None:
    """Return the columns of a thread, or None."""
    if not _has_only(_THREAD_KEYS, value):
        return None
    get: Callable[[str], Any] = value.get
    public_id, object_id, created_at = get("id"), get("_id"), get("created_at")
    metadata, tenant = get("metadata"), get("tenant")
    if (
        not _is_identity(public_id, object_id, created_at)
        or not (metadata is None or _is_metadata(metadata))
        or not (tenant is None or text_fault(tenant, at_least=1, at_most=MAX_TENANT_CHARACTERS) is None)
    ):
        return None
    return {
        "id": public_id,
        "object_id": object_id,
        "created_at": datetime.fromtimestamp(created_at, UTC),
        "metadata": metadata or {},
        "tenant": tenant,
    }


def fast_message_values(value: Any, thread_id: str) -> dict[str, Any] | None:
    """Return the columns of a message except thread and position, or None."""
    if not _has_only(_MESSAGE_KEYS, value):
        return None
    get: Callable[[str], Any] = value.get
    public_id, object_id, created_at, role = get("id"), get("_id"), get("created_at"), get("role")
    assistant_id, run_id, metadata = get("assistant_id"), get("run_id"), get("metadata")
    assistant_id, run_id = "" if assistant_id is None else assistant_id, "" if run_id is None else run_id
    content, attachments = _text_parts(get("content")), _attachments(get("attachments"))
    if (
        content is None
        or attachments is None
        or not _is_identity(public_id, object_id, created_at)
        or not (isinstance(role, str) and role in _ROLES)
        or not (isinstance(assistant_id, str) and isinstance(run_id, str))
        or not (len(assistant_id) <= MAX_AUTHOR_CHARACTERS and len(run_id) <= MAX_AUTHOR_CHARACTERS)
        or (assistant_id + run_id and text_fault(assistant_id + run_id))
        or not (metadata is None or _is_metadata(metadata))
        or get("file_ids") not in (None, [])
        or get("thread_id") not in (None, thread_id)
    ):
        return None
    return {
        "id": public_id,
        "object_id": object_id,
        "role": role,
        "content": content,
        "attachments": attachments,
        "assistant_id": assistant_id,
        "run_id": run_id or None,
        "metadata": metadata or {},
        "created_at": datetime.fromtimestamp(created_at, UTC),
    }


def _has_only(keys: Set[str], value: Any) -> bool:
    """Return whether the value is an object whose other keys are all null."""
    return isinstance(value, dict) and (value.keys() <= keys or all(value[key] is None for key in value.keys() - keys))


def _is_identity(public_id: Any, object_id: Any, created_at: Any) -> bool:
    return (
        text_fault(public_id, at_least=1, at_most=MAX_ID_CHARACTERS) is None
        and (object_id is None or (isinstance(object_id, str) and OBJECT_ID.fullmatch(object_id) is not None))
        and type(created_at) is int  # isinstance would accept a bool
        and 0 <= created_at <= MAX_SECONDS
    )


def _is_metadata(metadata: Any) -> bool:
    try:
        return metadata == {} or bool(_METADATA.to_internal_value(metadata))
    except Faults:
        return False


def _text_parts(content: Any) -> list[dict[str, Any]] | None:
    """Return the parts of a content that is only text, or None."""
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
        if text.get("annotations") not in (None, []) or text_fault(value, at_most=MAX_CONTENT_CHARACTERS_V2):
            return None
        characters += len(value)
        parts.append(text_part(value))
    return parts if characters <= MAX_CONTENT_CHARACTERS_V2 else None


def _attachments(attachments: Any) -> list[dict[str, Any]] | None:
    if attachments is None or attachments == []:
        return []
    try:
        valid: list[dict[str, Any]] = _ATTACHMENTS.to_internal_value(attachments)
    except Faults:
        return None
    return valid
