"""Threads and messages over HTTP. A view introduces serializer and model to each other; both do their own work.

The order of work is the contract's: the form of body or query, then what the path names, then what needs stored data.
"""

from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from messages_app.api.assistants import openapi
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
from messages_app.api.errors import NO_SUCH_FILE, NO_SUCH_MESSAGE, NO_SUCH_THREAD, Faults, wire_error
from messages_app.api.pagination import Listed, page_of
from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.models.idempotency import Attempt, IdempotencyRecord
from messages_app.models.thread import DEFAULT_TENANT
from messages_app.store.deletion import wake_purger
from messages_app.store.messages import OneThread


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

    @property
    def threads(self) -> ThreadQuerySet:
        """The threads that this request may know of."""
        return Thread.objects.of_tenant(self.tenant)

    def body(self, serializer_class: type[BodySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's body. Raises Faults (422)."""
        # For a request without bytes DRF's `data` is {}; here it is absent.
        has_body = int(self.request.META.get("CONTENT_LENGTH") or 0)
        return serializer_class.validated(self.request.data if has_body else None)

    def query(self, serializer_class: type[QuerySerializer]) -> dict[str, Any]:
        """Return the validated values of the request's query string. Raises Faults (422)."""
        return serializer_class.validated(self.request.query_params)

    def attempt(self, path: str) -> Attempt | None:
        """What the request's idempotency key stands for on that path; None where it has no key.

        Taken before the body is parsed: the key's record knows its bytes.
        """
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY")
        shape = "v2" if self.shape is V2 else "default"
        return None if key is None else Attempt.of(self.tenant, path, key, shape, self.request.body)

    def created(self, attempt: Attempt | None, serializer_class: Any, shown: Any, **given: str) -> HttpResponse:
        """Store what the body asks for and show it, once for all requests of one key."""
        values, serializer = self.body(serializer_class), serializer_class()
        if attempt is None:
            return self.answer(shown(serializer.create({**values, **given})))
        renderer = self.request.accepted_renderer
        creation = serializer.creation(values, lambda row: renderer.render(shown(row)), **given)
        answer = IdempotencyRecord.objects.answer(attempt, creation)
        headers = {"Idempotent-Replayed": "true"} if answer.is_replay else {}
        return HttpResponse(answer.body, content_type=renderer.media_type, headers=headers)

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(wire_error(exc, self.kwargs))


class ThreadViewSet(ContractViewSet):
    # A thread may be made with a hundred messages.
    body_limits: ClassVar = {"create": settings.MAX_THREAD_BODY_BYTES}
    optional_bodies: ClassVar = {"create"}

    @openapi.create_thread
    def create(self, request: Request) -> HttpResponse:
        """Create a thread, with messages or without. The body may be left out."""
        attempt = self.attempt("/threads")
        return self.created(attempt, self.shape.create_thread, self.shape.thread.shown, tenant=self.tenant)

    @openapi.list_threads
    def list(self, request: Request) -> HttpResponse:
        """List threads, newest first unless `order` says otherwise."""
        query = self.query(ListQuerySerializer)
        pairs = metadata_filter(request.query_params)
        rows: Any = Thread.objects.matching(self.tenant, pairs) if pairs else self.threads
        page = page_of(rows, cursors=self.threads, unknown=NO_SUCH_THREAD, query=query)
        return self.answer(self.shape.threads.shown(page))

    @openapi.retrieve_thread
    def retrieve(self, request: Request, thread_id: str) -> HttpResponse:
        """Retrieve a thread."""
        return self.answer(self.shape.thread.shown(OneThread(self.tenant, thread_id).get()))

    @openapi.modify_thread
    def modify(self, request: Request, thread_id: str) -> HttpResponse:
        """Change a thread's metadata, key by key."""
        changes = self.body(self.shape.modify_thread)["metadata"]
        thread = ModifySerializer.change(changes, self.threads, thread_id)
        return self.answer(self.shape.thread.shown(thread))

    @openapi.delete_thread
    def destroy(self, request: Request, thread_id: str) -> HttpResponse:
        """Delete a thread and all that is in it."""
        self.threads.mark_deleted(thread_id)
        wake_purger()
        return self.answer(ThreadDeletedSerializer.shown(Deleted(thread_id)))


class MessageViewSet(ContractViewSet):
    @openapi.create_message
    def create(self, request: Request, thread_id: str) -> HttpResponse:
        """Create a message in a thread."""
        attempt = self.attempt(f"/threads/{thread_id}/messages")
        shape = self.shape
        return self.created(attempt, shape.create_message, shape.message.shown, tenant=self.tenant, thread_id=thread_id)

    @openapi.list_messages
    def list(self, request: Request, thread_id: str) -> HttpResponse:
        """List a thread's messages, newest first unless `order` says otherwise."""
        query = self.query(ListMessagesQuerySerializer)
        messages = OneThread(self.tenant, thread_id, query["run_id"])
        try:
            page = page_of(messages, cursors=messages, unknown=NO_SUCH_MESSAGE, query=query)
        except Faults:
            messages.require()  # that it is missing goes before bad cursors
            raise
        return self.answer(self.shape.messages.shown(page))

    def message(self, thread_id: str, message_id: str) -> Message:
        """A message that this request may know of. Raises Thread.DoesNotExist, Message.DoesNotExist."""
        return OneThread(self.tenant, thread_id).message(message_id)

    def messages_in(self, thread_id: str) -> MessageQuerySet:
        """The messages of a thread that this request may know of. Raises Thread.DoesNotExist."""
        self.threads.require(thread_id)
        return Message.objects.visible_in(thread_id)

    @openapi.retrieve_message
    def retrieve(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Retrieve a message."""
        return self.answer(self.shape.message.shown(self.message(thread_id, message_id)))

    @openapi.modify_message
    def modify(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Change a message's metadata, key by key."""
        changes = self.body(ModifySerializer)["metadata"]
        message = ModifySerializer.change(changes, self.messages_in(thread_id), message_id)
        return self.answer(self.shape.message.shown(message))

    @openapi.delete_message
    def destroy(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """Delete a message. For a day its id still serves as a cursor."""
        self.messages_in(thread_id).erase(message_id)
        return self.answer(MessageDeletedSerializer.shown(Deleted(message_id)))

    @openapi.list_message_files
    def list_files(self, request: Request, thread_id: str, message_id: str) -> HttpResponse:
        """List a message's files, the last first unless `order` says otherwise."""
        query = self.query(ListQuerySerializer)
        files = Listed(self.message(thread_id, message_id).files)
        page = page_of(files, cursors=files, unknown=NO_SUCH_FILE, query=query)
        return self.answer(MessageFileListSerializer.shown(page))

    @openapi.retrieve_message_file
    def retrieve_file(self, request: Request, thread_id: str, message_id: str, file_id: str) -> HttpResponse:
        """Retrieve a file of a message."""
        for file in self.message(thread_id, message_id).files:
            if file.id == file_id:
                return self.answer(MessageFileSerializer.shown(file))
        raise NotFound(f"File with ID '{file_id}' in message '{message_id}' not found")
