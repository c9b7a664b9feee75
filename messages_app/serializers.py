"""The shapes of requests and answers."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.fields import empty

from messages_app.fields import (
    METADATA_SCHEMA,
    ContentField,
    Fault,
    Faults,
    FileIdsField,
    MetadataField,
    RoleField,
    ShownField,
    UnixSecondsField,
)
from messages_app.models import Message, Thread


class WireSerializer(serializers.Serializer[Any]):
    """One set of fields for all instances of a class. DRF copies them for each request; these hold nothing of it."""

    @property
    def fields(self) -> Any:
        serializer_class = type(self)
        if serializer_class not in _FIELDS:
            _FIELDS[serializer_class] = serializers.Serializer.fields.func(self)  # type: ignore[attr-defined]
        return _FIELDS[serializer_class]


_FIELDS: dict[type[serializers.Serializer[Any]], Any] = {}


class BodySerializer(WireSerializer):
    """A JSON object with these fields and no others. Finds every error: of the fields in order, then extra keys."""

    _errors: list[Fault]

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        if data is None or data is empty:
            raise Faults([Fault("required")])
        if not isinstance(data, dict):
            raise Faults([Fault("not_a_dict")])
        validated, faults = {}, []
        for name, field in self.fields.items():
            try:
                validated[name] = field.run_validation(data.get(name, empty))
            except Faults as error:
                faults += [fault.under(name) for fault in error.detail]
        faults += [Fault("extra", (key,)) for key in sorted(data.keys() - self.fields.keys())]
        if faults:
            raise Faults(faults)
        return validated

    def is_valid(self, *, raise_exception: bool = False) -> bool:
        valid = super().is_valid()
        if raise_exception and not valid:
            raise Faults(self._errors)  # DRF's own would drop where and why
        return valid


class BodySerializerExtension(OpenApiSerializerExtension):
    target_class = BodySerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        schema.pop("description", None)  # the class's docstring, which speaks to programmers
        return {**schema, "additionalProperties": False}


@extend_schema_serializer(component_name="CreateMessageRequest")
class CreateMessageSerializer(BodySerializer):
    role = RoleField(permitted=["user"])
    content = ContentField()
    file_ids = FileIdsField(required=False, default=list)
    metadata = MetadataField(required=False, default=dict)

    def create(self, validated_data: dict[str, Any]) -> Message:
        """Takes tenant and thread_id from `save`. Raises Thread.DoesNotExist."""
        file_ids = validated_data.pop("file_ids")
        attachments = [{"file_id": file_id, "tools": []} for file_id in file_ids]
        return Message.objects.append(**validated_data, attachments=attachments)


@extend_schema_serializer(component_name="CreateThreadRequest")
class CreateThreadSerializer(BodySerializer):
    metadata = MetadataField(required=False, default=dict)

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        return super().run_validation({} if data is None else data)

    def create(self, validated_data: dict[str, Any]) -> Thread:
        thread = Thread.new(**validated_data)
        thread.save(force_insert=True)
        return thread


_OBJECT_ID = {"title": "Id", "type": "string", "description": "MongoDB document ObjectID"}
_ID = {"title": "Id", "type": "string", "description": "The identifier, which can be referenced in API endpoints."}


@extend_schema_serializer(component_name="MessageObject")
class MessageSerializer(WireSerializer):
    _id = ShownField(_OBJECT_ID, source="object_id", label="Id", required=False)
    id = ShownField(_ID)
    object = ShownField(
        {
            "title": "Object25",
            "type": "string",
            "enum": ["thread.message"],
            "description": "The object type, which is always thread.message.",
        }
    )
    created_at = UnixSecondsField(
        {
            "title": "Created At",
            "type": "integer",
            "description": "The Unix timestamp (in seconds) for when the message was created.",
        }
    )
    thread_id = ShownField(
        {"title": "Thread Id", "type": "string", "description": "The thread ID that this message belongs to."}
    )
    role = ShownField(
        {
            "title": "Role7",
            "type": "string",
            "enum": Message.Role.values,
            "description": "The entity that produced the message. One of user or assistant.",
        }
    )
    content = ShownField(
        {
            "title": "Content",
            "type": "array",
            "items": {},
            "description": "The content of the message in array of text and/or images.",
        }
    )
    assistant_id = ShownField(
        {
            "title": "Assistant Id",
            "type": "string",
            "description": "If applicable, the ID of the assistant that authored this message.",
        }
    )
    run_id = ShownField(
        {
            "title": "Run Id",
            "type": "string",
            "description": "If applicable, the ID of the run associated with the authoring of this message.",
        }
    )
    file_ids = ShownField(
        {
            "title": "File Ids",
            "type": "array",
            "items": {"type": "string"},
            "description": "A list of file IDs that the assistant should use. Useful for tools like retrieval and "
            "code_interpreter that can access files. A maximum of 10 files can be attached to a message.",
        }
    )
    metadata = ShownField(METADATA_SCHEMA)


@extend_schema_serializer(component_name="ThreadObject")
class ThreadSerializer(WireSerializer):
    _id = ShownField(_OBJECT_ID, source="object_id", label="Id", required=False)
    id = ShownField(_ID)
    object = ShownField(
        {
            "title": "Object",
            "type": "string",
            "enum": ["thread"],
            "description": "The object type, which is always thread.",
        }
    )
    created_at = UnixSecondsField(
        {
            "title": "Created At",
            "type": "integer",
            "description": "The Unix timestamp (in seconds) for when the thread was created.",
        }
    )
    metadata = ShownField(METADATA_SCHEMA)
