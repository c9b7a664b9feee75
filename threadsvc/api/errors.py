"""Every error response in the contract's form: DRF and Django exceptions -> `{"detail": ...}`.

`detail` is a text (404, 405, 413, ...), or for 422 a list with one item `{"loc", "msg", "type"[, "ctx"]}` for each
error, in the vocabulary of pydantic v1 as FastAPI shows it.
"""

import logging
import math
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from rest_framework import exceptions
from rest_framework.settings import api_settings

from threadsvc.api.json import UNREADABLE_BODY, InvalidJSON, JSONRenderer
from threadsvc.engines.base import DiskFull, RowTooLarge, error_reason

logger = logging.getLogger(__name__)

# Seconds after which a client may try again when a database did not answer.
RETRY_AFTER = "1"

# The item of a ValidationError that names no error.
_INVALID = {"loc": ["body"], "msg": "Invalid input.", "type": "value_error.invalid"}
_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestBodyTooLarge(exceptions.APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = "Request body too large"


class LengthRequired(exceptions.APIException):
    status_code = HTTPStatus.LENGTH_REQUIRED
    default_detail = "Length Required"


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's hook: return the response for an exception raised in a view; None, which becomes a 500, for a bug."""
    match exc:
        case InvalidJSON():
            return ErrorResponse([_json_invalid(exc)], HTTPStatus.UNPROCESSABLE_ENTITY)
        case exceptions.ValidationError():
            return ErrorResponse(_items_of(exc), HTTPStatus.UNPROCESSABLE_ENTITY)
        case exceptions.ParseError() | UnreadablePostError():
            return ErrorResponse(UNREADABLE_BODY, HTTPStatus.BAD_REQUEST)
        case RequestDataTooBig() | RowTooLarge():
            return ErrorResponse(RequestBodyTooLarge.default_detail, RequestBodyTooLarge.status_code)
        case exceptions.MethodNotAllowed():
            return ErrorResponse("Method Not Allowed", exc.status_code)
        case exceptions.APIException():
            detail: Any = "Too Many Requests" if isinstance(exc, exceptions.Throttled) else exc.detail
            # As in DRF's own handler: the view sets `auth_header` for a 401, and a throttle sets `wait`.
            challenge, wait = getattr(exc, "auth_header", None), getattr(exc, "wait", None)
            headers = {"WWW-Authenticate": challenge} if challenge else {}
            headers |= {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
            return ErrorResponse(detail, exc.status_code, headers)
        case Http404():
            return ErrorResponse("Not Found", HTTPStatus.NOT_FOUND)
    return answer_of_database(exc)


class ErrorResponse(HttpResponse):
    """An error in the contract's form. `data` is the value that its content was rendered from.

    DRF's Response is rendered after the view has returned, and refers to the view, the request and itself from then on.
    """

    def __init__(self, detail: Any, status: int, headers: dict[str, str] | None = None) -> None:
        self.data = {"detail": detail}
        renderer = JSONRenderer()
        super().__init__(renderer.render(self.data), renderer.media_type, status, headers=headers)


# What a database raises that is unavailable, full, or a read-only standby.
OUTAGES = (OperationalError, InterfaceError, InternalError)


def answer_of_database(exc: BaseException | None) -> JsonResponse | None:
    """Return the 503 or 507 for a database that is unavailable or full, and log it; None for any other exception."""
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
    """Return the items of a 422: the exception's own `items` if it has any, else those of DRF's nested texts."""
    items = getattr(error, "items", None) or list(_items_in(error.detail, ["body"])) or [_INVALID]
    return [{**item, "loc": list(map(_valid_utf8, item["loc"])), "msg": _valid_utf8(item["msg"])} for item in items]


def _items_in(detail: Any, loc: list[str | int]) -> Iterator[dict[str, Any]]:
    """Yield an item for each text in a ValidationError's detail: a text, or lists and dicts of texts."""
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
    """Return a text or index with lone surrogates replaced: UTF-8 cannot encode them."""
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


# Django's handlers, for exceptions outside of DRF's views


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
