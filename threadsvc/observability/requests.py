"""What one sees of the running service: request ids, a log line for each answer, /healthz and /readyz."""

import logging
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from random import getrandbits
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.signals import got_request_exception
from django.db import DatabaseError
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse

from threadsvc.access import DEFAULT_TENANT
from threadsvc.api.errors import OUTAGES, service_unavailable
from threadsvc.engines.base import reason_of
from threadsvc.observability.logs import STARTED, fields, request_id

logger = logging.getLogger(__name__)
answers = logging.getLogger("threadsvc.access")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "(other)"
UNKNOWN = "(unknown)"
STATIC = f"{settings.STATIC_URL}{{path}}"
# What asks for these asks all the time; their answers are told at level debug, unless they are refusals.
QUIET = ("/healthz", "/readyz", STATIC)

_GOOD_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")


class RequestIdMiddleware:
    """Gives every answer an `x-request-id`: the client's, if it is 1 to 128 visible ASCII characters, or a new one.

    Tells each answer to the log, under that id.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = started_at(request)
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        if not _GOOD_REQUEST_ID.fullmatch(given):
            given = f"{getrandbits(128):032x}"  # no secret; asking the system lets other threads go first
        token = request_id.set(given)
        status = 500
        try:
            response = self.get_response(request)
            status = response.status_code
        finally:
            log_answer(request, status, time.perf_counter() - started)
            request_id.reset(token)
        response["x-request-id"] = given
        return response


class MetricsMiddleware:
    """Counts and times answers; installed where THREADSVC_METRICS_PORT is set."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        # Not before: Django's checks import all middleware, and prometheus_client asks at once where to write.
        from threadsvc.observability import metrics

        metrics.prepare()
        self.get_response, self.metrics = get_response, metrics

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = started_at(request)
        status = 500
        with self.metrics.IN_PROGRESS.track_inprogress():
            try:
                response = self.get_response(request)
                status = response.status_code
            finally:
                self.metrics.count(method_of(request), route_of(request), status, time.perf_counter() - started)
        return response


def started_at(request: HttpRequest) -> float:
    """When the request came, by time.perf_counter()."""
    started: float = request.META.get(STARTED) or time.perf_counter()
    return started


def log_answer(request: HttpRequest, status: int, seconds: float) -> None:
    route = route_of(request)
    level = logging.DEBUG if route in QUIET and status < 400 else logging.INFO
    if answers.isEnabledFor(level):
        told = fields(
            method=method_of(request),
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            tenant=tenant_of(request, status),
        )
        answers.log(level, "answered", extra=told)


def method_of(request: HttpRequest) -> str:
    """The request's method; one that nobody knows could be any text, and is told as OTHER."""
    return request.method if request.method in METHODS else OTHER


def route_of(request: HttpRequest) -> str:
    """The path without what is a client's in it, as `/threads/{thread_id}`: one of a fixed number of texts.

    UNKNOWN is for what is none of our paths, or was refused before that was looked at (a foreign Host).
    """
    if request.path_info.startswith(settings.STATIC_URL):
        return STATIC
    match = request.resolver_match
    return UNKNOWN if match is None or match.url_name == UNKNOWN else template_of(match.route)


@lru_cache
def template_of(route: str) -> str:
    named = _PARAMETER.sub(lambda found: f"{{{found[1] or found[2]}}}", route)
    return "/" + named.replace("^", "").replace("$", "")


def tenant_of(request: HttpRequest, status: int) -> str | None:
    """Whose threads the request was about; None where nobody asked who sends it, or nobody was let in."""
    auth: Any = getattr(request, "auth", UNKNOWN)  # of DRF's request, which gives it to Django's
    if auth is UNKNOWN or (auth is None and status in (401, 403)):
        return None
    return getattr(auth, "tenant", DEFAULT_TENANT)


@receiver(got_request_exception)
def log_fault(**kwargs: Any) -> None:
    """What becomes a 500. Django's own line for it, which has the path in it, is turned off in settings."""
    if not isinstance(sys.exception(), OUTAGES):  # told by who answers them
        logger.error("unhandled exception", exc_info=True)


def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when every table answers; 503 otherwise. One small query a table."""
    try:
        for model in apps.get_models():
            model._default_manager.exists()
    except DatabaseError as error:
        logger.warning("not ready: %s", reason_of(error))
        return service_unavailable()
    return JsonResponse({"status": "ready"})
