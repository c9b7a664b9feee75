"""The serializers of the two shapes of /threads."""

from typing import NamedTuple

from messages_app.api.assistants import requests, responses
from messages_app.api.base import ResponseSerializer


class Shape(NamedTuple):
    """The serializers that differ between the two shapes. The shapes share all other serializers."""

    create_thread: type[requests.CreateThreadSerializer]
    modify_thread: type[requests.ModifySerializer]
    thread: type[responses.ThreadSerializer]
    threads: type[ResponseSerializer]
    create_message: type[requests.CreateMessageSerializer]
    message: type[responses.MessageSerializer]
    messages: type[ResponseSerializer]


DEFAULT = Shape(
    create_thread=requests.CreateThreadSerializer,
    modify_thread=requests.ModifySerializer,
    thread=responses.ThreadSerializer,
    threads=responses.list_of("ThreadList", responses.ThreadSerializer),
    create_message=requests.CreateMessageSerializer,
    message=responses.MessageSerializer,
    messages=responses.list_of("MessageList", responses.MessageSerializer),
)
V2 = Shape(
    create_thread=requests.CreateThreadV2Serializer,
    modify_thread=requests.ModifyThreadV2Serializer,
    thread=responses.ThreadV2Serializer,
    threads=responses.list_of("ThreadListV2", responses.ThreadV2Serializer),
    create_message=requests.CreateMessageV2Serializer,
    message=responses.MessageV2Serializer,
    messages=responses.list_of("MessageListV2", responses.MessageV2Serializer),
)
