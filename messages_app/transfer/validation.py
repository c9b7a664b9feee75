"""A thread with its messages as an import is given it: checked by the classes of fields.py, in the contract's words,
and rid of what has no place in this store, which is counted by name."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from messages_app.api.assistants.requests import attached
from messages_app.api.base import WireField, read_keys
from messages_app.api.errors import NOT_A_DICT, NOT_A_LIST, NOT_AN_INTEGER, NOT_GE, NOT_LE, Code, Fault, Faults
from messages_app.api.fields import (
    MAX_PARTS,
    AttachmentsField,
    AuthorField,
    ContentOrPartsField,
    EnumField,
    FileIdsField,
    IgnoredField,
    ListField,
    MetadataField,
    ObjectField,
    PartField,
    TextField,
)
from messages_app.ids import EPOCH, MAX_SECONDS, OBJECT_ID
from messages_app.models import Message, Thread
from messages_app.models.thread import DEFAULT_TENANT, MAX_TENANT_CHARACTERS, MessageRow, text_part
from messages_app.transfer.fast_path import MAX_ID_CHARACTERS, object_id_for, plain_row, plain_thread

SHOWN_CHARACTERS = 60  # of a key that somebody else made up


class Place(NamedTuple):
    """Where a value stands: in a line of a file, and the steps to it from the object that begins there."""

    file: str
    line: int
    steps: tuple[str | int, ...] = ()

    def at(self, *steps: str | int) -> "Place":
        return Place(self.file, self.line, (*self.steps, *steps))

    @property
    def of_line(self) -> str:
        file = self.file if self.file.isprintable() else json.dumps(self.file)
        return f"{file}:{self.line}"

    def __str__(self) -> str:
        return " ".join(filter(None, [self.of_line, path_of(self.steps)]))


class Located(NamedTuple):
    """A value of JSON that nobody has looked at yet."""

    place: Place
    value: Any


class Draft(NamedTuple):
    """A thread and its messages, in order, not checked yet; `size` is about the number of their characters.

    `place_of` tells where the message of an index stands. `has_own_object` is False where nothing was given of the
    thread but its messages."""

    thread: Located
    messages: Sequence[Any]
    place_of: Callable[[int], Place]
    size: int
    has_own_object: bool = True


class LeftOut:
    """What has no place here: how often each was met, and where first."""

    def __init__(self) -> None:
        self.named: dict[str, tuple[int, Place]] = {}

    def add(self, name: str, place: Place, count: int = 1) -> None:
        before, first = self.named.get(name, (0, place))
        self.named[name] = before + count, first

    def include(self, other: "LeftOut") -> None:
        for name, (count, first) in other.named.items():
            self.add(name, first, count)


class Given(NamedTuple):
    """A thread that may be stored, with its messages in positions from 1 on."""

    draft: Draft  # without its messages, which would be in memory twice
    thread: Thread
    messages: list[MessageRow]
    left_out: LeftOut

    @property
    def place(self) -> Place:
        return self.draft.thread.place


class Wrong(Exception):
    """Why a thread cannot be taken: what is wrong in which places, in order."""

    def __init__(self, faults: Iterable[tuple[Place, str]]) -> None:
        self.faults = list(faults)
        super().__init__(self.faults)


def nested_too_deep(place: Place) -> Wrong:
    return Wrong([(place, "lists and objects are nested too deep in one another")])


def path_of(steps: Iterable[str | int]) -> str:
    """Steps with dots between them, whatever a key may be."""
    return ".".join(shown(step) if isinstance(step, str) else str(step) for step in steps)


def shown(key: str) -> str:
    """A key in one line: as it is where that can be read, else as JSON has it, and no longer than can be read."""
    short = key if len(key) <= SHOWN_CHARACTERS else f"{key[:SHOWN_CHARACTERS]}…"
    return short if short.isprintable() and short else json.dumps(short)


# Errors

NOT_AN_OBJECT_ID = Code("value is not a valid ObjectId", "value_error.object_id")
GIVEN_TWICE = Code("another message of this thread has this id", "value_error.id")
OF_ANOTHER = Code("the message is in the line of another thread", "value_error.thread_id")


# Fields


class ObjectIdField(TextField):
    """24 hex digits."""

    def to_internal_value(self, data: Any) -> str:
        text = cast(str, super().to_internal_value(data)).lower()
        if not OBJECT_ID.fullmatch(text):
            raise Faults([Fault(NOT_AN_OBJECT_ID)])
        return text


class SecondsField(WireField):
    """Unix seconds."""

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, int) or isinstance(data, bool):
            raise Faults([Fault(NOT_AN_INTEGER)])
        if data < 0:
            raise Faults([Fault(NOT_GE, params={"limit_value": 0})])
        if data > MAX_SECONDS:
            raise Faults([Fault(NOT_LE, params={"limit_value": MAX_SECONDS})])
        return EPOCH + timedelta(seconds=data)


class StoredPartField(PartField):
    """A part as it is stored and shown: the text is an object, and may be empty, as an assistant's may be."""

    kinds: Mapping[str, ObjectField] = {
        "text": ObjectField({"value": TextField(), "annotations": IgnoredField(required=False)}),
        **{kind: field for kind, field in PartField.kinds.items() if isinstance(field, ObjectField)},
    }
    type_of_part = EnumField(kinds)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        part = super().to_internal_value(data)
        return text_part(part["text"]["value"]["value"]) if part["type"] == "text" else part


class StoredContentField(ContentOrPartsField):
    """A list of parts, which may be empty. The limit of the texts together is that of a create."""

    parts = ListField(StoredPartField(), at_most=MAX_PARTS)

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        if not isinstance(data, list):
            raise Faults([Fault(NOT_A_LIST)])
        return super().to_internal_value(data)


_ID = TextField(at_least=1, at_most=MAX_ID_CHARACTERS)

THREAD_FIELDS: Mapping[str, WireField] = {
    "_id": ObjectIdField(required=False),
    "created_at": SecondsField(),
    "id": _ID,
    "metadata": MetadataField(required=False, default=dict),
    "tenant": TextField(at_least=1, at_most=MAX_TENANT_CHARACTERS, required=False),
}
MESSAGE_FIELDS: Mapping[str, WireField] = {
    "_id": ObjectIdField(required=False),
    "created_at": SecondsField(),
    "id": _ID,
    "role": EnumField(Message.Role.values),
    "content": StoredContentField(),
    "file_ids": FileIdsField(required=False, default=list),
    "attachments": AttachmentsField(required=False, default=list),
    "metadata": MetadataField(required=False, default=dict),
    "assistant_id": AuthorField(required=False, default=""),
    "run_id": AuthorField(required=False),
}
# Keys that say nothing beyond where the object is.
_IMPLIED = {"object", "thread_id", "messages"}


def thread_id_of(located: Located) -> str:
    """The id of the thread that a message belongs to, or that a thread has; raises Wrong."""
    key = "thread_id" if located.value.get("object") == "thread.message" else "id"
    values, faults = read_keys({key: _ID}, located.value)
    if faults:
        raise Wrong([(located.place, f"{key}: {faults[0].msg}")])
    thread_id: str = values[key]
    return thread_id


def check(draft: Draft, tenant: str | None) -> Given:
    """The rows that a draft stands for. Raises Wrong: all that is wrong with it.

    The thread is `tenant`'s; where that is None, who the draft says, or the default tenant."""
    left_out = LeftOut()
    faults: list[tuple[Place, Fault]] = []
    values = plain_thread(draft.thread.value) or _read(draft.thread, THREAD_FIELDS, left_out, faults)
    thread_id = values["id"] if values else ""
    messages: list[MessageRow] = []
    given: set[str] = set()
    for i, value in enumerate(draft.messages):
        row = plain_row(value, thread_id, i + 1)
        if row and row.id not in given:
            given.add(row.id)
            messages.append(row)
            continue
        located = Located(draft.place_of(i), value)
        of_message = _read(located, MESSAGE_FIELDS, left_out, faults)
        if of_message is None:
            continue
        if of_message["id"] in given:
            faults.append((located.place, Fault(GIVEN_TWICE, ("id",))))
        given.add(of_message["id"])
        if values and value.get("thread_id") not in (None, thread_id):
            faults.append((located.place, Fault(OF_ANOTHER, ("thread_id",))))
        try:
            files = attached(of_message["attachments"], of_message.pop("file_ids"))
        except Faults as error:
            faults += [(located.place, fault) for fault in error.detail]
            continue
        of_message["attachments"] = files
        messages.append(MessageRow(thread_id=thread_id, position=i + 1, **of_message))
    if faults or values is None:
        raise Wrong((place.at(*fault.loc), fault.msg) for place, fault in faults)
    values["tenant"] = tenant or values["tenant"] or DEFAULT_TENANT
    return Given(draft._replace(messages=()), Thread(**values), messages, left_out)


def _read(
    located: Located, fields: Mapping[str, WireField], left_out: LeftOut, faults: list[tuple[Place, Fault]]
) -> dict[str, Any] | None:
    """The values of an object as columns; None where something is wrong with it, which `faults` then has."""
    if not isinstance(located.value, dict):
        faults.append((located.place, Fault(NOT_A_DICT)))
        return None
    known = _without_the_unknown(located, fields, left_out)
    values, found = read_keys(fields, known)
    if found:
        faults += [(located.place, fault) for fault in found]
        return None
    object_id = values.pop("_id")
    values["object_id"] = object_id or object_id_for(values["id"], values["created_at"])
    return values


# What has no place here


def holds(value: Any) -> bool:
    """Whether a value says anything: not null, not empty, not a list or object of nothing but such."""
    if isinstance(value, dict | list):
        return any(map(holds, value.values() if isinstance(value, dict) else value))
    return value is not None and value != ""


def _without_the_unknown(located: Located, fields: Mapping[str, WireField], left_out: LeftOut) -> dict[str, Any]:
    """The object without what cannot be kept of it."""
    place, value = located
    for key in sorted(value.keys() - fields.keys() - _IMPLIED):
        match key, value[key]:
            case "status", "completed":
                pass
            case "status", str(status):
                left_out.add(f"status {shown(status)} (the message itself is kept)", place)
            case "completed_at", completed_at if completed_at == value.get("created_at"):
                pass
            case _, other if holds(other):
                left_out.add(shown(key), place)
    content = value.get("content")
    if not isinstance(content, list):
        return cast(dict[str, Any], value)
    return {**value, "content": [_part(part, place.at("content", i), left_out) for i, part in enumerate(content)]}


def _part(part: Any, place: Place, left_out: LeftOut) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        left_out.add("refusal (its words are kept as text)", place)
        part = {**part, "type": "text", "text": {"value": part["refusal"]}}
        del part["refusal"]
        kind = "text"
    field = StoredPartField.kinds.get(kind) if isinstance(kind, str) else None
    if field is None:
        return part
    known = field.keys
    for key in part.keys() - {"type", kind}:
        if holds(part[key]):
            left_out.add(shown(key), place)
    value = part.get(kind)
    if not isinstance(value, dict):
        return {"type": kind, **({kind: value} if kind in part else {})}
    annotations = value.get("annotations")
    if holds(annotations):
        left_out.add("annotations", place, len(annotations) if isinstance(annotations, list) else 1)
    for key in value.keys() - known.keys():
        if holds(value[key]):
            left_out.add(shown(key), place.at(str(kind)))
    return {"type": kind, kind: {key: value[key] for key in value if key in known}}
