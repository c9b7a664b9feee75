"""What the OpenAPI schema says of each operation: a decorator for each method of the views."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)

from messages_app.api.assistants.requests import ListMessagesQuerySerializer, ListQuerySerializer, ModifySerializer
from messages_app.api.assistants.responses import (
    MessageDeletedSerializer,
    MessageFileListSerializer,
    MessageFileSerializer,
    ThreadDeletedSerializer,
)
from messages_app.api.assistants.shapes import DEFAULT, V2, Shape


def in_path(name: str) -> OpenApiParameter:
    """Return the parameter of an id in the path."""
    title = name.replace("_", " ").title()
    return OpenApiParameter(name, {"title": title, "type": "string"}, OpenApiParameter.PATH)


def either(component_name: str, of_shape: Callable[[Shape], Any]) -> Any:
    """Return the schema of a body that differs between the two shapes: one of both forms."""
    forms = [of_shape(DEFAULT), of_shape(V2)]
    return PolymorphicProxySerializer(component_name, forms, resource_type_field_name=None)


def operation(operation_id: str, tag: str, response: Any, **schema: Any) -> Any:
    """Return the decorator that describes a view's method. `response` is the serializer of its 200."""
    summary = operation_id.replace("_", " ").title()
    responses = {200: OpenApiResponse(response, "Successful Response")}
    return extend_schema(operation_id=operation_id, summary=summary, tags=[tag], responses=responses, **schema)


THREAD_ID, MESSAGE_ID, FILE_ID = in_path("thread_id"), in_path("message_id"), in_path("file_id")
METADATA_FILTER = OpenApiParameter(
    "metadata",
    {"type": "object", "additionalProperties": {"type": "string"}},
    OpenApiParameter.QUERY,
    style="deepObject",
    explode=True,
    description="metadata[KEY]=VALUE: only threads that have this pair; may be given for several keys.",
    examples=[
        OpenApiExample("all", summary="All threads", value={}),
        OpenApiExample("customer", summary="A customer's threads", value={"customer": "customer-17"}),
    ],
)

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="1 to 255 visible ASCII characters. For 24 hours the same key with the same body gets the first "
    "answer again (with `Idempotent-Replayed: true`), and nothing is stored a second time.",
)


def body_example(name: str, summary: str, value: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, summary=summary, value=value, request_only=True)


# The documentation page fills its form with the first example of each list.
THREAD_EXAMPLES = [
    body_example("empty", "Without messages", {"metadata": {"customer": "customer-17"}}),
    body_example("messages", "With a message", {"messages": [{"role": "user", "content": "How does AI work?"}]}),
]
MESSAGE_EXAMPLES = [
    body_example(
        "user", "A user's message", {"role": "user", "content": "How does AI work?", "metadata": {"topic": "ai"}}
    ),
    body_example(
        "parts",
        "OpenAI-Beta: assistants=v2, a user's text and picture",
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://shop.example/jacket.jpg"}},
            ],
        },
    ),
    body_example(
        "assistant",
        "OpenAI-Beta: assistants=v2, an assistant's message",
        {"role": "assistant", "content": "A rain jacket.", "assistant_id": "asst_support"},
    ),
]
MODIFY_EXAMPLES = [
    body_example("metadata", "Sets one key, removes another", {"metadata": {"topic": "physics", "rating": None}})
]
THREAD_RESPONSE = either("Thread", lambda shape: shape.thread)
MESSAGE_RESPONSE = either("Message", lambda shape: shape.message)


# Operations

create_thread = operation(
    "create_thread",
    "Threads",
    THREAD_RESPONSE,
    parameters=[IDEMPOTENCY_KEY],
    request=either("CreateThread", lambda shape: shape.create_thread),
    examples=THREAD_EXAMPLES,
)
list_threads = operation(
    "list_threads",
    "Threads",
    either("Threads", lambda shape: shape.threads),
    parameters=[ListQuerySerializer, METADATA_FILTER],
)
retrieve_thread = operation("retrieve_thread", "Threads", THREAD_RESPONSE, parameters=[THREAD_ID])
modify_thread = operation(
    "modify_thread",
    "Threads",
    THREAD_RESPONSE,
    parameters=[THREAD_ID],
    request=either("ModifyThread", lambda shape: shape.modify_thread),
    examples=MODIFY_EXAMPLES,
)
delete_thread = operation("delete_thread", "Threads", ThreadDeletedSerializer, parameters=[THREAD_ID])
create_message = operation(
    "create_message",
    "Messages",
    MESSAGE_RESPONSE,
    parameters=[THREAD_ID, IDEMPOTENCY_KEY],
    request=either("CreateMessage", lambda shape: shape.create_message),
    examples=MESSAGE_EXAMPLES,
)
list_messages = operation(
    "list_messages",
    "Messages",
    either("Messages", lambda shape: shape.messages),
    parameters=[THREAD_ID, ListMessagesQuerySerializer],
)
retrieve_message = operation("retrieve_message", "Messages", MESSAGE_RESPONSE, parameters=[THREAD_ID, MESSAGE_ID])
modify_message = operation(
    "modify_message",
    "Messages",
    MESSAGE_RESPONSE,
    parameters=[THREAD_ID, MESSAGE_ID],
    request=ModifySerializer,
    examples=MODIFY_EXAMPLES,
)
delete_message = operation("delete_message", "Messages", MessageDeletedSerializer, parameters=[THREAD_ID, MESSAGE_ID])
list_message_files = operation(
    "list_message_files",
    "Messages",
    MessageFileListSerializer,
    parameters=[THREAD_ID, MESSAGE_ID, ListQuerySerializer],
)
retrieve_message_file = operation(
    "retrieve_message_file",
    "Messages",
    MessageFileSerializer,
    parameters=[THREAD_ID, MESSAGE_ID, FILE_ID],
)
