"""Error responses: exceptions of DRF and Django become `{"detail": ...}`, the form that the contract requires.

`detail` is a string (404, 405, 413, ...). For 422, it is a list with one item `{"loc", "msg", "type"[, "ctx"]}` for
each error. The items use the vocabulary of pydantic v1, as in FastAPI.
"""

import logging
import math
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.settings import api_settings

from threadsvc.api.json import UNREADABLE_BODY, InvalidJSON, JSONRenderer, is_json
from threadsvc.engines.base import DiskFull, RowTooLarge, error_reason

logger = logging.getLogger(__name__)

# Seconds after which a client should retry if the database was unavailable.
RETRY_AFTER = "1"

# The item for a ValidationError without messages.
_INVALID = {"loc": ["body"], "msg": "Invalid input.", "type": "value_error.invalid"}
# The item for a body that is not an object. A body without a JSON media type always gets this item.
_NOT_A_DICT = {"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}
_SEND_JSON = "The body was not parsed because its Content-Type is not JSON. Send Content-Type: application/json."
_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestBodyTooLarge(exceptions.APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = "Request body too large"


class UnsupportedEncoding(exceptions.APIException):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    default_detail = "Unsupported Content-Encoding"


class LengthRequired(exceptions.APIException):
    status_code = HTTPStatus.LENGTH_REQUIRED
    default_detail = "Length Required"


class PathNotServed(exceptions.NotFound):
    """A 404 for a path of OpenAI's API that this service does not serve. `message` becomes OpenAI's `error.message`."""

    default_detail = "Not Found"

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """Return the response for an exception that a view raised.

    DRF calls this function. If it returns None, the exception is a bug and becomes a 500.
    """
    match exc:
        case InvalidJSON():
            return ErrorResponse([_json_invalid(exc)], HTTPStatus.UNPROCESSABLE_ENTITY)
        case exceptions.ValidationError():
            items = _items_of(exc)
            return ErrorResponse(
                items, HTTPStatus.UNPROCESSABLE_ENTITY, detail_for_error=_with_advice(items, context["request"])
            )
        case exceptions.ParseError() | UnreadablePostError():
            return ErrorResponse(UNREADABLE_BODY, HTTPStatus.BAD_REQUEST)
        case RequestDataTooBig() | RowTooLarge():
            return ErrorResponse(RequestBodyTooLarge.default_detail, RequestBodyTooLarge.status_code)
        case exceptions.MethodNotAllowed():
            return ErrorResponse("Method Not Allowed", exc.status_code)
        case PathNotServed():
            return ErrorResponse(exc.detail, exc.status_code, detail_for_error=exc.message)
        case exceptions.APIException():
            is_throttled = isinstance(exc, exceptions.Throttled)
            return ErrorResponse("Too Many Requests" if is_throttled else exc.detail, exc.status_code, _headers_of(exc))
        case Http404():
            return ErrorResponse("Not Found", HTTPStatus.NOT_FOUND)
    return answer_of_database(exc)


def _headers_of(error: Any) -> dict[str, str]:
    """Return the headers of an error: as in DRF, from `auth_header` (401) and `wait` (409, 429), and the rate limit."""
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if (wait := getattr(error, "wait", None)) is not None:
        seconds = max(1, math.ceil(wait))
        headers["Retry-After"] = str(seconds)
        if isinstance(error, exceptions.Throttled):  # described as in OpenAI's API
            limit: Any = settings.RATE_LIMIT
            headers["x-ratelimit-limit-requests"] = str(limit[0])
            headers["x-ratelimit-remaining-requests"] = "0"
            headers["x-ratelimit-reset-requests"] = f"{seconds}s"
    return headers


class ErrorResponse(HttpResponse):
    """An error in the contract's form, `{"detail": detail}`.

    ShapeMiddleware makes OpenAI's `error` from `data`, which contains `detail` or, if given, `detail_for_error`. The
    contract fixes every word of `detail`, so only `detail_for_error` can contain advice.

    This is not DRF's Response, because that is rendered later and keeps the view and the request in memory.
    """

    def __init__(
        self, detail: Any, status: int, headers: dict[str, str] | None = None, *, detail_for_error: Any = None
    ) -> None:
        self.data = {"detail": detail_for_error or detail}
        renderer = JSONRenderer()
        super().__init__(renderer.render({"detail": detail}), renderer.media_type, status, headers=headers)


# Exceptions of a database that is unavailable or full, or is a read-only standby.
OUTAGES = (OperationalError, InterfaceError, InternalError)


def answer_of_database(exc: BaseException | None) -> JsonResponse | None:
    """Log and return the 503 or 507 for a database that is unavailable or full. Return None for any other exception."""
    if not isinstance(exc, OUTAGES):
        return None
    is_full = isinstance(exc, DiskFull)
    logger.error("database %s: %s", "full" if is_full else "unavailable", error_reason(exc))
    return JsonResponse({"detail": "Insufficient Storage"}, status=507) if is_full else service_unavailable()


def _json_invalid(error: InvalidJSON) -> dict[str, Any]:
    return {
        "type": "json_invalid",
        "loc": ["body", error.position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": str(error.detail)},
    }


def _items_of(error: exceptions.ValidationError) -> list[dict[str, Any]]:
    """Return the items of a 422: the exception's own `items`, or one item for each message in DRF's nested detail."""
    items = getattr(error, "items", None) or list(_items_in(error.detail, ["body"])) or [_INVALID]
    return [{**item, "loc": list(map(_valid_utf8, item["loc"])), "msg": _valid_utf8(item["msg"])} for item in items]


def _with_advice(items: list[dict[str, Any]], request: Request) -> list[dict[str, Any]] | None:
    """Return the items with advice if the body was not parsed because of its Content-Type, otherwise None."""
    if items != [_NOT_A_DICT] or is_json(request.content_type):
        return None
    return [{**_NOT_A_DICT, "msg": f"{_NOT_A_DICT['msg']}. {_SEND_JSON}"}]


def _items_in(detail: Any, loc: list[str | int]) -> Iterator[dict[str, Any]]:
    """Yield an item for each message in a ValidationError's detail.

    The detail is a string, or nested lists and dicts of strings.
    """
    match detail:
        case dict():
            for key, inner in detail.items():
                is_of_object = key == api_settings.NON_FIELD_ERRORS_KEY
                yield from _items_in(inner, loc if is_of_object else [*loc, key if isinstance(key, int) else str(key)])
        case list():
            for number, inner in enumerate(detail):
                yield from _items_in(inner, loc if isinstance(inner, str) else [*loc, number])
        case _:
            yield {"loc": loc, "msg": str(detail), "type": f"value_error.{getattr(detail, 'code', 'invalid')}"}


def _valid_utf8(value: str | int) -> str | int:
    """Replace the lone surrogates in a string, because UTF-8 cannot encode them. Return an index unchanged."""
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


# Django's handlers, for exceptions raised outside of DRF's views


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    if isinstance(exception, RequestDataTooBig):
        return JsonResponse({"detail": RequestBodyTooLarge.default_detail}, status=413)
    detail = "Invalid Host header" if isinstance(exception, DisallowedHost) else "Bad Request"
    return JsonResponse({"detail": detail}, status=400)


def permission_denied(request: HttpRequest, exception: Exception) -> JsonResponse:
    return JsonResponse({"detail": "Forbidden"}, status=403)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    return JsonResponse({"detail": "Not Found"}, status=404)


def server_error(request: HttpRequest) -> JsonResponse:
    if answer := answer_of_database(sys.exception()):
        return answer
    return JsonResponse({"detail": "Internal Server Error"}, status=500)


def service_unavailable() -> JsonResponse:
    return JsonResponse({"detail": "Service Unavailable"}, status=503, headers={"Retry-After": RETRY_AFTER})
