"""The two shapes of /threads: which serializers each has."""

from typing import NamedTuple

from messages_app.api.assistants.requests import (
    CreateMessageSerializer,
    CreateMessageV2Serializer,
    CreateThreadSerializer,
    CreateThreadV2Serializer,
    ModifySerializer,
    ModifyThreadV2Serializer,
)
from messages_app.api.assistants.responses import (
    MessageSerializer,
    MessageV2Serializer,
    ThreadSerializer,
    ThreadV2Serializer,
    list_of,
)
from messages_app.api.base import ResponseSerializer


class Shape(NamedTuple):
    """The serializers that differ between the two shapes. All others serve both."""

    create_thread: type[CreateThreadSerializer]
    modify_thread: type[ModifySerializer]
    thread: type[ThreadSerializer]
    threads: type[ResponseSerializer]
    create_message: type[CreateMessageSerializer]
    message: type[MessageSerializer]
    messages: type[ResponseSerializer]


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
