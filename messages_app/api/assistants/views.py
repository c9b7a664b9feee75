"""Threads and messages over HTTP. A view parses the request, calls one function of the store, and renders the result.

The contract fixes the order of the checks: first the form of the body or query, then the objects in the path, and last
the checks that need stored data.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from messages_app.api.assistants import openapi, requests, responses
from messages_app.api.assistants.shapes import DEFAULT, V2, Shape
from messages_app.api.base import BodySerializer, JSONViewSet, QuerySerializer
from messages_app.api.errors import wire_error
from messages_app.api.pagination import page_request
from messages_app.models import DEFAULT_TENANT
from messages_app.store import idempotency, messages, threads
from messages_app.store.idempotency import Create, IdempotencyKey


class ContractViewSet(JSONViewSet):
    """The base of both view sets: reads the tenant, shape, body, query and idempotency key of a request."""

    @property
    def tenant(self) -> str:
        """The tenant of the request's API key."""
        return getattr(self.request.auth, "tenant", DEFAULT_TENANT)

    @property
    def shape(self) -> Shape:
        """The serializers of the requested shape. The project's middleware reads the header that selects the shape."""
        return V2 if getattr(self.request, "wants_v2", False) else DEFAULT

    def body(self, serializer_class: type[BodySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's body. Raises Faults (422)."""
        # DRF's `data` is {} for an empty body. Here an empty body counts as absent.
        has_body = int(self.request.META.get("CONTENT_LENGTH") or 0)
        return serializer_class.validated(self.request.data if has_body else None)

    def query(self, serializer_class: type[QuerySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's query string. Raises Faults (422)."""
        return serializer_class.validated(self.request.query_params)

    def idempotency_key(self, path: str) -> IdempotencyKey | None:
        """Return the request's Idempotency-Key for this path, or None.

        Call this method before the body is parsed, because it reads the bytes of the body.
        """
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is None:
            return None
        shape = b"v2" if self.shape is V2 else b"default"
        return IdempotencyKey(self.tenant, path, key, shape + b"\n" + self.request.body)

    def created(
        self, key: IdempotencyKey | None, create: Create, shown: Callable[[Any], Any], thread_id: str = ""
    ) -> HttpResponse:
        """Call `create` and return the response that shows the new row.

        Requests with the same key create only one row.
        """
        if key is None:
            return self.answer(shown(create()))
        renderer: Any = self.request.accepted_renderer
        response = idempotency.once(key, create, lambda row: renderer.render(shown(row)), thread_id)
        headers = {"Idempotent-Replayed": "true"} if response.is_replay else {}
        return HttpResponse(response.body, content_type=renderer.media_type, headers=headers)

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(wire_error(exc, self.kwargs))


class ThreadViewSet(ContractViewSet):
    # A body of Create Thread can contain up to a hundred messages, so it may be larger than other bodies.
    body_limits: ClassVar = {"create": settings.MAX_THREAD_BODY_BYTES}
    optional_bodies: ClassVar = {"create"}

    @openapi.create_thread
    def create(self, request: Request) -> HttpResponse:
        """Create a thread, with messages or without. The body may be left out."""
        key = self.idempotency_key("/threads")
        body = self.body(self.shape.create_thread)
        create = partial(threads.create, self.tenant, metadata=body["metadata"], messages=body["messages"])
        return self.created(key, create, self.shape.thread.shown)

    @openapi.list_threads
    def list(self, request: Request) -> HttpResponse:
        """List threads, newest first unless `order` says otherwise."""
        query = self.query(requests.ListThreadsQuerySerializer)
        page = threads.page(self.tenant, page_request(query), metadata=query["metadata"])
        return self.answer(self.shape.threads.shown(page))

    @openapi.retrieve_thread
    def retrieve(self, request: Request, thread_id: str) -> HttpResponse:
        """Retrieve a thread."""
        return self.answer(self.shape.thread.shown(threads.get(self.tenant, thread_id)))

    @openapi.modify_thread
    def modify(self, request: Request, thread_id: str) -> HttpResponse:
        """Change a thread's metadata, key by key."""
        changes = self.body(self.shape.modify_thread)["metadata"]
        return self.answer(self.shape.thread.shown(threads.change_metadata(self.tenant, thread_id, changes)))

    @openapi.delete_thread
    def destroy(self, request: Request, thread_id: str) -> HttpResponse:
        """Delete a thread and all that is in it."""
        threads.delete(self.tenant, thread_id)
        return self.answer(responses.ThreadDeletedSerializer.shown(responses.Deleted(thread_id)))


class MessageViewSet(ContractViewSet):
    @openapi.create_message
    def create(self, request: Request, thread_id: str) -> HttpResponse:
        """Create a message in a thread."""
        key = self.idempotency_key(f"/threads/{thread_id}/messages")
        content = self.body(self.shape.create_message)
        create = partial(messages.append, self.tenant, thread_id, **content)
        return self.created(key, create, self.shape.message.shown, thread_id)

    @openapi.list_messages
    def list(self, request: Request, thread_id: str) -> HttpResponse:
        """List a thread's messages, newest first unless `order` says otherwise."""
        query = self.query(requests.ListMessagesQuerySerializer)
        page = messages.page(self.tenant, thread_id, page_request(query), run_id=query["run_id"])
        return self.answer(self.shape.messages.shown(page))

    @openapi.retrieve_message
    def retrieve(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Retrieve a message."""
        return self.answer(self.shape.message.shown(messages.get(self.tenant, thread_id, message_id)))

    @openapi.modify_message
    def modify(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Change a message's metadata, key by key."""
        changes = self.body(requests.ModifySerializer)["metadata"]
        message = messages.change_metadata(self.tenant, thread_id, message_id, changes)
        return self.answer(self.shape.message.shown(message))

    @openapi.delete_message
    def destroy(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Delete a message. For a day its id still serves as a cursor."""
        messages.delete(self.tenant, thread_id, message_id)
        return self.answer(responses.MessageDeletedSerializer.shown(responses.Deleted(message_id)))

    @openapi.list_message_files
    def list_files(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """List a message's files, the last first unless `order` says otherwise."""
        query = self.query(requests.ListQuerySerializer)
        page = messages.files_page(self.tenant, thread_id, message_id, page_request(query))
        return self.answer(responses.MessageFileListSerializer.shown(page))

    @openapi.retrieve_message_file
    def retrieve_file(self, request: Request, thread_id: str, message_id: str, file_id: str) -> HttpResponse:
        """Retrieve a file of a message."""
        for file in messages.get(self.tenant, thread_id, message_id).files:
            if file.id == file_id:
                return self.answer(responses.MessageFileSerializer.shown(file))
        raise NotFound(f"File with ID '{file_id}' in message '{message_id}' not found")
