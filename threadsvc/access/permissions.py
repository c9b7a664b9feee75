"""What a request must be before a view looks at it."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from threadsvc.access import BODILESS_METHODS, is_unmeasured, measure
from threadsvc.api.errors import LengthRequired, RequestBodyTooLarge

if TYPE_CHECKING:  # rest_framework.views imports this module while it is being imported itself
    from rest_framework.views import APIView


class BodyWithinLimit(BasePermission):
    """413 before a body is read that says how long it is; of a chunked one no more is read than the limit.

    A view may raise the limit of an action in `body_limits`.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if request.method in BODILESS_METHODS:
            return True
        limits: dict[str, int] = getattr(view, "body_limits", {})
        limit = limits.get(getattr(view, "action", None) or "", settings.MAX_BODY_BYTES)
        if is_unmeasured(request.META):
            measure(request._request, limit)
        if is_unmeasured(request.META):
            raise LengthRequired
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
            raise RequestBodyTooLarge
        return True


class OwnOriginWrites(BasePermission):
    """403 for an anonymous write that a page of another origin makes a browser send.

    A service without keys on a loopback address would otherwise take messages from any web page that its owner visits:
    a form post needs no consent of the server. Clients that are not browsers send no Origin.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        origin: Any = request.META.get("HTTP_ORIGIN")
        if origin is None or request.auth is not None:
            return True
        if not is_write(request, view):
            return True
        allowed = (*settings.CSRF_TRUSTED_ORIGINS, *settings.CORS_ALLOWED_ORIGINS)
        if origin in allowed or _host_of(origin) == request.get_host().lower():
            return True
        raise PermissionDenied("Origin not allowed")


class WritingKeys(BasePermission):
    """403 for a read-only key that writes."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if getattr(request.auth, "read_only", False) and is_write(request, view):
            raise PermissionDenied("Read-only key")
        return True


def is_write(request: Request, view: "APIView") -> bool:
    """Whether a method changes something; one that the path does not take is a 405 (or a 404) to everybody."""
    return request.method not in SAFE_METHODS and request.method in view.allowed_methods


def _host_of(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:  # such as http://[
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
