"""The responses of /threads in both shapes: the default one, and that of `OpenAI-Beta: assistants=v2`."""

from typing import NamedTuple

from drf_spectacular.utils import extend_schema_serializer

from messages_app.api.base import ResponseSerializer, ShownField
from messages_app.api.fields import (
    METADATA_SCHEMA,
    AttachmentsField,
    AuthorShownField,
    ConstantField,
    UnixSecondsField,
)
from messages_app.models import Message

OBJECT_ID_SCHEMA = {"title": "Id", "type": "string", "description": "MongoDB document ObjectID"}
ID_SCHEMA = {
    "title": "Id",
    "type": "string",
    "description": "The identifier, which can be referenced in API endpoints.",
}


def object_field(name: str, title: str = "Object") -> ConstantField:
    description = f"The object type, which is always {name}."
    return ConstantField(name, {"title": title, "type": "string", "enum": [name], "description": description})


@extend_schema_serializer(component_name="MessageObject")
class MessageSerializer(ResponseSerializer):
    no_author: str | None = ""

    _id = ShownField(OBJECT_ID_SCHEMA, source="object_id", label="Id", required=False)
    id = ShownField(ID_SCHEMA)
    object = object_field("thread.message", title="Object25")
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
            "examples": [[{"type": "text", "text": {"value": "How does AI work?", "annotations": []}}]],
        }
    )
    assistant_id = AuthorShownField(
        {
            "title": "Assistant Id",
            "type": "string",
            "description": "If applicable, the ID of the assistant that authored this message.",
        }
    )
    run_id = AuthorShownField(
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


@extend_schema_serializer(component_name="MessageObjectV2")
class MessageV2Serializer(MessageSerializer):
    no_author = None

    status = ConstantField("completed", {"title": "Status", "type": "string", "enum": ["completed"]})
    completed_at = UnixSecondsField({"title": "Completed At", "type": "integer"}, source="created_at")
    incomplete_at = ConstantField(None, {"title": "Incomplete At", "type": "null"})
    incomplete_details = ConstantField(None, {"title": "Incomplete Details", "type": "null"})
    attachments = ShownField({**AttachmentsField().schema, "title": "Attachments"})


@extend_schema_serializer(component_name="ThreadObject")
class ThreadSerializer(ResponseSerializer):
    _id = ShownField(OBJECT_ID_SCHEMA, source="object_id", label="Id", required=False)
    id = ShownField(ID_SCHEMA)
    object = object_field("thread")
    created_at = UnixSecondsField(
        {
            "title": "Created At",
            "type": "integer",
            "description": "The Unix timestamp (in seconds) for when the thread was created.",
        }
    )
    metadata = ShownField(METADATA_SCHEMA)


@extend_schema_serializer(component_name="ThreadObjectV2")
class ThreadV2Serializer(ThreadSerializer):
    tool_resources = ConstantField(None, {"title": "Tool Resources", "type": "null"})


@extend_schema_serializer(component_name="MessageFileObject")
class MessageFileSerializer(ResponseSerializer):
    id = ShownField(ID_SCHEMA)
    object = object_field("thread.message.file")
    created_at = UnixSecondsField(
        {
            "title": "Created At",
            "type": "integer",
            "description": "The Unix timestamp (in seconds) for when the message was created.",
        }
    )
    message_id = ShownField(
        {"title": "Message Id", "type": "string", "description": "The message that the file belongs to."}
    )


class Deleted(NamedTuple):
    """A thread or message that was deleted."""

    id: str


def deleted(component_name: str, name: str) -> type[ResponseSerializer]:
    """Return a serializer that confirms a deletion. It shows a Deleted."""

    class DeletedSerializer(ResponseSerializer):
        id = ShownField(ID_SCHEMA)
        object = object_field(name)
        deleted = ConstantField(True, {"title": "Deleted", "type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(DeletedSerializer)


def list_of(component_name: str, item: type[ResponseSerializer]) -> type[ResponseSerializer]:
    """Return a serializer for a page of a list. It shows a Page."""

    class PageSerializer(ResponseSerializer):
        object = object_field("list")
        data = item(many=True, source="rows")  # type: ignore[assignment]  # DRF takes fields out of the class
        first_id = ShownField({"title": "First Id", "type": ["string", "null"]})
        last_id = ShownField({"title": "Last Id", "type": ["string", "null"]})
        has_more = ShownField({"title": "Has More", "type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(PageSerializer)


ThreadDeletedSerializer = deleted("ThreadDeleted", "thread.deleted")
MessageDeletedSerializer = deleted("MessageDeleted", "thread.message.deleted")
MessageFileListSerializer = list_of("MessageFileList", MessageFileSerializer)
