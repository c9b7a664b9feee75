"""The checks that DRF makes before it calls a view: body size, origin of writes, rights of the key."""

from io import BytesIO
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import UnreadablePostError
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from threadsvc.api.errors import LengthRequired, RequestBodyTooLarge, UnsupportedEncoding

if TYPE_CHECKING:  # rest_framework.views imports this module: avoid a circular import
    from rest_framework.views import APIView

# The service does not read the body of a request with one of these methods (threads-api contract, "Everywhere").
BODILESS_METHODS = ("GET", "HEAD", "DELETE")


class PlainEncoding(BasePermission):
    """Refuses a compressed body (415), because decompressing it would take an unknown amount of memory."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip(" \t").lower() not in ("identity", ""):
            raise UnsupportedEncoding
        return True


class BodyWithinLimit(BasePermission):
    """Refuses a body that is too large (413) before it is read, and a body of unknown length (411).

    In `body_limits`, a view can set a higher limit for an action.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if request.method in BODILESS_METHODS:
            return True
        limits: dict[str, int] = getattr(view, "body_limits", {})
        limit = limits.get(getattr(view, "action", None) or "", settings.MAX_BODY_BYTES)
        length = content_length(request._request, limit)
        if length is None:
            raise LengthRequired
        if length > limit:
            raise RequestBodyTooLarge
        return True


def content_length(request: Any, limit: int) -> int | None:
    """Return the length of a body in bytes. Reads a chunked body, but at most `limit` + 1 bytes of it.

    Django treats a body without Content-Length as empty, so this function buffers a chunked body and sets the header.
    The extra byte shows that the body is too large. Returns None for a chunked body if the server does not guarantee
    that the input ends with the body. Raises UnreadablePostError.
    """
    meta = request.META
    if "CONTENT_LENGTH" not in meta and "HTTP_TRANSFER_ENCODING" in meta:
        if not meta.get("wsgi.input_terminated"):
            return None
        try:
            body = read_up_to(meta["wsgi.input"], limit + 1)
        except Exception as error:  # the server's own exceptions: malformed chunks, a client that disconnected
            raise UnreadablePostError(*error.args) from error
        request._stream = BytesIO(body)
        meta["CONTENT_LENGTH"] = str(len(body))
    return int(meta.get("CONTENT_LENGTH") or 0)


def read_up_to(stream: IO[bytes], limit: int) -> bytes:
    pieces, missing = [], limit
    while missing and (piece := stream.read(min(missing, 65536))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


class OwnOriginWrites(BasePermission):
    """Refuses an anonymous write that a browser sends for a page of another origin (403).

    Browsers send a form post to another origin without a CORS preflight. Without this check, any web page that the
    owner visits could write to a service on a loopback address that requires no keys. Clients other than browsers send
    no Origin.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        origin: Any = request.META.get("HTTP_ORIGIN")
        if origin is None or request.auth is not None or not is_write(request, view):
            return True
        allowed = (*settings.CSRF_TRUSTED_ORIGINS, *settings.CORS_ALLOWED_ORIGINS)
        if origin in allowed or _host_of(origin) == request.get_host().lower():
            return True
        raise PermissionDenied("Origin not allowed")


class WritingKeys(BasePermission):
    """Refuses a write with a read-only key (403)."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if getattr(request.auth, "read_only", False) and is_write(request, view):
            raise PermissionDenied("Read-only key")
        return True


def is_write(request: Request, view: "APIView") -> bool:
    """Return whether the method changes data.

    Returns False for a method that the view does not have, so that the response is 405 or 404, not 403.
    """
    return request.method not in SAFE_METHODS and request.method in view.allowed_methods


def _host_of(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:  # for example http://[
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
