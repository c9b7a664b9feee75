"""The values that a client may send, one class each, with its OpenAPI right under it.

A field takes a value of the parsed JSON and gives back what is stored, or raises Faults: all that is wrong with the
value, in order. Text is never made from another JSON type. Source: create-message contract, sections 6 and 7.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from rest_framework.exceptions import ValidationError
from rest_framework.fields import Field, empty

from messages_app.models import text_part

MAX_CONTENT_CHARACTERS = 32768
MAX_FILES = 10
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_CHARACTERS = 64
MAX_METADATA_VALUE_CHARACTERS = 512


class Fault(NamedTuple):
    """One error: its code, the steps from the value at hand to the place it is in, and the numbers of the rule."""

    code: str
    loc: tuple[str | int, ...] = ()
    params: Mapping[str, Any] = {}

    def under(self, step: str | int) -> "Fault":
        """The same error, seen from one step further out."""
        return Fault(self.code, (step, *self.loc), self.params)


class Faults(ValidationError):
    """DRF's ValidationError with an ordered list of Fault, which says more than DRF's own details (loc, params)."""

    detail: list[Fault]  # type: ignore[assignment]  # not one of DRF's own forms

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.detail = list(faults)


def text_fault(value: Any, *loc: str | int, at_least: int | None = None, at_most: int | None = None) -> Fault | None:
    """The first thing wrong with a text. Lengths count code points."""
    if value is None:
        return Fault("null", loc)
    if not isinstance(value, str):
        return Fault("not_a_string", loc)
    if at_least is not None and len(value) < at_least:
        return Fault("min_length", loc, {"limit_value": at_least})
    if at_most is not None and len(value) > at_most:
        return Fault("max_length", loc, {"limit_value": at_most})
    if "\0" in value:
        return Fault("null_characters_not_allowed", loc)
    if not value.isascii() and _has_surrogate(value):
        return Fault("surrogate_characters_not_allowed", loc)
    return None


def _has_surrogate(value: str) -> bool:
    try:
        value.encode()  # far faster than a search
    except UnicodeEncodeError:
        return True
    return False


class WireField(Field[Any, Any, Any, Any]):
    """A field that judges for itself. Where it is not required, null counts as absent, and absent is the default."""

    def run_validation(self, data: Any = empty) -> Any:
        if data is None or data is empty:
            if self.required:
                raise Faults([Fault("required" if data is empty else "null")])
            return self.get_default()
        return self.to_internal_value(data)


class RoleField(WireField):
    def __init__(self, permitted: Iterable[str], **kwargs: Any) -> None:
        self.permitted = list(permitted)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and data in self.permitted:
            return data
        raise Faults([Fault("invalid_choice", params={"enum_values": self.permitted})])


class RoleFieldExtension(OpenApiSerializerFieldExtension):
    target_class = RoleField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {
            "title": "Role8",
            "type": "string",
            "enum": self.target.permitted,
            "description": "The role of the entity that is creating the message. Currently only user is supported.",
        }


class ContentField(WireField):
    """A text, stored as the one part of a message's content."""

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        fault = text_fault(data, at_least=1, at_most=MAX_CONTENT_CHARACTERS)
        if fault:
            raise Faults([fault])
        return [text_part(data)]


class ContentFieldExtension(OpenApiSerializerFieldExtension):
    target_class = ContentField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {
            "title": "Content",
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_CONTENT_CHARACTERS,
            "description": "The content of the message.",
        }


class FileIdsField(WireField):
    """A list of file ids, which are not looked up; repeats keep their place."""

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            raise Faults([Fault("not_a_list")])
        if len(data) > MAX_FILES:
            raise Faults([Fault("max_list_items", params={"limit_value": MAX_FILES})])
        faults = [fault for i, item in enumerate(data) if (fault := text_fault(item, i))]
        if faults:
            raise Faults(faults)
        return data


class FileIdsFieldExtension(OpenApiSerializerFieldExtension):
    target_class = FileIdsField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {
            "title": "File Ids",
            "type": "array",
            "items": {"type": "string"},
            "maxItems": MAX_FILES,
            "description": "A list of File IDs that the message should use. There can be a maximum of 10 files "
            "attached to a message. Useful for tools like retrieval and code_interpreter that can access and use "
            "files.",
        }


class MetadataField(WireField):
    """At most 16 pairs of text, of which keys and values have limits of their own."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise Faults([Fault("not_a_dict")])
        if len(data) > MAX_METADATA_PAIRS:
            raise Faults([Fault("max_dict_items", params={"limit_value": MAX_METADATA_PAIRS})])
        faults = list(self.faults_of_pairs(data))
        if faults:
            raise Faults(faults)
        return data

    def faults_of_pairs(self, pairs: dict[str, Any]) -> Iterator[Fault]:
        """At most one fault a pair, in the order of the pairs; the value of a bad key is not looked at."""
        for key, value in pairs.items():
            fault = text_fault(key, "__key__", at_most=MAX_METADATA_KEY_CHARACTERS) or text_fault(
                value, key, at_most=MAX_METADATA_VALUE_CHARACTERS
            )
            if fault:
                yield fault


METADATA_SCHEMA = {
    "title": "Metadata",
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE_CHARACTERS},
    "propertyNames": {"maxLength": MAX_METADATA_KEY_CHARACTERS},
    "maxProperties": MAX_METADATA_PAIRS,
    # The reference page's own words and spelling.
    "description": "Set of 16 key-value pairs that can be attached to an object. This can be useful for storing "
    "additional information about the object in a structured format. Keys can be a maximum of 64 characters long and "
    "values can be a maxium of 512 characters long.",
}


class MetadataFieldExtension(OpenApiSerializerFieldExtension):
    target_class = MetadataField

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return METADATA_SCHEMA


class ShownField(Field[Any, Any, Any, Any]):
    """A value of an answer, shown as it is stored, with the schema that describes it."""

    def __init__(self, schema: dict[str, Any], **kwargs: Any) -> None:
        self.schema = schema
        super().__init__(**kwargs)

    def to_representation(self, value: Any) -> Any:
        return value


class UnixSecondsField(ShownField):
    """A moment as an integer of Unix seconds (UTC)."""

    def to_representation(self, value: Any) -> int:
        return int(value.timestamp())


class ShownFieldExtension(OpenApiSerializerFieldExtension):
    target_class = ShownField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = self.target.schema
        return schema
