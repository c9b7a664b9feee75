"""The fields of imported threads and messages, built on the classes of api/fields.py."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from messages_app.api import fields
from messages_app.api.base import WireField
from messages_app.api.errors import NOT_A_LIST, NOT_AN_INTEGER, NOT_GE, NOT_LE, Code, Fault, Faults
from messages_app.ids import EPOCH, MAX_SECONDS, OBJECT_ID
from messages_app.models import MAX_TENANT_CHARACTERS, Message
from messages_app.models.content import text_part

MAX_ID_CHARACTERS = 64

# Errors that occur only in imports.
NOT_AN_OBJECT_ID = Code("value is not a valid ObjectId", "value_error.object_id")
DUPLICATE_ID = Code("another message of this thread has this id", "value_error.id")
UNREACHABLE_ID = Code("no request can name this id in its path", "value_error.id")
OTHER_THREAD_ID = Code("value is not the id of this thread", "value_error.id")


class ObjectIdField(fields.TextField):
    """An ObjectId of 24 hex digits, converted to lower case."""

    def to_internal_value(self, data: Any) -> str:
        text = cast(str, super().to_internal_value(data)).lower()
        if not OBJECT_ID.fullmatch(text):
            raise Faults([Fault(NOT_AN_OBJECT_ID)])
        return text


class SecondsField(WireField):
    """A time in Unix seconds, from 1970 to 9999."""

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, int) or isinstance(data, bool):
            raise Faults([Fault(NOT_AN_INTEGER)])
        if data < 0:
            raise Faults([Fault(NOT_GE, params={"limit_value": 0})])
        if data > MAX_SECONDS:
            raise Faults([Fault(NOT_LE, params={"limit_value": MAX_SECONDS})])
        return EPOCH + timedelta(seconds=data)


class StoredPartField(fields.PartField):
    """A content part in its stored form.

    Unlike in requests, `text` is an object. Its `value` may be empty, because an assistant's text may be empty.
    """

    kinds: Mapping[str, fields.ObjectField] = {
        "text": fields.ObjectField({"value": fields.TextField(), "annotations": fields.IgnoredField(required=False)}),
        **{kind: field for kind, field in fields.PartField.kinds.items() if isinstance(field, fields.ObjectField)},
    }
    type_of_part = fields.EnumField(kinds)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        part = super().to_internal_value(data)
        return text_part(part["text"]["value"]["value"]) if part["type"] == "text" else part


class StoredContentField(fields.ContentOrPartsField):
    """A list of parts, which may be empty. The text of all parts together has the same limit as in a create."""

    parts = fields.ListField(StoredPartField(), at_most=fields.MAX_PARTS)

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        if not isinstance(data, list):
            raise Faults([Fault(NOT_A_LIST)])
        return super().to_internal_value(data)


class IdField(fields.TextField):
    """The id of a thread or message: a text of 1 to 64 characters that a path can contain."""

    def __init__(self) -> None:
        super().__init__(at_least=1, at_most=MAX_ID_CHARACTERS)

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not is_reachable(value):
            raise Faults([Fault(UNREACHABLE_ID)])
        return value


def is_reachable(public_id: str) -> bool:
    """Return whether a request can name the id in its path.

    `/` starts another segment, clients resolve `.` and `..`, and `/threads/runs` is a path of OpenAI's.
    """
    return "/" not in public_id and public_id not in (".", "..", "runs")


ID_FIELD = IdField()

THREAD_FIELDS: Mapping[str, WireField] = {
    "_id": ObjectIdField(required=False),
    "created_at": SecondsField(),
    "id": ID_FIELD,
    "metadata": fields.MetadataField(required=False, default=dict),
    "tenant": fields.TextField(at_least=1, at_most=MAX_TENANT_CHARACTERS, required=False),
}
MESSAGE_FIELDS: Mapping[str, WireField] = {
    "_id": ObjectIdField(required=False),
    "created_at": SecondsField(),
    "id": ID_FIELD,
    "role": fields.EnumField(Message.Role.values),
    "content": StoredContentField(),
    "file_ids": fields.FileIdsField(required=False, default=list),
    "attachments": fields.AttachmentsField(required=False, default=list),
    "metadata": fields.MetadataField(required=False, default=dict),
    "assistant_id": fields.AuthorField(required=False, default=""),
    "run_id": fields.AuthorField(required=False),
}
# Keys whose values are known from the location of the object in the file.
IMPLIED_KEYS = frozenset({"object", "thread_id", "messages"})
