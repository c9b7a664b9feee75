"""What the OpenAPI schema says of each operation: a decorator for each method of the views."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)

from messages_app.api.assistants import requests, responses
from messages_app.api.assistants.shapes import DEFAULT, V2


def in_path(name: str) -> OpenApiParameter:
    """Return the parameter of an id in the path."""
    title = name.replace("_", " ").title()
    return OpenApiParameter(name, {"title": title, "type": "string"}, OpenApiParameter.PATH)


def either(component_name: str, attribute: str) -> Any:
    """Return the schema of a body that differs between the two shapes: one of both forms."""
    forms = [getattr(shape, attribute) for shape in (DEFAULT, V2)]
    return PolymorphicProxySerializer(component_name, forms, resource_type_field_name=None)


def operation(operation_id: str, response: Any, *parameters: Any, **schema: Any) -> Any:
    """Return the decorator that describes a view's method. `response` is the serializer of its 200."""
    return extend_schema(
        operation_id=operation_id,
        summary=operation_id.replace("_", " ").title(),
        tags=["Messages" if "message" in operation_id else "Threads"],
        parameters=list(parameters),
        responses={200: OpenApiResponse(response, "Successful Response")},
        **schema,
    )


def body_example(name: str, summary: str, value: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, summary=summary, value=value, request_only=True)


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

# The documentation page fills its form with the first example of each list.
QUESTION = {"role": "user", "content": "How does AI work?"}
PICTURE = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://shop.example/jacket.jpg"}},
]
ANSWER = {"role": "assistant", "content": "A rain jacket.", "assistant_id": "asst_support"}
V2_ONLY = "OpenAI-Beta: assistants=v2"
THREAD_EXAMPLES = [
    body_example("empty", "Without messages", {"metadata": {"customer": "customer-17"}}),
    body_example("messages", "With a message", {"messages": [QUESTION]}),
]
MESSAGE_EXAMPLES = [
    body_example("user", "A user's message", {**QUESTION, "metadata": {"topic": "ai"}}),
    body_example("parts", f"{V2_ONLY}, a user's text and picture", {"role": "user", "content": PICTURE}),
    body_example("assistant", f"{V2_ONLY}, an assistant's message", ANSWER),
]
MODIFY_EXAMPLES = [
    body_example("metadata", "Sets one key, removes another", {"metadata": {"topic": "physics", "rating": None}})
]

CREATE_THREAD, MODIFY_THREAD = either("CreateThread", "create_thread"), either("ModifyThread", "modify_thread")
CREATE_MESSAGE = either("CreateMessage", "create_message")
THREAD, THREADS = either("Thread", "thread"), either("Threads", "threads")
MESSAGE, MESSAGES = either("Message", "message"), either("Messages", "messages")

create_thread = operation("create_thread", THREAD, IDEMPOTENCY_KEY, request=CREATE_THREAD, examples=THREAD_EXAMPLES)
list_threads = operation("list_threads", THREADS, requests.ListQuerySerializer, METADATA_FILTER)
retrieve_thread = operation("retrieve_thread", THREAD, THREAD_ID)
modify_thread = operation("modify_thread", THREAD, THREAD_ID, request=MODIFY_THREAD, examples=MODIFY_EXAMPLES)
delete_thread = operation("delete_thread", responses.ThreadDeletedSerializer, THREAD_ID)
create_message = operation(
    "create_message", MESSAGE, THREAD_ID, IDEMPOTENCY_KEY, request=CREATE_MESSAGE, examples=MESSAGE_EXAMPLES
)
list_messages = operation("list_messages", MESSAGES, THREAD_ID, requests.ListMessagesQuerySerializer)
retrieve_message = operation("retrieve_message", MESSAGE, THREAD_ID, MESSAGE_ID)
modify_message = operation(
    "modify_message", MESSAGE, THREAD_ID, MESSAGE_ID, request=requests.ModifySerializer, examples=MODIFY_EXAMPLES
)
delete_message = operation("delete_message", responses.MessageDeletedSerializer, THREAD_ID, MESSAGE_ID)
list_message_files = operation(
    "list_message_files", responses.MessageFileListSerializer, THREAD_ID, MESSAGE_ID, requests.ListQuerySerializer
)
retrieve_message_file = operation(
    "retrieve_message_file", responses.MessageFileSerializer, THREAD_ID, MESSAGE_ID, FILE_ID
)
