"""Every refusal in the contract's form: DRF and Django exceptions -> `{"detail": ...}`.

A text `detail` says what happened (404, 405, 413, ...); a list says what is wrong with the request (422), one item
`{"loc", "msg", "type"[, "ctx"]}` an error, in the vocabulary of pydantic v1 as FastAPI shows it.
"""

import logging
import math
import re
import sys
from http import HTTPStatus
from typing import Any

from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from rest_framework import exceptions
from rest_framework.response import Response

from threadsvc.engines.base import DiskFull, RowTooLarge, error_reason

logger = logging.getLogger(__name__)

# What an error's code becomes on the wire: msg (filled in from the error's params) and type.
MESSAGES = {
    "required": ("field required", "value_error.missing"),
    "null": ("none is not an allowed value", "type_error.none.not_allowed"),
    "not_a_string": ("str type expected", "type_error.str"),
    "not_a_list": ("value is not a valid list", "type_error.list"),
    "not_a_dict": ("value is not a valid dict", "type_error.dict"),
    "not_an_integer": ("value is not a valid integer", "type_error.integer"),
    "not_ge": ("ensure this value is greater than or equal to {limit_value}", "value_error.number.not_ge"),
    "not_le": ("ensure this value is less than or equal to {limit_value}", "value_error.number.not_le"),
    "invalid_choice": ("value is not a valid enumeration member; permitted: {permitted}", "type_error.enum"),
    "min_length": ("ensure this value has at least {limit_value} characters", "value_error.any_str.min_length"),
    "max_length": ("ensure this value has at most {limit_value} characters", "value_error.any_str.max_length"),
    "min_list_items": ("ensure this value has at least {limit_value} items", "value_error.list.min_items"),
    "max_list_items": ("ensure this value has at most {limit_value} items", "value_error.list.max_items"),
    "max_dict_items": ("ensure this value has at most {limit_value} items", "value_error.dict.max_items"),
    "null_characters_not_allowed": ("null characters are not allowed", "value_error.str.null_character"),
    "surrogate_characters_not_allowed": ("surrogate characters are not allowed", "value_error.str.surrogate"),
    "extra": ("extra fields not permitted", "value_error.extra"),
    "no_such_thread": ("no such thread", "value_error.cursor"),
    "no_such_message": ("no such message in this thread", "value_error.cursor"),
    "no_such_file": ("no such file in this message", "value_error.cursor"),
    "bad_idempotency_key": ("key must be 1 to 255 visible ASCII characters", "value_error.idempotency_key"),
    "idempotency_key_reused": ("key was used with another body", "value_error.idempotency_key"),
}

# Seconds after which a client may try again when a database did not answer.
RETRY_AFTER = "1"

UNREADABLE_BODY = "There was an error parsing the body"
_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestBodyTooLarge(exceptions.APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = "Request body too large"


class LengthRequired(exceptions.APIException):
    status_code = HTTPStatus.LENGTH_REQUIRED
    default_detail = "Length Required"


class InvalidJSON(exceptions.ParseError):
    """The text of a body is not JSON: `reason` at character `position` of it. Becomes 422 `json_invalid`."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's hook: the answer to an exception raised in a view; None (Django's 500) for what is a fault of ours."""
    match exc:
        case InvalidJSON():
            return Response({"detail": [_json_invalid(exc)]}, HTTPStatus.UNPROCESSABLE_ENTITY)
        case exceptions.ValidationError():
            error: Any = exc  # the domain's own kind, which knows more; nobody raises another
            detail = [_item(fault, error.root) for fault in error.detail]
            return Response({"detail": detail}, HTTPStatus.UNPROCESSABLE_ENTITY)
        case exceptions.ParseError() | UnreadablePostError():
            return Response({"detail": UNREADABLE_BODY}, HTTPStatus.BAD_REQUEST)
        case RequestDataTooBig() | RowTooLarge():
            return Response({"detail": RequestBodyTooLarge.default_detail}, RequestBodyTooLarge.status_code)
        case exceptions.MethodNotAllowed():
            return Response({"detail": "Method Not Allowed"}, exc.status_code)
        case exceptions.APIException():
            said: Any = "Too Many Requests" if isinstance(exc, exceptions.Throttled) else exc.detail
            # As DRF's own handler has them: it sets the first for a 401, the second where one may ask again.
            challenge, wait = getattr(exc, "auth_header", None), getattr(exc, "wait", None)
            headers = {"WWW-Authenticate": challenge} if challenge else {}
            headers |= {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
            return Response({"detail": said}, exc.status_code, headers=headers)
        case Http404():
            return Response({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)
    return answer_of_database(exc)


# What a database raises that is away, full, or a standby that is read-only.
OUTAGES = (OperationalError, InterfaceError, InternalError)


def answer_of_database(exc: BaseException | None) -> JsonResponse | None:
    """The answer where a database cannot do what it is asked for; None for any other exception. The log gets a line."""
    match exc:
        case DiskFull():
            logger.error("database full: %s", error_reason(exc))
            return JsonResponse({"detail": "Insufficient Storage"}, status=HTTPStatus.INSUFFICIENT_STORAGE)
        case _ if isinstance(exc, OUTAGES):
            logger.error("database unavailable: %s", error_reason(exc))
            return service_unavailable()
    return None


def _json_invalid(error: InvalidJSON) -> dict[str, Any]:
    return {
        "type": "json_invalid",
        "loc": ["body", error.position],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": str(error.detail)},
    }


def _item(fault: Any, root: str) -> dict[str, Any]:
    """One error of a ValidationError: a `code`, where it is (`loc`), and the numbers of the rule that was broken."""
    return {
        "loc": [root, *map(_valid_utf8, fault.loc)],
        "msg": words_of(fault),
        "type": MESSAGES[fault.code][1],
        **({"ctx": fault.params} if fault.params else {}),
    }


def words_of(fault: Any) -> str:
    """The `msg` of an error; settings name this function for those that tell faults in no answer."""
    message = MESSAGES[fault.code][0]
    permitted = ", ".join(map(repr, fault.params.get("enum_values", ())))
    return message.format(permitted=permitted, **fault.params) if fault.params else message


def _valid_utf8(step: str | int) -> str | int:
    """A key as it was sent, but for lone surrogates: UTF-8 has no form for them."""
    return _SURROGATE.sub("\ufffd", step) if isinstance(step, str) else step


# Django's own handlers, for what is raised outside of DRF's views.


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    match exception:
        case DisallowedHost():
            return JsonResponse({"detail": "Invalid Host header"}, status=400)
        case RequestDataTooBig():
            return JsonResponse({"detail": RequestBodyTooLarge.default_detail}, status=413)
    return JsonResponse({"detail": "Bad Request"}, status=400)


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
