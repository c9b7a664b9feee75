"""Threads and messages over HTTP. A view introduces serializer and model to each other; both do their own work.

The order of work is the contract's: the form of body or query, then what the path names, then what needs stored data.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from messages_app.api.assistants.requests import (
    ListMessagesQuerySerializer,
    ListQuerySerializer,
    ModifySerializer,
    metadata_filter,
)
from messages_app.api.assistants.responses import (
    Deleted,
    MessageDeletedSerializer,
    MessageFileListSerializer,
    MessageFileSerializer,
    ThreadDeletedSerializer,
)
from messages_app.api.assistants.shapes import DEFAULT, V2, Shape
from messages_app.api.base import BodySerializer, JSONViewSet, QuerySerializer
from messages_app.api.errors import wire_error
from messages_app.api.pagination import page_request
from messages_app.models import DEFAULT_TENANT
from messages_app.store import idempotency, messages, threads
from messages_app.store.idempotency import Create, IdempotencyKey


class ContractViewSet(JSONViewSet):
    """What the views share: the tenant of a request, its shape, its body, what a missing row is."""

    @property
    def tenant(self) -> str:
        """The tenant that the request's key belongs to."""
        return getattr(self.request.auth, "tenant", DEFAULT_TENANT)

    @property
    def shape(self) -> Shape:
        """The serializers of the shape that the request asks for; the project's middleware reads the header."""
        return V2 if getattr(self.request, "wants_v2", False) else DEFAULT

    def body(self, serializer_class: type[BodySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's body. Raises Faults (422)."""
        # For a request without bytes DRF's `data` is {}; here it is absent.
        has_body = int(self.request.META.get("CONTENT_LENGTH") or 0)
        return serializer_class.validated(self.request.data if has_body else None)

    def query(self, serializer_class: type[QuerySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's query string. Raises Faults (422)."""
        return serializer_class.validated(self.request.query_params)

    def idempotency_key(self, path: str) -> IdempotencyKey | None:
        """Return the request's Idempotency-Key on that path; None without one.

        Call this before the body is parsed: the key covers its bytes.
        """
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is None:
            return None
        shape = b"v2" if self.shape is V2 else b"default"
        return IdempotencyKey(self.tenant, path, key, shape + b"\n" + self.request.body)

    def created(
        self, key: IdempotencyKey | None, create: Create, shown: Callable[[Any], Any], thread_id: str = ""
    ) -> HttpResponse:
        """Return the response to a request that creates a row; with a key, once for all requests with it."""
        if key is None:
            return self.answer(shown(create()))
        renderer = self.request.accepted_renderer
        response = idempotency.once(key, create, lambda row: renderer.render(shown(row)), thread_id)
        headers = {"Idempotent-Replayed": "true"} if response.is_replay else {}
        return HttpResponse(response.body, content_type=renderer.media_type, headers=headers)

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(wire_error(exc, self.kwargs))


def in_path(name: str) -> OpenApiParameter:
    title = name.replace("_", " ").title()
    return OpenApiParameter(name, {"title": title, "type": "string"}, OpenApiParameter.PATH)


def either(component_name: str, of_shape: Callable[[Shape], Any]) -> Any:
    """In OpenAPI: what has one form in the default shape, and another in that of v2."""
    forms = [of_shape(DEFAULT), of_shape(V2)]
    return PolymorphicProxySerializer(component_name, forms, resource_type_field_name=None)


def successful(serializer: Any) -> dict[int, OpenApiResponse]:
    return {200: OpenApiResponse(serializer, "Successful Response")}


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


# The first of each is what the documentation's page is filled in with.
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
THREAD = either("Thread", lambda shape: shape.thread)
MESSAGE = either("Message", lambda shape: shape.message)


class ThreadViewSet(ContractViewSet):
    # A thread may be made with a hundred messages.
    body_limits: ClassVar = {"create": settings.MAX_THREAD_BODY_BYTES}
    optional_bodies: ClassVar = {"create"}

    @extend_schema(
        operation_id="create_thread",
        summary="Create Thread",
        tags=["Threads"],
        parameters=[IDEMPOTENCY_KEY],
        request=either("CreateThread", lambda shape: shape.create_thread),
        examples=THREAD_EXAMPLES,
        responses=successful(THREAD),
    )
    def create(self, request: Request) -> HttpResponse:
        """Create a thread, with messages or without. The body may be left out."""
        key = self.idempotency_key("/threads")
        body = self.body(self.shape.create_thread)
        create = partial(threads.create, self.tenant, metadata=body["metadata"], messages=body["messages"])
        return self.created(key, create, self.shape.thread.shown)

    @extend_schema(
        operation_id="list_threads",
        summary="List Threads",
        tags=["Threads"],
        parameters=[ListQuerySerializer, METADATA_FILTER],
        responses=successful(either("Threads", lambda shape: shape.threads)),
    )
    def list(self, request: Request) -> HttpResponse:
        """List threads, newest first unless `order` says otherwise."""
        query = self.query(ListQuerySerializer)
        page = threads.page(self.tenant, page_request(query), metadata=metadata_filter(request.query_params))
        return self.answer(self.shape.threads.shown(page))

    @extend_schema(
        operation_id="retrieve_thread",
        summary="Retrieve Thread",
        tags=["Threads"],
        parameters=[THREAD_ID],
        responses=successful(THREAD),
    )
    def retrieve(self, request: Request, thread_id: str) -> HttpResponse:
        """Retrieve a thread."""
        return self.answer(self.shape.thread.shown(threads.get(self.tenant, thread_id)))

    @extend_schema(
        operation_id="modify_thread",
        summary="Modify Thread",
        tags=["Threads"],
        parameters=[THREAD_ID],
        request=either("ModifyThread", lambda shape: shape.modify_thread),
        examples=MODIFY_EXAMPLES,
        responses=successful(THREAD),
    )
    def modify(self, request: Request, thread_id: str) -> HttpResponse:
        """Change a thread's metadata, key by key."""
        changes = self.body(self.shape.modify_thread)["metadata"]
        return self.answer(self.shape.thread.shown(threads.change_metadata(self.tenant, thread_id, changes)))

    @extend_schema(
        operation_id="delete_thread",
        summary="Delete Thread",
        tags=["Threads"],
        parameters=[THREAD_ID],
        responses=successful(ThreadDeletedSerializer),
    )
    def destroy(self, request: Request, thread_id: str) -> HttpResponse:
        """Delete a thread and all that is in it."""
        threads.delete(self.tenant, thread_id)
        return self.answer(ThreadDeletedSerializer.shown(Deleted(thread_id)))


class MessageViewSet(ContractViewSet):
    @extend_schema(
        operation_id="create_message",
        summary="Create Message",
        tags=["Messages"],
        parameters=[THREAD_ID, IDEMPOTENCY_KEY],
        request=either("CreateMessage", lambda shape: shape.create_message),
        examples=MESSAGE_EXAMPLES,
        responses=successful(MESSAGE),
    )
    def create(self, request: Request, thread_id: str) -> HttpResponse:
        """Create a message in a thread."""
        key = self.idempotency_key(f"/threads/{thread_id}/messages")
        content = self.body(self.shape.create_message)
        create = partial(messages.append, self.tenant, thread_id, **content)
        return self.created(key, create, self.shape.message.shown, thread_id)

    @extend_schema(
        operation_id="list_messages",
        summary="List Messages",
        tags=["Messages"],
        parameters=[THREAD_ID, ListMessagesQuerySerializer],
        responses=successful(either("Messages", lambda shape: shape.messages)),
    )
    def list(self, request: Request, thread_id: str) -> HttpResponse:
        """List a thread's messages, newest first unless `order` says otherwise."""
        query = self.query(ListMessagesQuerySerializer)
        page = messages.page(self.tenant, thread_id, page_request(query), run_id=query["run_id"])
        return self.answer(self.shape.messages.shown(page))

    @extend_schema(
        operation_id="retrieve_message",
        summary="Retrieve Message",
        tags=["Messages"],
        parameters=[THREAD_ID, MESSAGE_ID],
        responses=successful(MESSAGE),
    )
    def retrieve(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Retrieve a message."""
        return self.answer(self.shape.message.shown(messages.get(self.tenant, thread_id, message_id)))

    @extend_schema(
        operation_id="modify_message",
        summary="Modify Message",
        tags=["Messages"],
        parameters=[THREAD_ID, MESSAGE_ID],
        request=ModifySerializer,
        examples=MODIFY_EXAMPLES,
        responses=successful(MESSAGE),
    )
    def modify(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Change a message's metadata, key by key."""
        changes = self.body(ModifySerializer)["metadata"]
        message = messages.change_metadata(self.tenant, thread_id, message_id, changes)
        return self.answer(self.shape.message.shown(message))

    @extend_schema(
        operation_id="delete_message",
        summary="Delete Message",
        tags=["Messages"],
        parameters=[THREAD_ID, MESSAGE_ID],
        responses=successful(MessageDeletedSerializer),
    )
    def destroy(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Delete a message. For a day its id still serves as a cursor."""
        messages.delete(self.tenant, thread_id, message_id)
        return self.answer(MessageDeletedSerializer.shown(Deleted(message_id)))

    @extend_schema(
        operation_id="list_message_files",
        summary="List Message Files",
        tags=["Messages"],
        parameters=[THREAD_ID, MESSAGE_ID, ListQuerySerializer],
        responses=successful(MessageFileListSerializer),
    )
    def list_files(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """List a message's files, the last first unless `order` says otherwise."""
        query = self.query(ListQuerySerializer)
        page = messages.files_page(self.tenant, thread_id, message_id, page_request(query))
        return self.answer(MessageFileListSerializer.shown(page))

    @extend_schema(
        operation_id="retrieve_message_file",
        summary="Retrieve Message File",
        tags=["Messages"],
        parameters=[THREAD_ID, MESSAGE_ID, FILE_ID],
        responses=successful(MessageFileSerializer),
    )
    def retrieve_file(self, request: Request, thread_id: str, message_id: str, file_id: str) -> HttpResponse:
        """Retrieve a file of a message."""
        for file in messages.get(self.tenant, thread_id, message_id).files:
            if file.id == file_id:
                return self.answer(MessageFileSerializer.shown(file))
        raise NotFound(f"File with ID '{file_id}' in message '{message_id}' not found")
