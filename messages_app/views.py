"""Threads and messages over HTTP. A view introduces serializer and model to each other; both do their own work."""

from typing import Any, ClassVar

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from messages_app.models import DEFAULT_TENANT, Thread
from messages_app.serializers import (
    CreateMessageSerializer,
    CreateThreadSerializer,
    MessageSerializer,
    ThreadSerializer,
)


class ThreadNotFound(NotFound):
    def __init__(self, thread_id: str) -> None:
        super().__init__(f"Thread with ID '{thread_id}' not found")


class ContractViewSet(ViewSet):
    """What the views share: no OPTIONS, the tenant of a request, its body, what a missing thread is."""

    http_method_names = ["get", "head", "post", "delete"]
    request: Request

    @property
    def tenant(self) -> str:
        """The tenant that the request's key belongs to."""
        return getattr(self.request.auth, "tenant", DEFAULT_TENANT)

    @property
    def body(self) -> Any:
        """The body's JSON value; None where the request has no bytes (for which DRF says {})."""
        return self.request.data if int(self.request.META.get("CONTENT_LENGTH") or 0) else None

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, Thread.DoesNotExist):
            exc = ThreadNotFound(self.kwargs["thread_id"])
        return super().handle_exception(exc)


THREAD_ID = OpenApiParameter("thread_id", {"title": "Thread Id", "type": "string"}, OpenApiParameter.PATH)


class ThreadViewSet(ContractViewSet):
    # A thread may be made with a hundred messages.
    body_limits: ClassVar = {"create": settings.MAX_THREAD_BODY_BYTES}

    @extend_schema(
        operation_id="create_thread",
        summary="Create Thread",
        tags=["Threads"],
        request=CreateThreadSerializer,
        responses={200: OpenApiResponse(ThreadSerializer, "Successful Response")},
    )
    def create(self, request: Request) -> Response:
        """Create a thread. The body may be left out."""
        serializer = CreateThreadSerializer(data=self.body)
        serializer.is_valid(raise_exception=True)
        thread = serializer.save(tenant=self.tenant)
        return Response(ThreadSerializer(thread).data)

    @extend_schema(
        operation_id="retrieve_thread",
        summary="Retrieve Thread",
        tags=["Threads"],
        parameters=[THREAD_ID],
        responses={200: OpenApiResponse(ThreadSerializer, "Successful Response")},
    )
    def retrieve(self, request: Request, thread_id: str) -> Response:
        """Retrieve a thread."""
        thread = Thread.objects.of_tenant(self.tenant).by_id(thread_id)
        return Response(ThreadSerializer(thread).data)


class MessageViewSet(ContractViewSet):
    @extend_schema(
        operation_id="create_message",
        summary="Create Message",
        tags=["Messages"],
        parameters=[THREAD_ID],
        request=CreateMessageSerializer,
        responses={200: OpenApiResponse(MessageSerializer, "Successful Response")},
    )
    def create(self, request: Request, thread_id: str) -> Response:
        """Create a message in a thread."""
        serializer = CreateMessageSerializer(data=self.body)
        serializer.is_valid(raise_exception=True)
        message = serializer.save(tenant=self.tenant, thread_id=thread_id)
        return Response(MessageSerializer(message).data)


def unknown_path(request: HttpRequest) -> HttpResponse:
    raise Http404
