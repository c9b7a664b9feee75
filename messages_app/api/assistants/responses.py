"""The responses of /threads, in the default shape and in the shape that `OpenAI-Beta: assistants=v2` selects."""

from typing import Any, NamedTuple

from drf_spectacular.utils import extend_schema_serializer

from messages_app.api.base import ResponseSerializer, ShownField
from messages_app.api.fields import METADATA_SCHEMA, AttachmentsField, AuthorShownField, ConstantField, UnixSecondsField
from messages_app.models import Message

TEXT = {"type": "string"}


def object_field(name: str, **schema: str) -> ConstantField:
    description = f"The object type, which is always {name}."
    return ConstantField(name, {**schema, **TEXT, "enum": [name]}, help_text=description)


def object_id_field() -> ShownField:
    return ShownField(TEXT, source="object_id", label="Id", required=False, help_text="MongoDB document ObjectID")


def id_field() -> ShownField:
    return ShownField(TEXT, help_text="The identifier, which can be referenced in API endpoints.")


def created_at_field(noun: str) -> UnixSecondsField:
    return UnixSecondsField(help_text=f"The Unix timestamp (in seconds) for when the {noun} was created.")


@extend_schema_serializer(component_name="MessageObject")
class MessageSerializer(ResponseSerializer):
    no_author: str | None = ""

    _id = object_id_field()
    id = id_field()
    object = object_field("thread.message", title="Object25")
    created_at = created_at_field("message")
    thread_id = ShownField(TEXT, help_text="The thread ID that this message belongs to.")
    role = ShownField(
        {"title": "Role7", **TEXT, "enum": Message.Role.values},
        help_text="The entity that produced the message. One of user or assistant.",
    )
    content = ShownField(
        {
            "type": "array",
            "items": {},
            "description": "The content of the message in array of text and/or images.",
            "examples": [[{"type": "text", "text": {"value": "How does AI work?", "annotations": []}}]],
        }
    )
    assistant_id = AuthorShownField(
        TEXT, help_text="If applicable, the ID of the assistant that authored this message."
    )
    run_id = AuthorShownField(
        TEXT, help_text="If applicable, the ID of the run associated with the authoring of this message."
    )
    file_ids = ShownField(
        {"type": "array", "items": TEXT},
        help_text="A list of file IDs that the assistant should use. Useful for tools like retrieval and "
        "code_interpreter that can access files. A maximum of 10 files can be attached to a message.",
    )
    metadata = ShownField(METADATA_SCHEMA)


@extend_schema_serializer(component_name="MessageObjectV2")
class MessageV2Serializer(MessageSerializer):
    no_author = None

    status = ConstantField("completed", {**TEXT, "enum": ["completed"]})
    completed_at = UnixSecondsField(source="created_at")
    incomplete_at = ConstantField(None, {"type": "null"})
    incomplete_details = ConstantField(None, {"type": "null"})
    attachments = ShownField({**AttachmentsField().schema, "title": "Attachments"})

    def get_fields(self) -> dict[str, Any]:
        """Return the fields without the titles Role7 and Object25.

        These titles are copied from the reference page, which describes only the default shape.
        """
        fields: dict[str, Any] = super().get_fields()
        for name in ("object", "role"):
            del fields[name].words["title"]
        return fields


@extend_schema_serializer(component_name="ThreadObject")
class ThreadSerializer(ResponseSerializer):
    _id = object_id_field()
    id = id_field()
    object = object_field("thread")
    created_at = created_at_field("thread")
    metadata = ShownField(METADATA_SCHEMA)


@extend_schema_serializer(component_name="ThreadObjectV2")
class ThreadV2Serializer(ThreadSerializer):
    tool_resources = ConstantField(None, {"type": "null"})


@extend_schema_serializer(component_name="MessageFileObject")
class MessageFileSerializer(ResponseSerializer):
    id = id_field()
    object = object_field("thread.message.file")
    created_at = created_at_field("message")
    message_id = ShownField(TEXT, help_text="The message that the file belongs to.")


class Deleted(NamedTuple):
    """The id of a thread or message that was deleted."""

    id: str


def deleted(component_name: str, name: str) -> type[ResponseSerializer]:
    """Return a serializer class for the response to a deletion. It renders a Deleted."""

    class DeletedSerializer(ResponseSerializer):
        id = id_field()
        object = object_field(name)
        deleted = ConstantField(True, {"type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(DeletedSerializer)


def list_of(component_name: str, item: type[ResponseSerializer]) -> type[ResponseSerializer]:
    """Return a serializer class for one page of a list. It renders a Page."""

    class PageSerializer(ResponseSerializer):
        object = object_field("list")
        # DRF moves declared fields out of the class, so this field does not replace the property `Serializer.data`.
        data = item(many=True, source="rows")  # type: ignore[assignment]
        first_id = ShownField({"type": ["string", "null"]})
        last_id = ShownField({"type": ["string", "null"]})
        has_more = ShownField({"type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(PageSerializer)


ThreadDeletedSerializer = deleted("ThreadDeleted", "thread.deleted")
MessageDeletedSerializer = deleted("MessageDeleted", "thread.message.deleted")
MessageFileListSerializer = list_of("MessageFileList", MessageFileSerializer)
