"""Validation: converts a thread from a file to unsaved rows, with the API's limits and error messages.

Values that the store does not support are not faults. They are left out, and counted by name.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from messages_app.api.assistants.requests import attached
from messages_app.api.base import WireField, read_keys
from messages_app.api.errors import NOT_A_DICT, Fault, Faults
from messages_app.ids import EPOCH, new_object_id
from messages_app.models import DEFAULT_TENANT, Message, Thread
from messages_app.transfer import fields
from messages_app.transfer.fast_path import fast_message_values
from messages_app.transfer.source import (
    MESSAGE_OBJECT,
    InvalidInput,
    SkippedValues,
    SourceLocation,
    SourceValue,
    UnvalidatedThread,
    printable,
)

LocatedFaults = list[tuple[SourceLocation, Fault]]


class ValidThread(NamedTuple):
    """An unsaved thread with its unsaved messages, whose positions start at 1."""

    source: UnvalidatedThread  # without its messages, so that they are not in memory twice
    thread: Thread
    messages: list[Message]
    skipped: SkippedValues

    @property
    def location(self) -> SourceLocation:
        return self.source.thread.location


def validate_thread(source: UnvalidatedThread, tenant: str | None) -> ValidThread:
    """Return the rows of a thread and its messages. Raises InvalidInput with all faults.

    The owner is `tenant` if it is not None, otherwise the tenant in the file, otherwise the default tenant.
    """
    skipped = SkippedValues()
    faults: LocatedFaults = []
    values = _read(source.thread, fields.THREAD_FIELDS, skipped, faults)
    thread_id = values["id"] if values else None
    messages: list[Message] = []
    ids: set[str] = set()
    for i, value in enumerate(source.messages):
        message = fast_message_values(value, thread_id or "")
        if message is None or message["id"] in ids:
            message = _read_message(SourceValue(source.message_location(i), value), thread_id, ids, skipped, faults)
        if message is not None:
            ids.add(message["id"])
            message["thread_id"], message["position"] = thread_id, i + 1
            messages.append(Message.from_values(**_with_object_id(message)))
    if faults or values is None:
        raise InvalidInput((location.at(*fault.loc), fault.msg) for location, fault in faults)
    values["tenant"] = tenant or values["tenant"] or DEFAULT_TENANT
    return ValidThread(source._replace(messages=()), Thread.from_values(**_with_object_id(values)), messages, skipped)


def _with_object_id(values: dict[str, Any]) -> dict[str, Any]:
    if values["object_id"] is None:
        values["object_id"] = derived_object_id(values["id"], values["created_at"])
    return values


def derived_object_id(public_id: str, created_at: datetime) -> str:
    """Return the `_id` for a row without one.

    The same id and time always give the same `_id`, so that repeated imports give the same rows.
    """
    at = EPOCH + timedelta(seconds=created_at.timestamp() % 2**32)  # an ObjectId has 32 bits for the time
    return new_object_id(at, hashlib.blake2b(public_id.encode(), digest_size=8).digest())


def thread_id_of(source: SourceValue) -> str:
    """Return the id of a thread, or of the thread that a message belongs to. Raises InvalidInput."""
    key = "thread_id" if source.value["object"] == MESSAGE_OBJECT else "id"
    values, faults = read_keys({key: fields.ID_FIELD}, source.value)
    if faults:
        raise InvalidInput([(source.location, f"{key}: {faults[0].msg}")])
    thread_id: str = values[key]
    return thread_id


def _read(
    source: SourceValue, known: Mapping[str, WireField], skipped: SkippedValues, faults: LocatedFaults
) -> dict[str, Any] | None:
    """Return the values of an object as columns, or None after adding its faults to `faults`."""
    if not isinstance(source.value, dict):
        faults.append((source.location, Fault(NOT_A_DICT)))
        return None
    values, found = read_keys(known, _known_values(source, known, skipped))
    if found:
        faults += [(source.location, fault) for fault in found]
        return None
    values["object_id"] = values.pop("_id")
    return values


def _read_message(
    source: SourceValue, thread_id: str | None, ids: set[str], skipped: SkippedValues, faults: LocatedFaults
) -> dict[str, Any] | None:
    """Return the columns of a message except thread and position, or None. Adds its faults to `faults`.

    `thread_id` is None if the thread is invalid. `ids` contains the ids of the thread's previous messages.
    """
    values = _read(source, fields.MESSAGE_FIELDS, skipped, faults)
    if values is None:
        return None
    if values["id"] in ids:
        faults.append((source.location, Fault(fields.DUPLICATE_ID, ("id",))))
    ids.add(values["id"])
    if thread_id is not None and source.value.get("thread_id") not in (None, thread_id):
        faults.append((source.location, Fault(fields.OTHER_THREAD_ID, ("thread_id",))))
    try:
        values["attachments"] = attached(values["attachments"], values.pop("file_ids"))
    except Faults as error:
        faults += [(source.location, fault) for fault in error.detail]
        return None
    return values


# Values that the store does not support


def _says_something(value: Any) -> bool:
    """Return whether a value contains data.

    Null, "", and arrays and objects of only such values contain no data.
    """
    if isinstance(value, dict | list):
        return any(map(_says_something, value.values() if isinstance(value, dict) else value))
    return value is not None and value != ""


def _known_values(source: SourceValue, known: Mapping[str, WireField], skipped: SkippedValues) -> dict[str, Any]:
    """Return the object without values that the store does not support, and count these values in `skipped`."""
    location, value = source
    for key in sorted(value.keys() - known.keys() - fields.IMPLIED_KEYS):
        match key, value[key]:
            case "status", "completed":
                pass
            case "status", str(status):
                skipped.add(f"status {printable(status)} (the message is kept)", location)
            case "completed_at", completed_at if completed_at == value.get("created_at"):
                pass
            case _, other if _says_something(other):
                skipped.add(printable(key), location)
    content = value.get("content")
    if not isinstance(content, list):
        return cast(dict[str, Any], value)
    return {
        **value,
        "content": [_known_part(part, location.at("content", i), skipped) for i, part in enumerate(content)],
    }


def _known_part(part: Any, location: SourceLocation, skipped: SkippedValues) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        skipped.add("refusal (kept as text)", location)
        part = {**part, "type": "text", "text": {"value": part["refusal"]}}
        del part["refusal"]
        kind = "text"
    field = fields.StoredPartField.kinds.get(kind) if isinstance(kind, str) else None
    if field is None:
        return part
    for key in part.keys() - {"type", kind}:
        if _says_something(part[key]):
            skipped.add(printable(key), location)
    value = part.get(kind)
    if not isinstance(value, dict):
        return {"type": kind, **({kind: value} if kind in part else {})}
    annotations = value.get("annotations")
    if _says_something(annotations):
        skipped.add("annotations", location, len(annotations) if isinstance(annotations, list) else 1)
    for key in value.keys() - field.keys.keys():
        if _says_something(value[key]):
            skipped.add(printable(key), location.at(str(kind)))
    return {"type": kind, kind: {key: value[key] for key in value if key in field.keys}}
