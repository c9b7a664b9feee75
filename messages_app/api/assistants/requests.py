"""The requests of /threads, in the default shape and in the shape that `OpenAI-Beta: assistants=v2` selects."""

import re
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework.fields import empty

from messages_app.api import fields
from messages_app.api.base import BodySerializer, QuerySerializer, WireField, read_keys
from messages_app.api.errors import EXTRA, MAX_LIST_ITEMS, Fault, Faults

MAX_MESSAGES = 100


@extend_schema_serializer(component_name="CreateMessageRequest")
class CreateMessageSerializer(BodySerializer):
    role = fields.EnumField(
        ["user"],
        schema={"title": "Role8"},
        help_text="The role of the entity that is creating the message. Currently only user is supported.",
    )
    content = fields.ContentField(help_text="The content of the message.")
    file_ids = fields.FileIdsField(
        required=False,
        default=list,
        help_text="A list of File IDs that the message should use. There can be a maximum of 10 files attached to a "
        "message. Useful for tools like retrieval and code_interpreter that can access and use files.",
    )
    metadata = fields.MetadataField(required=False, default=dict)

    def validate(self, values: dict[str, Any]) -> dict[str, Any]:
        values["attachments"] = attached(values.get("attachments", []), values.pop("file_ids"))
        return values


@extend_schema_serializer(component_name="CreateMessageRequestV2")
class CreateMessageV2Serializer(CreateMessageSerializer):
    # Every field is repeated here, because errors follow the order of the fields and DRF puts inherited fields first.
    role = fields.EnumField(["user", "assistant"], help_text="The role of the entity that is creating the message.")
    content = fields.ContentOrPartsField(help_text="The content of the message: a text or a list of parts.")
    file_ids = fields.FileIdsField(required=False, default=list, help_text="The ids of files that no tool uses.")
    metadata = fields.MetadataField(required=False, default=dict)
    attachments = fields.AttachmentsField(
        required=False,
        default=list,
        help_text="The files of the message, each with the tools that can use it. A message has at most 10 files, "
        "including those of file_ids.",
    )
    assistant_id = fields.AuthorField(
        required=False, default="", schema={"description": "The ID of the assistant that wrote the message."}
    )
    run_id = fields.AuthorField(
        required=False, schema={"description": "The ID of the run that the message belongs to."}
    )


def attached(attachments: list[dict[str, Any]], file_ids: list[str]) -> list[dict[str, Any]]:
    """Return a message's files: the attachments, then the files that no attachment names.

    Raises Faults if there are too many files.
    """
    named = {attachment["file_id"] for attachment in attachments}
    files = attachments + [{"file_id": file_id, "tools": []} for file_id in file_ids if file_id not in named]
    if len(files) > fields.MAX_FILES_OF_MESSAGE:
        raise Faults([Fault(MAX_LIST_ITEMS, ("attachments",), {"limit_value": fields.MAX_FILES_OF_MESSAGE})])
    return files


class MessageField(WireField):
    """A message in the body of Create Thread."""

    def __init__(self, message: type[CreateMessageSerializer], **kwargs: Any) -> None:
        self.message = message
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return self.message.validated(data)

    @property
    def schema(self) -> dict[str, Any]:
        name = self.message._spectacular_annotation["component_name"]  # type: ignore[attr-defined]
        return {"$ref": f"#/components/schemas/{name}"}  # the operation Create Message defines this component


def messages_field(message: type[CreateMessageSerializer]) -> fields.ListField:
    words = "The first messages of the thread. Either all of them are stored or none."
    return fields.ListField(MessageField(message), at_most=MAX_MESSAGES, required=False, default=list, help_text=words)


@extend_schema_serializer(component_name="CreateThreadRequest")
class CreateThreadSerializer(BodySerializer):
    messages = messages_field(CreateMessageSerializer)
    metadata = fields.MetadataField(required=False, default=dict)

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        return super().run_validation({} if data is None else data)


@extend_schema_serializer(component_name="CreateThreadRequestV2")
class CreateThreadV2Serializer(CreateThreadSerializer):
    messages = messages_field(CreateMessageV2Serializer)
    metadata = fields.MetadataField(required=False, default=dict)
    tool_resources = fields.IgnoredField(required=False, help_text="Accepted, but not stored.")


@extend_schema_serializer(component_name="ModifyRequest")
class ModifySerializer(BodySerializer):
    metadata = fields.MetadataChangesField(required=False, default=dict)


@extend_schema_serializer(component_name="ModifyThreadRequestV2")
class ModifyThreadV2Serializer(ModifySerializer):
    tool_resources = fields.IgnoredField(required=False, help_text="Accepted, but not stored.")


class ListQuerySerializer(QuerySerializer):
    limit = fields.LimitField(
        required=False, default=fields.DEFAULT_LIMIT, help_text="The maximum number of objects in the list."
    )
    order = fields.EnumField(
        ["asc", "desc"],
        required=False,
        default="desc",
        schema={"default": "desc"},
        help_text="`asc`: oldest first. `desc`: newest first.",
    )
    after = fields.NameInQueryField(
        required=False, help_text="The id of an object in the list. Returns only objects after it in the list's order."
    )
    before = fields.NameInQueryField(
        required=False,
        default=None,
        help_text="The id of an object in the list. Returns only objects before it: those nearest to it.",
    )


_METADATA_KEY = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class ListThreadsQuerySerializer(ListQuerySerializer):
    """Adds `metadata`: the pairs that `metadata[KEY]=VALUE` asks for.

    Unlike the other queries, it rejects unknown parameters. Otherwise a request with a mistyped filter would return all
    threads. A script that deletes the returned threads would then delete all of them.
    """

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        values, faults = read_keys(self.fields, data)
        pairs = {}
        for name in data:
            if match := _METADATA_KEY.fullmatch(name):
                pairs[match[1]] = data[name]
            elif name not in self.fields:
                faults.append(Fault(EXTRA, (name,)))
        if faults:
            raise Faults(faults, root="query")
        return {**values, "metadata": pairs}


class ListMessagesQuerySerializer(ListQuerySerializer):
    run_id = fields.NameInQueryField(required=False, help_text="Returns only messages of this run.")
