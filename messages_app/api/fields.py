"""The fields of requests and responses: one class for each kind of value, with its limits and its OpenAPI schema.

Fields never coerce one JSON type to another. Source: create-message contract, sections 6 and 7; threads-api contract,
"Two shapes of answer" and "Endpoints".
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rest_framework.fields import empty

from messages_app.api import errors
from messages_app.api.base import ShownField, WireField, read_keys, read_object
from messages_app.api.errors import Fault, Faults
from messages_app.models import MAX_METADATA_PAIRS
from messages_app.models.content import text_part

MAX_CONTENT_CHARACTERS = 32768
MAX_CONTENT_CHARACTERS_V2 = 256000
MAX_PARTS = 100
MAX_FILES_OF_MESSAGE = 10
MAX_TOOLS = 10
MAX_AUTHOR_CHARACTERS = 256
MAX_METADATA_KEY_CHARACTERS = 64
MAX_METADATA_VALUE_CHARACTERS = 512
MAX_LIMIT = 100
DEFAULT_LIMIT = 20

# Excludes U+0000 in an OpenAPI schema. A pattern cannot exclude lone surrogates, but they are not valid Unicode text
# anyway.
NO_NUL = {"pattern": r"^[^\u0000]*$"}


def text_fault(value: Any, *loc: str | int, at_least: int | None = None, at_most: int | None = None) -> Fault | None:
    """Return the first error of a string, or None if the string is valid. Lengths count code points."""
    if value is None:
        return Fault(errors.NULL, loc)
    if not isinstance(value, str):
        return Fault(errors.NOT_A_STRING, loc)
    if at_least is not None and len(value) < at_least:
        return Fault(errors.MIN_LENGTH, loc, {"limit_value": at_least})
    if at_most is not None and len(value) > at_most:
        return Fault(errors.MAX_LENGTH, loc, {"limit_value": at_most})
    if "\0" in value:
        return Fault(errors.NULL_CHARACTER, loc)
    if not value.isascii() and _has_surrogate(value):
        return Fault(errors.SURROGATE, loc)
    return None


def _has_surrogate(value: str) -> bool:
    try:
        value.encode()  # much faster than a regular expression
    except UnicodeEncodeError:
        return True
    return False


# Requests: building blocks


class TextField(WireField):
    """A string without U+0000 or lone surrogates. `at_least` and `at_most` are lengths in code points."""

    def __init__(self, at_least: int | None = None, at_most: int | None = None, **kwargs: Any) -> None:
        self.at_least, self.at_most = at_least, at_most
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> Any:
        fault = text_fault(data, at_least=self.at_least, at_most=self.at_most)
        if fault:
            raise Faults([fault])
        return data

    @property
    def schema(self) -> dict[str, Any]:
        limits = {"minLength": self.at_least, "maxLength": self.at_most}
        return {"type": "string", **super().schema, **{k: v for k, v in limits.items() if v is not None}, **NO_NUL}


class EnumField(WireField):
    """One of the permitted strings."""

    def __init__(self, permitted: Iterable[str], **kwargs: Any) -> None:
        self.permitted = list(permitted)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and data in self.permitted:
            return data
        raise Faults([Fault(errors.INVALID_CHOICE, params={"enum_values": self.permitted})])

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": self.permitted, **super().schema}


class ListField(WireField):
    """A list. The field `item` validates each item. If the number of items is not valid, no item is validated."""

    def __init__(self, item: WireField, at_most: int, at_least: int = 0, **kwargs: Any) -> None:
        self.item, self.at_least, self.at_most = item, at_least, at_most
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list):
            raise Faults([Fault(errors.NOT_A_LIST)])
        if len(data) < self.at_least:
            raise Faults([Fault(errors.MIN_LIST_ITEMS, params={"limit_value": self.at_least})])
        if len(data) > self.at_most:
            raise Faults([Fault(errors.MAX_LIST_ITEMS, params={"limit_value": self.at_most})])
        values, faults = [], []
        for i, value in enumerate(data):
            try:
                values.append(self.item.run_validation(value))
            except Faults as error:
                faults += [fault.under(i) for fault in error.detail]
        if faults:
            raise Faults(faults)
        return values

    @property
    def schema(self) -> dict[str, Any]:
        least = {"minItems": self.at_least} if self.at_least else {}
        return {"type": "array", "items": self.item.schema, **least, "maxItems": self.at_most, **super().schema}


class ObjectField(WireField):
    """A JSON object with these keys and no others."""

    def __init__(self, keys: Mapping[str, WireField], **kwargs: Any) -> None:
        self.keys = keys
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return read_object(self.keys, data)

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "required": [name for name, field in self.keys.items() if field.required],
            "properties": {name: field.schema_in_body for name, field in self.keys.items()},
            "additionalProperties": False,
            **super().schema,
        }


# Requests: the fields of messages and threads


class ContentField(TextField):
    """A message's content as a string. Returns the content to store: a list with one text part."""

    def __init__(self, at_most: int = MAX_CONTENT_CHARACTERS, **kwargs: Any) -> None:
        super().__init__(at_least=1, at_most=at_most, **kwargs)

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        return [text_part(super().to_internal_value(data))]


class PartField(WireField):
    """One part of a message's content: an object with `type`, and another key whose name is that type."""

    image = {"detail": EnumField(["auto", "low", "high"], required=False)}
    kinds: Mapping[str, WireField] = {
        "text": TextField(at_least=1),
        "image_file": ObjectField({"file_id": TextField(at_least=1), **image}),
        "image_url": ObjectField({"url": TextField(at_least=1), **image}),
    }
    type_of_part = EnumField(kinds)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise Faults([Fault(errors.NOT_A_DICT)])
        values, faults = read_keys({"type": self.type_of_part}, data)
        if faults:
            raise Faults(faults)
        kind = values["type"]
        value = read_object({"type": self.type_of_part, kind: self.kinds[kind]}, data)[kind]
        if kind == "text":
            return text_part(value)
        return {"type": kind, kind: {key: item for key, item in value.items() if item is not None}}

    @property
    def schema(self) -> dict[str, Any]:
        parts = [ObjectField({"type": EnumField([kind]), kind: field}) for kind, field in self.kinds.items()]
        return {"oneOf": [part.schema for part in parts], **super().schema}


class ContentOrPartsField(ContentField):
    """A message's content as a string or a list of parts.

    The length limit applies to the string, or to the text of all parts together.
    """

    parts = ListField(PartField(), at_least=1, at_most=MAX_PARTS)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(at_most=MAX_CONTENT_CHARACTERS_V2, **kwargs)

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        if not isinstance(data, list):
            return super().to_internal_value(data)
        parts = self.parts.to_internal_value(data)
        if sum(len(part["text"]["value"]) for part in parts if part["type"] == "text") > MAX_CONTENT_CHARACTERS_V2:
            raise Faults([Fault(errors.MAX_LENGTH, params={"limit_value": MAX_CONTENT_CHARACTERS_V2})])
        return parts

    @property
    def schema(self) -> dict[str, Any]:
        return {"anyOf": [TextField(self.at_least, self.at_most).schema, self.parts.schema], **self.words}


class FileIdsField(ListField):
    """A list of file ids. The service does not look up the ids, and keeps repeated ids."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(TextField(), at_most=MAX_FILES_OF_MESSAGE, **kwargs)


class AttachmentsField(ListField):
    """A list of files, each with the tools that may use it."""

    def __init__(self, **kwargs: Any) -> None:
        tool = ObjectField({"type": EnumField(["code_interpreter", "file_search"])})
        tools = ListField(tool, at_most=MAX_TOOLS, required=False, default=list)
        super().__init__(ObjectField({"file_id": TextField(), "tools": tools}), at_most=MAX_FILES_OF_MESSAGE, **kwargs)


class AuthorField(TextField):
    """The id of an assistant or a run. An empty string means no id."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(at_most=MAX_AUTHOR_CHARACTERS, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(data) or self.get_default()


class MetadataField(WireField):
    """Metadata: at most 16 pairs of strings. A key has at most 64 characters, and a value at most 512."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise Faults([Fault(errors.NOT_A_DICT)])
        if self.count(data) > MAX_METADATA_PAIRS:
            raise Faults([Fault(errors.MAX_DICT_ITEMS, params={"limit_value": MAX_METADATA_PAIRS})])
        faults = [fault for key, value in data.items() if (fault := self.fault_of_pair(key, value))]
        if faults:
            raise Faults(faults)
        return data

    def count(self, pairs: dict[str, Any]) -> int:
        return len(pairs)

    def fault_of_pair(self, key: str, value: Any) -> Fault | None:
        """Return the first error of a pair. The value of an invalid key is not validated."""
        fault = text_fault(key, "__key__", at_most=MAX_METADATA_KEY_CHARACTERS)
        return fault or text_fault(value, key, at_most=MAX_METADATA_VALUE_CHARACTERS)

    @property
    def schema(self) -> dict[str, Any]:
        return {**METADATA_SCHEMA, **super().schema}


class MetadataChangesField(MetadataField):
    """Changes to metadata. A string sets a key, and null removes it. Keys to remove do not count towards the limit."""

    def count(self, pairs: dict[str, Any]) -> int:
        return sum(value is not None for value in pairs.values())

    def fault_of_pair(self, key: str, value: Any) -> Fault | None:
        return super().fault_of_pair(key, "" if value is None else value)

    @property
    def schema(self) -> dict[str, Any]:
        value = {"type": ["string", "null"], "maxLength": MAX_METADATA_VALUE_CHARACTERS, **NO_NUL}
        schema = {**super().schema, "additionalProperties": value, "description": METADATA_CHANGES}
        del schema["maxProperties"]  # a body may contain any number of keys to remove
        return schema


METADATA_SCHEMA = {
    "title": "Metadata",
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE_CHARACTERS, **NO_NUL},
    "propertyNames": {"maxLength": MAX_METADATA_KEY_CHARACTERS, **NO_NUL},
    "maxProperties": MAX_METADATA_PAIRS,
    "examples": [{"topic": "ai"}],
    # Copied from the reference page, including its spelling.
    "description": "Set of 16 key-value pairs that can be attached to an object. This can be useful for storing "
    "additional information about the object in a structured format. Keys can be a maximum of 64 characters long and "
    "values can be a maxium of 512 characters long.",
}
METADATA_CHANGES = (
    "The keys to change. A text sets the key, null removes it, and other keys keep their values. The result has at "
    "most 16 pairs. A key has at most 64 characters and a value at most 512."
)


class IgnoredField(WireField):
    """Any JSON value. The field accepts the value, but the service does not store it."""

    def run_validation(self, data: Any = empty) -> None:
        return None


# Requests: the query parameters of lists. Their values are strings.


class LimitField(WireField):
    """The maximum number of rows in a page, from 1 to 100."""

    integer = re.compile("[+-]?[0-9]+")

    def to_internal_value(self, data: str) -> int:
        if not self.integer.fullmatch(data):
            raise Faults([Fault(errors.NOT_AN_INTEGER)])
        digits = data.lstrip("+-").lstrip("0")
        # Python cannot convert more than 4300 digits. The first four digits are enough to see that the limit is too
        # large.
        limit = int(digits[:4] or "0") * (-1 if data.startswith("-") else 1)
        if limit < 1:
            raise Faults([Fault(errors.NOT_GE, params={"limit_value": 1})])
        if limit > MAX_LIMIT:
            raise Faults([Fault(errors.NOT_LE, params={"limit_value": MAX_LIMIT})])
        return limit

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}


class NameInQueryField(WireField):
    """A string in a query. An empty string counts as absent."""

    def to_internal_value(self, data: str) -> str | None:
        return data or None

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", **super().schema}


# Responses


class UnixSecondsField(ShownField):
    """A time, shown as an integer: Unix seconds (UTC)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({"type": "integer"}, **kwargs)

    @property
    def show(self) -> Callable[[Any], Any]:
        moment = super().show
        return lambda shown: int(moment(shown).timestamp())


class ConstantField(ShownField):
    """A value that is the same in every response."""

    def __init__(self, value: Any, schema: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.value = value
        super().__init__(schema, **kwargs)

    @property
    def show(self) -> Callable[[Any], Any]:
        return lambda shown: self.value


class AuthorShownField(ShownField):
    """The id of an assistant or a run. If there is none, the field shows its serializer's `no_author`."""

    @property
    def show(self) -> Callable[[Any], Any]:
        author, no_author = super().show, self.no_author
        return lambda shown: author(shown) or no_author

    @property
    def no_author(self) -> str | None:
        author: str | None = self.parent.no_author  # type: ignore[attr-defined]
        return author

    @property
    def schema(self) -> dict[str, Any]:
        return {**super().schema, **({"type": ["string", "null"]} if self.no_author is None else {})}
