"""The API's errors: their codes and messages, the exception that carries them, and the mapping of domain exceptions.

Source: create-message contract, section 6; threads-api contract, "Lists" and "A retried POST must not store twice".
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from rest_framework.exceptions import APIException, NotFound, ValidationError

from messages_app.models import MAX_METADATA_PAIRS, Message, Thread
from messages_app.store.errors import InvalidKey, KeyInUse, KeyReused, Kind, TooManyPairs, UnknownCursor


class Code(NamedTuple):
    """A kind of error in the vocabulary of pydantic v1. `msg` can contain placeholders for the params of a Fault."""

    msg: str
    type: str


REQUIRED = Code("field required", "value_error.missing")
NULL = Code("none is not an allowed value", "type_error.none.not_allowed")
NOT_A_STRING = Code("str type expected", "type_error.str")
NOT_A_LIST = Code("value is not a valid list", "type_error.list")
NOT_A_DICT = Code("value is not a valid dict", "type_error.dict")
NOT_AN_INTEGER = Code("value is not a valid integer", "type_error.integer")
NOT_GE = Code("ensure this value is greater than or equal to {limit_value}", "value_error.number.not_ge")
NOT_LE = Code("ensure this value is less than or equal to {limit_value}", "value_error.number.not_le")
INVALID_CHOICE = Code("value is not a valid enumeration member; permitted: {permitted}", "type_error.enum")
MIN_LENGTH = Code("ensure this value has at least {limit_value} characters", "value_error.any_str.min_length")
MAX_LENGTH = Code("ensure this value has at most {limit_value} characters", "value_error.any_str.max_length")
MIN_LIST_ITEMS = Code("ensure this value has at least {limit_value} items", "value_error.list.min_items")
MAX_LIST_ITEMS = Code("ensure this value has at most {limit_value} items", "value_error.list.max_items")
MAX_DICT_ITEMS = Code("ensure this value has at most {limit_value} items", "value_error.dict.max_items")
NULL_CHARACTER = Code("null characters are not allowed", "value_error.str.null_character")
SURROGATE = Code("surrogate characters are not allowed", "value_error.str.surrogate")
EXTRA = Code("extra fields not permitted", "value_error.extra")
UNKNOWN_CURSORS: Mapping[Kind, Code] = {
    "thread": Code("no such thread", "value_error.cursor"),
    "message": Code("no such message in this thread", "value_error.cursor"),
    "file": Code("no such file in this message", "value_error.cursor"),
}
BAD_IDEMPOTENCY_KEY = Code("key must be 1 to 255 visible ASCII characters", "value_error.idempotency_key")
IDEMPOTENCY_KEY_REUSED = Code("key was used with another body", "value_error.idempotency_key")


class Fault(NamedTuple):
    """One error: its code, the path from the validated value to the error, and the params for its message."""

    code: Code
    loc: tuple[str | int, ...] = ()
    params: Mapping[str, Any] = {}

    @property
    def msg(self) -> str:
        permitted = ", ".join(map(repr, self.params.get("enum_values", ())))
        return self.code.msg.format(permitted=permitted, **self.params) if self.params else self.code.msg

    def under(self, step: str | int) -> "Fault":
        """Return the same error with this step added at the front of its path."""
        return Fault(self.code, (step, *self.loc), self.params)


class Faults(ValidationError):
    """A ValidationError with an ordered list of Fault. Becomes 422.

    The list replaces DRF's dict of messages by field, which has no paths into lists, no params and no order. `root` is
    the part of the request where the paths start: `body`, `query` or `header`.
    """

    detail: list[Fault]  # type: ignore[assignment]  # DRF declares strings, lists and dicts

    def __init__(self, faults: Iterable[Fault], root: str = "body") -> None:
        self.detail = list(faults)
        self.root = root

    @property
    def items(self) -> list[dict[str, Any]]:
        """The errors as items of the response's `detail`."""
        return [
            {
                "loc": [self.root, *fault.loc],
                "msg": fault.msg,
                "type": fault.code.type,
                **({"ctx": fault.params} if fault.params else {}),
            }
            for fault in self.detail
        ]


class RequestInProgress(APIException):
    status_code = HTTPStatus.CONFLICT
    default_detail = "Request in progress"
    wait = 1  # in seconds, sent as Retry-After


def wire_error(exc: Exception, path: Mapping[str, str]) -> Exception:
    """Return the API's error for an exception of the domain. Return any other exception unchanged.

    `path` holds the ids in the request's path. A missing row becomes 404. A concurrent request with the same
    idempotency key becomes 409. All other exceptions of the domain become 422.
    """
    match exc:
        case Thread.DoesNotExist():
            return NotFound(f"Thread with ID '{path.get('thread_id')}' not found")
        case Message.DoesNotExist():
            return NotFound(f"Message with ID '{path.get('message_id')}' in thread '{path.get('thread_id')}' not found")
        case UnknownCursor():
            return Faults([Fault(UNKNOWN_CURSORS[exc.kind], (name,)) for name in exc.names], root="query")
        case TooManyPairs():
            return Faults([Fault(MAX_DICT_ITEMS, ("metadata",), {"limit_value": MAX_METADATA_PAIRS})])
        case InvalidKey():
            return Faults([Fault(BAD_IDEMPOTENCY_KEY, ("idempotency-key",))], root="header")
        case KeyReused():
            return Faults([Fault(IDEMPOTENCY_KEY_REUSED, ("idempotency-key",))], root="header")
        case KeyInUse():
            return RequestInProgress()
    return exc
