"""Middleware of the project's own: hosts and headers for the API; Django's for people, and the headers of pages."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import corsheaders.middleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.http.request import UnreadablePostError, split_domain_port, validate_host
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.deprecation import MiddlewareMixin

from threadsvc.access import BODILESS_METHODS, is_unmeasured, measure
from threadsvc.api.errors import bad_request

GetResponse = Callable[[HttpRequest], HttpResponse]

ADMIN_PATH = "/admin/"
# Everything that a page loads comes from this server. Inline styles are what Swagger UI and Redoc draw with; Redoc
# searches in a worker that it makes from a blob.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class OnlyInAdmin(MiddlewareMixin):
    """Runs a middleware of Django's for the admin alone: the API has no sessions, no cookies and no forms."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if request.path_info.startswith(ADMIN_PATH) else self.get_response(request)


class AdminBodyWithinLimit:
    """413 before a form is read: Django itself has no limit for files, which no form of ours takes."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(ADMIN_PATH) and request.method not in BODILESS_METHODS:
            try:
                if is_unmeasured(request.META):
                    measure(request, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            except UnreadablePostError:
                return bad_request(request, BadRequest())
            if int(request.META.get("CONTENT_LENGTH") or 0) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                return bad_request(request, RequestDataTooBig())
        return self.get_response(request)


class RefuseNulInAdmin:
    """400 for U+0000 in what a browser sends to the admin: PostgreSQL takes no text that has it, and raises."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(ADMIN_PATH):
            sent = [request.path_info, *request.COOKIES.values()]
            try:
                for form in (request.GET, request.POST):
                    sent += [text for name, values in form.lists() for text in (name, *values)]
            except UnreadablePostError:
                return bad_request(request, BadRequest())
            if any("\0" in text for text in sent):
                return bad_request(request, BadRequest())
        return self.get_response(request)


class AdminSessionMiddleware(OnlyInAdmin, SessionMiddleware): ...


class AdminAuthenticationMiddleware(OnlyInAdmin, AuthenticationMiddleware): ...


class AdminMessageMiddleware(OnlyInAdmin, MessageMiddleware): ...


class AdminCsrfMiddleware(OnlyInAdmin, CsrfViewMiddleware):
    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> HttpResponseForbidden | None:
        if not request.path_info.startswith(ADMIN_PATH):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)


class CorsMiddleware(corsheaders.middleware.CorsMiddleware):
    """Answers preflights of the allowed origins; OPTIONS of anybody else is the contract's 405."""

    def check_preflight(self, request: HttpRequest) -> HttpResponseBase | None:
        is_allowed = request.headers.get("Origin") in settings.CORS_ALLOWED_ORIGINS
        return super().check_preflight(request) if is_allowed else None


class HostMiddleware:
    """400 for a name that this server is not called by."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        host = request.META.get("HTTP_HOST")
        if host is None or not is_one_of_ours(host, tuple(settings.ALLOWED_HOSTS)):
            request.get_host()  # raises DisallowedHost
        return self.get_response(request)


@lru_cache(maxsize=1024)
def is_one_of_ours(host: str, allowed: tuple[str, ...]) -> bool:
    """What Django asks of a Host header; most are the same few."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


class APISecurityMiddleware:
    """Gives the API's answers what Django's middleware would: the headers that are the same for all, their length."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.headers = {is_tls: headers_of_django(is_tls) for is_tls in (False, True)}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        headers = response.headers
        for name, value in self.headers[request.is_secure()].items():
            headers[name] = value
        if not response.streaming:
            headers["Content-Length"] = str(len(response.content))
        return response


def headers_of_django(is_tls: bool) -> dict[str, str]:
    """What Django's middleware for security puts into an answer."""
    request, response = HttpRequest(), HttpResponse(content_type="application/json")
    request._get_scheme = lambda: "https" if is_tls else "http"  # type: ignore[attr-defined]  # not in the stubs
    for middleware in (XFrameOptionsMiddleware, SecurityMiddleware):
        middleware(lambda _: response)(request)
    return {name: value for name, value in response.items() if name != "Content-Type"}


class PageSecurityMiddleware:
    """A page loads and runs nothing but what comes from this server."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            response.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response
