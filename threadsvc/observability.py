"""What one sees of the running service: request ids, log lines, /healthz and /readyz."""

import logging
import re
import uuid
from collections.abc import Callable
from contextvars import ContextVar

from django.apps import apps
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse

from threadsvc.errors import service_unavailable

_GOOD_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestIdMiddleware:
    """Gives every answer an `x-request-id`: the client's, if it is 1 to 128 visible ASCII characters, or a new one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request.META.get("HTTP_X_REQUEST_ID", "")
        if not _GOOD_REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        token = _request_id.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            _request_id.reset(token)
        response["x-request-id"] = request_id
        return response


class RequestIdFilter(logging.Filter):
    """Puts the id of the request that is being answered into each log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        return True


def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when every table answers; 503 otherwise. One small query a table."""
    try:
        for model in apps.get_models():
            model._default_manager.exists()
    except DatabaseError:
        return service_unavailable()
    return JsonResponse({"status": "ready"})
