"""The OpenAPI descriptions of the operations: one decorator for each view method.

The ids and times in the examples belong to one thread with one message. tests/test_openapi.py compares every example
with the service's response.
"""

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

# Example bodies

CREATED_AT = 1795367782
THREAD_ID, MESSAGE_ID = "thread_01m8244hnpq5dx0k7ta3w9r2ve", "msg_01m8244hrvnhpt8jxvvk124ebw"
FILE_ID = "file-manual"

THREAD = {
    "_id": "6b0323664b778f6267c84d51",
    "id": THREAD_ID,
    "object": "thread",
    "created_at": CREATED_AT,
    "metadata": {"customer": "customer-17"},
}
MESSAGE = {
    "_id": "6b0323664b778f6267c84d52",
    "id": MESSAGE_ID,
    "object": "thread.message",
    "created_at": CREATED_AT,
    "thread_id": THREAD_ID,
    "role": "user",
    "content": [{"type": "text", "text": {"value": "How does AI work?", "annotations": []}}],
    "assistant_id": "",
    "run_id": "",
    "file_ids": [],
    "metadata": {"topic": "ai"},
}
FILE = {"id": FILE_ID, "object": "thread.message.file", "created_at": CREATED_AT, "message_id": MESSAGE_ID}
THREAD_OF_V2 = {"tool_resources": None}
MESSAGE_OF_V2: dict[str, Any] = {
    "assistant_id": None,
    "run_id": None,
    "status": "completed",
    "completed_at": CREATED_AT,
    "incomplete_at": None,
    "incomplete_details": None,
    "attachments": [],
}


def list_with(row: dict[str, Any]) -> dict[str, Any]:
    """Return a list response that contains only this row."""
    return {"object": "list", "data": [row], "first_id": row["id"], "last_id": row["id"], "has_more": False}


def fault(loc: list[str | int], msg: str, error_type: str, **ctx: Any) -> dict[str, Any]:
    """Return one item of the `detail` of a 422 response."""
    return {"loc": loc, "msg": msg, "type": error_type, **({"ctx": ctx} if ctx else {})}


# The texts of 404 responses, and the items of 422 responses
NO_THREAD = f"Thread with ID '{THREAD_ID}' not found"
NO_MESSAGE = f"Message with ID '{MESSAGE_ID}' in thread '{THREAD_ID}' not found"
NO_FILE = f"File with ID '{FILE_ID}' in message '{MESSAGE_ID}' not found"
NO_CONTENT = fault(["body", "content"], "field required", "value_error.missing")
EXTRA_KEY = fault(["body", "text"], "extra fields not permitted", "value_error.extra")
NO_CONTENT_IN_LIST = fault(["body", "messages", 0, "content"], "field required", "value_error.missing")
NOT_A_TEXT = fault(["body", "metadata", "topic"], "str type expected", "type_error.str")
TOO_MANY = fault(
    ["query", "limit"],
    "ensure this value is less than or equal to 100",
    "value_error.number.not_le",
    limit_value=100,
)


def shown(default: dict[str, Any], v2: dict[str, Any] | None = None) -> list[OpenApiExample]:
    """Return the examples of a 200 response: one for both shapes, or one for each shape if they differ."""
    if v2 is None:
        return [OpenApiExample("default", summary="Either shape", value=default, response_only=True)]
    return [
        OpenApiExample("default", summary="Default shape", value=default, response_only=True),
        OpenApiExample("v2", summary="assistants=v2", value=v2, response_only=True),
    ]


def refused(status: str, name: str, summary: str, detail: Any) -> OpenApiExample:
    """Return an example of an error response. threadsvc/api/openapi.py adds the same example in the v2 shape."""
    return OpenApiExample(name, summary=summary, value={"detail": detail}, response_only=True, status_codes=[status])


def not_found(detail: str) -> OpenApiExample:
    return refused("404", "NotFound", "Not found", detail)


def invalid(*faults: dict[str, Any]) -> OpenApiExample:
    return refused("422", "Invalid", f"Invalid {faults[0]['loc'][0]}", list(faults))


KEY_REUSED = refused(
    "422",
    "KeyReused",
    "Idempotency-Key used with another body",
    [fault(["header", "idempotency-key"], "key was used with another body", "value_error.idempotency_key")],
)


def body_example(name: str, summary: str, value: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, summary=summary, value=value, request_only=True)


# The documentation page uses the first example of each list in its form and in its code samples.
V2_ONLY = "OpenAI-Beta: assistants=v2"
QUESTION = {"role": "user", "content": "How does AI work?"}
PICTURE = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://shop.example/jacket.jpg"}},
]
ANSWER = {"role": "assistant", "content": "A rain jacket.", "assistant_id": "asst_support"}
THREAD_BODIES = [
    body_example("empty", "Without messages", {"metadata": {"customer": "customer-17"}}),
    body_example("messages", "With a message", {"messages": [QUESTION]}),
]
MESSAGE_BODIES = [
    body_example("user", "A user's message", {**QUESTION, "metadata": {"topic": "ai"}}),
    body_example("parts", f"{V2_ONLY}, a user's text and picture", {"role": "user", "content": PICTURE}),
    body_example("assistant", f"{V2_ONLY}, an assistant's message", ANSWER),
]
MODIFY_BODIES = [
    body_example("metadata", "Set one key, remove another", {"metadata": {"topic": "physics", "rating": None}})
]


# Operations


def in_path(name: str, example: str) -> OpenApiParameter:
    """Return the OpenAPI parameter for an id in the path."""
    title = name.replace("_", " ").title()
    return OpenApiParameter(name, {"title": title, "type": "string", "examples": [example]}, OpenApiParameter.PATH)


def either(component_name: str, attribute: str) -> Any:
    """Return the schema of a body that differs between the two shapes. A body in either shape is valid."""
    forms = [getattr(shape, attribute) for shape in (DEFAULT, V2)]
    return PolymorphicProxySerializer(component_name, forms, resource_type_field_name=None)


def operation(
    operation_id: str,
    response: Any,
    *parameters: Any,
    sdk: str = "",
    query: dict[str, Any] | None = None,
    **schema: Any,
) -> Any:
    """Return the decorator that describes a view method. `response` is the serializer of its 200 response.

    `sdk` is the method of OpenAI's client that the code samples call. If it is empty, the samples send the HTTP request
    themselves. `query` is the query string in the samples of a list operation.
    """
    return extend_schema(
        operation_id=operation_id,
        summary=operation_id.replace("_", " ").title(),
        tags=["Messages" if "message" in operation_id else "Threads"],
        parameters=list(parameters),
        responses={200: OpenApiResponse(response, "Successful Response")},
        extensions={"x-sample": {"sdk": sdk, "query": query or {}}},
        **schema,
    )


THREAD_PARAMETER, MESSAGE_PARAMETER = in_path("thread_id", THREAD_ID), in_path("message_id", MESSAGE_ID)
FILE_PARAMETER = in_path("file_id", FILE_ID)
METADATA_FILTER = OpenApiParameter(
    "metadata",
    {"type": "object", "additionalProperties": {"type": "string"}},
    OpenApiParameter.QUERY,
    style="deepObject",
    explode=True,
    description="`metadata[KEY]=VALUE` returns only the threads that have this pair. Repeat it to require several "
    "pairs.",
    examples=[
        OpenApiExample("all", summary="All threads", value={}),
        OpenApiExample("customer", summary="A customer's threads", value={"customer": "customer-17"}),
    ],
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="1 to 255 visible ASCII characters. For 24 hours, a retry with the same key and body gets the first "
    "response again, with `Idempotent-Replayed: true`. Nothing is stored a second time.",
)

THREAD_BODY, MODIFY_THREAD_BODY = either("CreateThread", "create_thread"), either("ModifyThread", "modify_thread")
MESSAGE_BODY = either("CreateMessage", "create_message")
ONE_THREAD, MANY_THREADS = either("Thread", "thread"), either("Threads", "threads")
ONE_MESSAGE, MANY_MESSAGES = either("Message", "message"), either("Messages", "messages")
FIRST_20, OLDEST_20 = {"limit": 20}, {"limit": 20, "order": "asc"}
THREAD_V2, MESSAGE_V2 = {**THREAD, **THREAD_OF_V2}, {**MESSAGE, **MESSAGE_OF_V2}
THREAD_CHANGED = {"metadata": {"customer": "customer-17", "topic": "physics"}}
MESSAGE_CHANGED = {"metadata": {"topic": "physics"}}

create_thread = operation(
    "create_thread",
    ONE_THREAD,
    IDEMPOTENCY_KEY,
    sdk="beta.threads.create",
    request=THREAD_BODY,
    examples=[*THREAD_BODIES, *shown(THREAD, THREAD_V2), invalid(NO_CONTENT_IN_LIST), KEY_REUSED],
)
list_threads = operation(
    "list_threads",
    MANY_THREADS,
    requests.ListThreadsQuerySerializer,
    METADATA_FILTER,
    query=FIRST_20,
    examples=[*shown(list_with(THREAD), list_with(THREAD_V2)), invalid(TOO_MANY)],
)
retrieve_thread = operation(
    "retrieve_thread",
    ONE_THREAD,
    THREAD_PARAMETER,
    sdk="beta.threads.retrieve",
    examples=[*shown(THREAD, THREAD_V2), not_found(NO_THREAD)],
)
modify_thread = operation(
    "modify_thread",
    ONE_THREAD,
    THREAD_PARAMETER,
    sdk="beta.threads.update",
    request=MODIFY_THREAD_BODY,
    examples=[
        *MODIFY_BODIES,
        *shown({**THREAD, **THREAD_CHANGED}, {**THREAD_V2, **THREAD_CHANGED}),
        not_found(NO_THREAD),
        invalid(NOT_A_TEXT),
    ],
)
delete_thread = operation(
    "delete_thread",
    responses.ThreadDeletedSerializer,
    THREAD_PARAMETER,
    sdk="beta.threads.delete",
    examples=[*shown({"id": THREAD_ID, "object": "thread.deleted", "deleted": True}), not_found(NO_THREAD)],
)
create_message = operation(
    "create_message",
    ONE_MESSAGE,
    THREAD_PARAMETER,
    IDEMPOTENCY_KEY,
    sdk="beta.threads.messages.create",
    request=MESSAGE_BODY,
    examples=[
        *MESSAGE_BODIES,
        *shown(MESSAGE, MESSAGE_V2),
        not_found(NO_THREAD),
        invalid(NO_CONTENT, EXTRA_KEY),
        KEY_REUSED,
    ],
)
list_messages = operation(
    "list_messages",
    MANY_MESSAGES,
    THREAD_PARAMETER,
    requests.ListMessagesQuerySerializer,
    sdk="beta.threads.messages.list",
    query=OLDEST_20,
    examples=[*shown(list_with(MESSAGE), list_with(MESSAGE_V2)), not_found(NO_THREAD), invalid(TOO_MANY)],
)
retrieve_message = operation(
    "retrieve_message",
    ONE_MESSAGE,
    THREAD_PARAMETER,
    MESSAGE_PARAMETER,
    sdk="beta.threads.messages.retrieve",
    examples=[*shown(MESSAGE, MESSAGE_V2), not_found(NO_MESSAGE)],
)
modify_message = operation(
    "modify_message",
    ONE_MESSAGE,
    THREAD_PARAMETER,
    MESSAGE_PARAMETER,
    sdk="beta.threads.messages.update",
    request=requests.ModifySerializer,
    examples=[
        *MODIFY_BODIES,
        *shown({**MESSAGE, **MESSAGE_CHANGED}, {**MESSAGE_V2, **MESSAGE_CHANGED}),
        not_found(NO_MESSAGE),
        invalid(NOT_A_TEXT),
    ],
)
delete_message = operation(
    "delete_message",
    responses.MessageDeletedSerializer,
    THREAD_PARAMETER,
    MESSAGE_PARAMETER,
    sdk="beta.threads.messages.delete",
    examples=[*shown({"id": MESSAGE_ID, "object": "thread.message.deleted", "deleted": True}), not_found(NO_MESSAGE)],
)
list_message_files = operation(
    "list_message_files",
    responses.MessageFileListSerializer,
    THREAD_PARAMETER,
    MESSAGE_PARAMETER,
    requests.ListQuerySerializer,
    query=FIRST_20,
    examples=[*shown(list_with(FILE)), not_found(NO_MESSAGE), invalid(TOO_MANY)],
)
retrieve_message_file = operation(
    "retrieve_message_file",
    responses.MessageFileSerializer,
    THREAD_PARAMETER,
    MESSAGE_PARAMETER,
    FILE_PARAMETER,
    examples=[*shown(FILE), not_found(NO_FILE)],
)
