"""The middleware that observes requests: the request id, the access log, metrics."""

import logging
import re
import sys
import time
import traceback
from functools import lru_cache
from random import getrandbits
from typing import Any

from django.conf import settings
from django.core.signals import got_request_exception
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from threadsvc.api.errors import OUTAGES
from threadsvc.api.middleware import GetResponse, Middleware
from threadsvc.observability.logs import STARTED, fields, request_id

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("threadsvc.access")

KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER_METHOD = "(other)"
UNKNOWN_ROUTE = "(unknown)"
STATIC_ROUTE = f"{settings.STATIC_URL}{{path}}"
# Probes and pages request these routes all the time. Successful responses are logged at level debug.
QUIET_ROUTES = ("/healthz", "/readyz", STATIC_ROUTE)

_GOOD_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")


class RequestIdMiddleware(Middleware):
    """Adds `x-request-id` to every response, and logs each response with this id.

    The id is the client's if it has 1 to 128 visible ASCII characters, otherwise a new one.
    """

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = started_at(request)
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        if not _GOOD_REQUEST_ID.fullmatch(given):
            # An id is not a secret, so it needs no os.urandom, which would release the GIL to other threads.
            given = f"{getrandbits(128):032x}"
        token = request_id.set(given)
        status = 500
        try:
            response = self.get_response(request)
            status = response.status_code
        finally:
            log_response(request, status, time.perf_counter() - started)
            request_id.reset(token)
        response["x-request-id"] = given
        return response


class MetricsMiddleware(Middleware):
    """Counts and times responses. Installed if THREADSVC_METRICS_PORT is set."""

    def __init__(self, get_response: GetResponse) -> None:
        # Not imported at the top of the file, because Django's checks import all middleware before the exporter sets
        # the environment that prometheus_client reads on import.
        from threadsvc.observability import metrics

        metrics.prepare()
        super().__init__(get_response)
        self.metrics = metrics

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = started_at(request)
        status = 500
        with self.metrics.IN_PROGRESS.track_inprogress():
            try:
                response = self.get_response(request)
                status = response.status_code
            finally:
                self.metrics.count_response(
                    method_of(request), route_of(request), status, time.perf_counter() - started
                )
        return response


def started_at(request: HttpRequest) -> float:
    """Return the time at which a thread started to handle the request (time.perf_counter())."""
    return float(request.META.get(STARTED) or time.perf_counter())


def log_response(request: HttpRequest, status: int, seconds: float) -> None:
    route = route_of(request)
    level = logging.DEBUG if route in QUIET_ROUTES and status < 400 else logging.INFO
    if access_logger.isEnabledFor(level):
        extra = fields(
            method=method_of(request),
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
            tenant=tenant_of(request, status),
        )
        access_logger.log(level, "answered", extra=extra)


def method_of(request: HttpRequest) -> str:
    """Return the request's method, or OTHER_METHOD for an unknown one, because a client could send any text."""
    return request.method if request.method in KNOWN_METHODS else OTHER_METHOD


def route_of(request: HttpRequest) -> str:
    """Return the route of a request, such as `/threads/{thread_id}`.

    There is a fixed number of routes, and they contain no data of clients. Returns UNKNOWN_ROUTE for unknown paths, and
    for requests that are refused before routing, such as requests with a foreign Host.
    """
    if request.path_info.startswith(settings.STATIC_URL):
        return STATIC_ROUTE
    match = request.resolver_match
    return UNKNOWN_ROUTE if match is None or match.url_name == UNKNOWN_ROUTE else template_of(match.route)


@lru_cache
def template_of(route: str) -> str:
    template = _PARAMETER.sub(lambda found: f"{{{found[1] or found[2]}}}", route)
    return "/" + template.replace("^", "").replace("$", "")


def tenant_of(request: HttpRequest, status: int) -> str | None:
    """Return the tenant of the request, or None.

    It is None if the request was not authenticated, or was refused because it had no key.
    """
    if not hasattr(request, "auth"):  # only DRF's request has this attribute
        return None
    if request.auth is None:
        return None if status in (401, 403) else settings.DEFAULT_TENANT
    return str(request.auth.tenant)


@receiver(got_request_exception)
def log_fault(**kwargs: Any) -> None:
    """Log an exception that becomes a 500.

    The settings turn off Django's own log line, because it contains the path.
    """
    error = sys.exception()
    if not isinstance(error, OUTAGES):  # threadsvc/api/errors.py logs outages
        logger.error("unhandled exception", exc_info=True)
    if error and not settings.DEBUG:  # with DEBUG, Django's error page still needs the frames
        # The traceback refers to its frames, and the frames refer to the request, its body and the exception. Clear the
        # frames, so that this cycle does not keep them all in memory.
        traceback.clear_frames(error.__traceback__)
