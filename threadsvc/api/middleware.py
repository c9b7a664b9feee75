"""The middleware of API requests, in the order of the settings: CORS, shape, error bodies, headers, Host.

The first three also handle requests for pages.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import corsheaders.middleware
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import split_domain_port, validate_host
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.cache import patch_vary_headers

from threadsvc.api.json import JSONRenderer

GetResponse = Callable[[HttpRequest], HttpResponse]


class Middleware:
    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response


class CorsMiddleware(corsheaders.middleware.CorsMiddleware):
    """Responds to preflights of the allowed origins. Any other OPTIONS request gets 405, as the contract requires."""

    def check_preflight(self, request: HttpRequest) -> HttpResponseBase | None:
        is_allowed = request.headers.get("Origin") in settings.CORS_ALLOWED_ORIGINS
        return super().check_preflight(request) if is_allowed else None


class ShapeMiddleware(Middleware):
    """Sets `request.wants_v2` to True if an entry of `OpenAI-Beta` is `assistants=v2`.

    Adds `error` to errors in the v2 shape.

    Source: threads-api contract, "Two shapes of answer".
    """

    def __call__(self, request: HttpRequest) -> HttpResponse:
        entries: str | None = request.META.get("HTTP_OPENAI_BETA")
        is_v2 = entries is not None and "assistants=v2" in (each.strip(" \t").lower() for each in entries.split(","))
        request.wants_v2 = is_v2  # type: ignore[attr-defined]
        response = self.get_response(request)
        if is_v2 and response.status_code >= 400 and response["Content-Type"] == "application/json":
            # Some responses keep the value of their content in `data`. For a long list of errors, this is faster than
            # parsing the content again.
            body = getattr(response, "data", None) or json.loads(response.content)
            error = JSONRenderer().render(openai_error(response.status_code, body["detail"]))
            response.content = response.content.removesuffix(b"}") + b',"error":' + error + b"}"
            response["Content-Length"] = str(len(response.content))
        return response


def openai_error(status: int, detail: Any) -> dict[str, Any]:
    """Return OpenAI's error object for our `detail`, or for the first error in `detail` if it is a list."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return {"message": detail, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    if isinstance(detail, str):
        message, param, code = detail, None, None
    elif detail[0]["type"] == "json_invalid":
        message, param, code = f"JSON decode error: {detail[0]['ctx']['error']}", None, "json_invalid"
    else:
        (_, *steps), message, code = detail[0]["loc"], detail[0]["msg"], detail[0]["type"]
        param = ".".join(map(str, steps)) if steps else None
        message = message if param is None else f"{param}: {message}"
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}


class JSONErrorMiddleware(Middleware):
    """Gives every error a JSON body and a length. Django's decorators (405) and WhiteNoise (416) send no body."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        if response.streaming or not response.content:
            kept = ("Allow", "Cache-Control", "Content-Range", "Vary")
            headers = {name: response[name] for name in kept if name in response}
            response.close()
            detail = HTTPStatus(response.status_code).phrase
            response = JsonResponse({"detail": detail}, status=response.status_code, headers=headers)
        response["Content-Length"] = str(len(response.content))
        return response


class APISecurityMiddleware(Middleware):
    """Adds Content-Length, the headers of Django's security middleware, and headers that forbid caching."""

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        self.headers = {is_tls: security_headers(is_tls) for is_tls in (False, True)}

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        headers = response.headers
        for name, value in self.headers[request.is_secure()].items():
            headers[name] = value
        forbid_caching(response)
        if not response.streaming:
            headers["Content-Length"] = str(len(response.content))
        return response


def forbid_caching(response: HttpResponseBase) -> None:
    """Add headers that keep caches from storing the response, or from sending it to a client with another key or shape.

    A cache that ignores `no-store` still separates responses by `Vary`.
    """
    response.headers["Cache-Control"] = "no-store"
    patch_vary_headers(response, ("Authorization", "OpenAI-Beta"))


def security_headers(is_tls: bool) -> dict[str, str]:
    """Return the headers that Django's security middleware adds to a response."""
    request, response = HttpRequest(), HttpResponse(content_type="application/json")
    request._get_scheme = lambda: "https" if is_tls else "http"  # type: ignore[attr-defined]  # not in the stubs
    for middleware in (XFrameOptionsMiddleware, SecurityMiddleware):
        middleware(lambda _: response)(request)
    return {name: value for name, value in response.items() if name != "Content-Type"}


class HostMiddleware(Middleware):
    """Refuses a Host that is not in ALLOWED_HOSTS (400)."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        host = request.META.get("HTTP_HOST")
        if host is None or not is_allowed_host(host, tuple(settings.ALLOWED_HOSTS)):
            request.get_host()  # raises DisallowedHost, or accepts the server's name if there is no Host
        return self.get_response(request)


@lru_cache(maxsize=1024)
def is_allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Return whether Django accepts a Host header. Cached, because most requests have the same few hosts."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
