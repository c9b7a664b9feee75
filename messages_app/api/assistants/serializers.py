"""The shapes of requests and answers: the default one, and that of `OpenAI-Beta: assistants=v2`."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, Self

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.fields import empty

from messages_app.api.fields import (
    DEFAULT_LIMIT,
    MAX_FILES,
    METADATA_SCHEMA,
    AttachmentsField,
    AuthorField,
    AuthorShownField,
    ConstantField,
    ContentField,
    ContentOrPartsField,
    EnumField,
    Fault,
    Faults,
    FileIdsField,
    IgnoredField,
    LimitField,
    ListField,
    MetadataChangesField,
    MetadataField,
    NameInQueryField,
    ShownField,
    UnixSecondsField,
    WireField,
    read_keys,
    read_object,
)
from messages_app.models import Message, Thread
from messages_app.models.base import MAX_METADATA_PAIRS, RowQuerySet, TooManyPairs
from messages_app.models.idempotency import Creation, IdempotencyRecord
from messages_app.models.thread import id_of_seed, seeded
from messages_app.store.messages import OneThread

MAX_MESSAGES = 100


class WireSerializer(serializers.Serializer[Any]):
    """One set of fields for all instances of a class, which belong to none of them. DRF copies them for each."""

    @property
    def fields(self) -> Any:
        return fields_of(type(self))

    @classmethod
    def shown(cls, value: Any) -> dict[str, Any]:
        """What clients get to see of a row, a page or a file: the `data` of a serializer of it, without making one."""
        return {name: show(value) for name, show in shows_of(cls)}

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return self.shown(instance)


@cache
def fields_of(serializer_class: type[WireSerializer]) -> Any:
    # Of an instance without data: fields keep their parent, and with it all that it was given.
    return serializers.Serializer.fields.func(serializer_class())  # type: ignore[attr-defined]


@cache
def shows_of(serializer_class: type[WireSerializer]) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(name, show_of(field)) for name, field in fields_of(serializer_class).items()]


def show_of(field: Any) -> Callable[[Any], Any]:
    """What makes of the object that is shown what this field shows."""
    if isinstance(field, serializers.ListSerializer):
        item: Any = type(field.child)
        rows = attrgetter(str(field.source))
        return lambda page: [item.shown(row) for row in rows(page)]
    show: Callable[[Any], Any] = field.show
    return show


class WireSerializerExtension(OpenApiSerializerExtension):
    target_class = WireSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        schema.pop("description", None)  # the class's docstring, which speaks to programmers
        return {**schema, "additionalProperties": False} if isinstance(self.target, BodySerializer) else schema


class SentSerializer(WireSerializer):
    """What a client sends in one part of its request, `body` or `query`; raises Faults."""

    sent_in: str
    _errors: list[Fault]

    @classmethod
    def of(cls, data: Any) -> Self:
        """A serializer of this data, sound or not. DRF's constructor looks through all base classes each time."""
        serializer = cls.__new__(cls)
        vars(serializer).update(state_of(cls), initial_data=data)
        return serializer

    def is_valid(self, *, raise_exception: bool = False) -> bool:
        valid = super().is_valid()
        if raise_exception and not valid:
            raise Faults(self._errors, self.sent_in)  # DRF's own would drop where and why
        return valid


@cache
def state_of(serializer_class: type[SentSerializer]) -> dict[str, Any]:
    """What DRF's constructor sets, for all without arguments the same."""
    return vars(serializer_class())


class BodySerializer(SentSerializer):
    """A JSON object with these fields and no others. Finds every error: of the fields in order, then extra keys."""

    sent_in = "body"

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        if data is None or data is empty:
            raise Faults([Fault("required")])
        return read_object(self.fields, data)


class QuerySerializer(SentSerializer):
    """Keys of the query. Of a repeated one the last counts; those that are not known are ignored."""

    sent_in = "query"

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        values, faults = read_keys(self.fields, data)
        if faults:
            raise Faults(faults)
        return values


# Requests


@extend_schema_serializer(component_name="CreateMessageRequest")
class CreateMessageSerializer(BodySerializer):
    role = EnumField(
        ["user"],
        schema={
            "title": "Role8",
            "description": "The role of the entity that is creating the message. Currently only user is supported.",
        },
    )
    content = ContentField(schema={"title": "Content", "description": "The content of the message."})
    file_ids = FileIdsField(
        required=False,
        default=list,
        schema={
            "title": "File Ids",
            "description": "A list of File IDs that the message should use. There can be a maximum of 10 files "
            "attached to a message. Useful for tools like retrieval and code_interpreter that can access and use "
            "files.",
        },
    )
    metadata = MetadataField(required=False, default=dict)

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        values = super().run_validation(data)
        values["attachments"] = attached(values.get("attachments", []), values.pop("file_ids"))
        return values

    def create(self, validated_data: dict[str, Any]) -> Message:
        """Takes tenant and thread_id from `save`. Raises Thread.DoesNotExist."""
        thread = OneThread(validated_data.pop("tenant"), validated_data.pop("thread_id"))
        return thread.append(**validated_data)

    def creation(self, show: Callable[[Message], bytes], tenant: str, thread_id: str) -> Creation:
        """The same, for requests with an idempotency key."""
        thread = OneThread(tenant, thread_id)
        given = {**self.validated_data, "tenant": tenant, "thread_id": thread_id}

        def is_there(record: IdempotencyRecord) -> bool:
            thread.require()
            return Message.objects.visible_in(thread_id).filter(id=record.message_id).exists()

        return Creation(
            identify=lambda at, seed: (thread_id, id_of_seed("msg", at, seed)),
            require=thread.require,
            store=lambda at, seed: self.create({**given, "at": at, "seed": seed}),
            show=show,
            is_there=is_there,
        )


@extend_schema_serializer(component_name="CreateMessageRequestV2")
class CreateMessageV2Serializer(CreateMessageSerializer):
    # Every field again: errors are told in this order, and DRF would put the inherited ones first.
    role = EnumField(
        ["user", "assistant"],
        schema={"title": "Role", "description": "The role of the entity that is creating the message."},
    )
    content = ContentOrPartsField(
        schema={"title": "Content", "description": "The content of the message: a text, or parts."}
    )
    file_ids = FileIdsField(
        required=False, default=list, schema={"title": "File Ids", "description": "Files without tools."}
    )
    metadata = MetadataField(required=False, default=dict)
    attachments = AttachmentsField(
        required=False,
        default=list,
        schema={
            "title": "Attachments",
            "description": "The files of the message, and the tools that each is for. At most 10 with file_ids.",
        },
    )
    assistant_id = AuthorField(
        required=False, default="", schema={"title": "Assistant Id", "description": "The assistant that wrote it."}
    )
    run_id = AuthorField(required=False, schema={"title": "Run Id", "description": "The run that it was written in."})


def attached(attachments: list[dict[str, Any]], file_ids: list[str]) -> list[dict[str, Any]]:
    """The files of a message: the attachments, then those files that none of them names."""
    named = {attachment["file_id"] for attachment in attachments}
    files = attachments + [{"file_id": file_id, "tools": []} for file_id in file_ids if file_id not in named]
    if len(files) > MAX_FILES:
        raise Faults([Fault("max_list_items", ("attachments",), {"limit_value": MAX_FILES})])
    return files


class MessageField(WireField):
    """A message of a thread that is being made."""

    def __init__(self, message: type[CreateMessageSerializer], **kwargs: Any) -> None:
        self.message = message
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return self.message.of(data).run_validation(data)

    @property
    def schema(self) -> dict[str, Any]:
        name = self.message._spectacular_annotation["component_name"]  # type: ignore[attr-defined]
        return {"$ref": f"#/components/schemas/{name}"}  # a component of Create Message


def messages_field(message: type[CreateMessageSerializer]) -> ListField:
    description = "Messages to start the thread with: all are stored, or none."
    schema = {"title": "Messages", "description": description}
    return ListField(MessageField(message), at_most=MAX_MESSAGES, required=False, default=list, schema=schema)


@extend_schema_serializer(component_name="CreateThreadRequest")
class CreateThreadSerializer(BodySerializer):
    messages = messages_field(CreateMessageSerializer)
    metadata = MetadataField(required=False, default=dict)

    def run_validation(self, data: Any = empty) -> dict[str, Any]:
        return super().run_validation({} if data is None else data)

    def create(self, validated_data: dict[str, Any]) -> Thread:
        """Takes tenant from `save`."""
        at, rng = validated_data.get("at"), seeded(validated_data.get("seed"))
        thread = Thread.new(at, rng, tenant=validated_data["tenant"], metadata=validated_data["metadata"])
        messages = [
            Message.new(at, rng, thread=thread, position=position, **values)
            for position, values in enumerate(validated_data["messages"], start=1)
        ]
        return Thread.objects.store_once(thread, messages)

    def creation(self, show: Callable[[Thread], bytes], tenant: str) -> Creation:
        """The same, for requests with an idempotency key."""
        given = {**self.validated_data, "tenant": tenant}
        return Creation(
            identify=lambda at, seed: (id_of_seed("thread", at, seed), ""),
            require=lambda: None,
            store=lambda at, seed: self.create({**given, "at": at, "seed": seed}),
            show=show,
            is_there=lambda record: Thread.objects.of_tenant(tenant).filter(id=record.thread_id).exists(),
        )


_TOOL_RESOURCES: dict[str, Any] = {"title": "Tool Resources", "description": "Taken, and not stored."}


@extend_schema_serializer(component_name="CreateThreadRequestV2")
class CreateThreadV2Serializer(CreateThreadSerializer):
    messages = messages_field(CreateMessageV2Serializer)
    metadata = MetadataField(required=False, default=dict)
    tool_resources = IgnoredField(required=False, schema=_TOOL_RESOURCES)


@extend_schema_serializer(component_name="ModifyRequest")
class ModifySerializer(BodySerializer):
    metadata = MetadataChangesField(required=False, default=dict)

    def change(self, rows: RowQuerySet[Any], public_id: str) -> Any:
        """Changes that one of the rows and returns it. Raises DoesNotExist, and Faults for what depends on the row."""
        changes = self.validated_data["metadata"]
        if not changes:
            return rows.by_id(public_id)
        try:
            return rows.merge_metadata(public_id, changes)
        except TooManyPairs as error:
            params = {"limit_value": MAX_METADATA_PAIRS}
            raise Faults([Fault("max_dict_items", ("metadata",), params)]) from error


@extend_schema_serializer(component_name="ModifyThreadRequestV2")
class ModifyThreadV2Serializer(ModifySerializer):
    tool_resources = IgnoredField(required=False, schema=_TOOL_RESOURCES)


class ListQuerySerializer(QuerySerializer):
    limit = LimitField(required=False, default=DEFAULT_LIMIT, help_text="How many are shown at most.")
    order = EnumField(
        ["asc", "desc"], required=False, default="desc", schema={"default": "desc"}, help_text="asc: oldest first."
    )
    after = NameInQueryField(
        required=False, help_text="An id of this list: only what comes after it, in the list's order."
    )
    before = NameInQueryField(
        required=False,
        default=None,
        help_text="An id of this list: only what comes before it, and of that what is nearest to it.",
    )


class ListMessagesQuerySerializer(ListQuerySerializer):
    run_id = NameInQueryField(required=False, help_text="Only what was written in this run.")


_METADATA_KEY = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    """The pairs that `metadata[KEY]=VALUE` asks for."""
    return {match[1]: query[name] for name in query if (match := _METADATA_KEY.fullmatch(name))}


# Answers

_OBJECT_ID = {"title": "Id", "type": "string", "description": "MongoDB document ObjectID"}
_ID = {"title": "Id", "type": "string", "description": "The identifier, which can be referenced in API endpoints."}


def object_field(name: str, title: str = "Object") -> ConstantField:
    description = f"The object type, which is always {name}."
    return ConstantField(name, {"title": title, "type": "string", "enum": [name], "description": description})


@extend_schema_serializer(component_name="MessageObject")
class MessageSerializer(WireSerializer):
    no_author: str | None = ""

    _id = ShownField(_OBJECT_ID, source="object_id", label="Id", required=False)
    id = ShownField(_ID)
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
class ThreadSerializer(WireSerializer):
    _id = ShownField(_OBJECT_ID, source="object_id", label="Id", required=False)
    id = ShownField(_ID)
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
class MessageFileSerializer(WireSerializer):
    id = ShownField(_ID)
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
    """What is left of a thread or a message for its answer."""

    id: str


def deleted(component_name: str, name: str) -> type[WireSerializer]:
    """What says that something is deleted; made from a Deleted."""

    class DeletedSerializer(WireSerializer):
        id = ShownField(_ID)
        object = object_field(name)
        deleted = ConstantField(True, {"title": "Deleted", "type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(DeletedSerializer)


def list_of(component_name: str, item: type[WireSerializer]) -> type[WireSerializer]:
    """A page of a list; made from a Page."""

    class PageSerializer(WireSerializer):
        object = object_field("list")
        data = item(many=True, source="rows")  # type: ignore[assignment]  # DRF takes fields out of the class
        first_id = ShownField({"title": "First Id", "type": ["string", "null"]})
        last_id = ShownField({"title": "Last Id", "type": ["string", "null"]})
        has_more = ShownField({"title": "Has More", "type": "boolean"})

    return extend_schema_serializer(component_name=component_name)(PageSerializer)


ThreadDeletedSerializer = deleted("ThreadDeleted", "thread.deleted")
MessageDeletedSerializer = deleted("MessageDeleted", "thread.message.deleted")
MessageFileListSerializer = list_of("MessageFileList", MessageFileSerializer)


class Shape(NamedTuple):
    """The serializers of one shape of the API; those that are not here are the same in both."""

    create_thread: type[CreateThreadSerializer]
    modify_thread: type[ModifySerializer]
    thread: type[ThreadSerializer]
    threads: type[WireSerializer]
    create_message: type[CreateMessageSerializer]
    message: type[MessageSerializer]
    messages: type[WireSerializer]


DEFAULT = Shape(
    create_thread=CreateThreadSerializer,
    modify_thread=ModifySerializer,
    thread=ThreadSerializer,
    threads=list_of("ThreadList", ThreadSerializer),
    create_message=CreateMessageSerializer,
    message=MessageSerializer,
    messages=list_of("MessageList", MessageSerializer),
)
V2 = Shape(
    create_thread=CreateThreadV2Serializer,
    modify_thread=ModifyThreadV2Serializer,
    thread=ThreadV2Serializer,
    threads=list_of("ThreadListV2", ThreadV2Serializer),
    create_message=CreateMessageV2Serializer,
    message=MessageV2Serializer,
    messages=list_of("MessageListV2", MessageV2Serializer),
)
