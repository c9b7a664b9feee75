"""The middleware for pages and the admin. See threadsvc/api/middleware.py for the API."""

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.http.request import UnreadablePostError
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.deprecation import MiddlewareMixin

from threadsvc.access.permissions import BODILESS_METHODS, content_length
from threadsvc.api.errors import bad_request
from threadsvc.api.middleware import Middleware

ADMIN_PATH = "/admin/"
PROBES = ("/healthz", "/readyz")
# Pages load everything from this server. Swagger UI and Redoc need inline styles. Redoc's search runs in a worker that
# Redoc creates from a blob.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class PageMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which checks Host. It lets probes through, which use the address of the service."""

    def process_request(self, request: HttpRequest) -> Any:
        return None if request.path_info in PROBES else super().process_request(request)


class PageSecurityMiddleware(Middleware):
    """Adds a Content-Security-Policy to HTML, so that a page loads and runs only content from this server."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            response.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response


class AdminBodyLimitMiddleware(Middleware):
    """Refuses a body that is too large (413) before the form is read.

    Django's own limit does not apply to file uploads. No form of the admin has a file upload, but a client can still
    send one.
    """

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(ADMIN_PATH) and request.method not in BODILESS_METHODS:
            try:
                length = content_length(request, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
            except UnreadablePostError:
                return bad_request(request, BadRequest())
            if (length or 0) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                return bad_request(request, RequestDataTooBig())
        return self.get_response(request)


class AdminNullCharacterMiddleware(Middleware):
    """Refuses U+0000 in a path, cookie, query or form (400). PostgreSQL raises an error for text that contains it."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(ADMIN_PATH):
            texts = [request.path_info, *request.COOKIES.values()]
            try:
                for form in (request.GET, request.POST):
                    texts += [text for name, values in form.lists() for text in (name, *values)]
            except UnreadablePostError:
                return bad_request(request, BadRequest())
            if any("\0" in text for text in texts):
                return bad_request(request, BadRequest())
        return self.get_response(request)


class AdminOnlyMixin(MiddlewareMixin):
    """Runs a Django middleware only for the admin, because other pages have no sessions, cookies or forms."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if request.path_info.startswith(ADMIN_PATH) else self.get_response(request)


class AdminSessionMiddleware(AdminOnlyMixin, SessionMiddleware): ...


class AdminAuthenticationMiddleware(AdminOnlyMixin, AuthenticationMiddleware): ...


class AdminMessageMiddleware(AdminOnlyMixin, MessageMiddleware): ...


class AdminCsrfMiddleware(AdminOnlyMixin, CsrfViewMiddleware):
    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> HttpResponseForbidden | None:
        if not request.path_info.startswith(ADMIN_PATH):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)
