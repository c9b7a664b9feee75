"""JSON input and output: the parser of request bodies, which reports the position of each error, and the renderer.

Source: create-message contract, sections 3 and 4 (docs/contract/create-message.md).
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import IO, Any

import orjson
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

UNREADABLE_BODY = "There was an error parsing the body"

_JSON_MEDIA_TYPE = re.compile(r"application/(json|[-!#$%&'*+.^_`|~0-9a-z]*\+json)")
# Python rejects integers of 4301 or more digits, but orjson returns a float. Bodies with so many digits in a row are
# therefore parsed with Python.
_TOO_MANY_DIGITS = re.compile(rb"[0-9]{4301}")
_OUT_OF_RANGE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?Infinity|NaN)', re.DOTALL)


class JSONOnly(BaseContentNegotiation):
    """Selects the view's first parser and first renderer. The parser checks Content-Type. Accept is ignored."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None  # no charset in the header, because JSON is always UTF-8 (RFC 8259)

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else orjson.dumps(data)


class InvalidJSON(ParseError):
    """The body is not valid JSON. `reason` is the error at character `position`. Becomes 422 `json_invalid`."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


class JSONBodyParser(BaseParser):
    """Returns the JSON value of a body.

    Returns a body of another media type as bytes. The serializer refuses bytes: "value is not a valid dict". In the v2
    shape, threadsvc/api/errors.py adds advice about the Content-Type.
    """

    media_type = "application/json"  # only for the documentation: JSONOnly gives every body to this parser

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read()
        if len(body) != int((parser_context or {})["request"].META["CONTENT_LENGTH"]):
            raise ParseError(UNREADABLE_BODY)  # the client disconnected before the end of the body
        return parse_json(body) if is_json(media_type or "") else body


def is_json(content_type: str) -> bool:
    """Return whether a Content-Type means JSON.

    It may be empty, application/json or application/*+json, with any parameters.
    """
    content_type = content_type.strip(" \t")
    essence = content_type.partition(";")[0].rstrip(" \t").lower()
    return not content_type or _JSON_MEDIA_TYPE.fullmatch(essence) is not None


def parse_json(body: bytes) -> Any:
    """Return the value of UTF-8 encoded JSON. Keeps lone surrogates, escaped or not, because the fields refuse them.

    Raises InvalidJSON (422) for text that is not JSON. Raises ParseError (400) for bytes that are not UTF-8, nesting
    beyond the interpreter's recursion limit, and integers of more than 4300 digits.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_with_python(body)
    return parse_with_python(body) if len(body) > 4300 and _TOO_MANY_DIGITS.search(body) else value


def parse_with_python(body: bytes) -> Any:
    """Return the same as `parse_json`, but with Python's decoder, for bodies that orjson refuses.

    The contract requires Python's error messages and positions. Accepts a byte order mark and lone surrogates.
    """
    try:
        text = body.decode("utf-8", "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ParseError(UNREADABLE_BODY) from error
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJSON(*as_before_3_13(error)) from error
    except _OutOfRangeError as error:
        # The decoder does not report the position. It stopped at the first NaN or Infinity outside of strings, so find
        # this one. `_OUT_OF_RANGE` also matches whole strings, in order to skip them.
        position = next(match.start() for match in _OUT_OF_RANGE.finditer(text) if match[1])
        raise InvalidJSON("Out of range float values are not JSON compliant", position) from error
    except (RecursionError, ValueError) as error:
        raise ParseError(UNREADABLE_BODY) from error


def as_before_3_13(error: json.JSONDecodeError) -> tuple[str, int]:
    """Return the message and position of CPython 3.8 to 3.12.

    CPython 3.13 reports a comma before a bracket differently.
    """
    if not error.msg.startswith("Illegal trailing comma before end of"):
        return error.msg, error.pos
    bracket = re.compile(r"[ \t\n\r]*").match(error.doc, error.pos + 1)
    expected = "property name enclosed in double quotes" if error.msg.endswith("object") else "value"
    return f"Expecting {expected}", bracket.end() if bracket else error.pos


class _OutOfRangeError(Exception):
    """The JSON contains NaN, Infinity or -Infinity."""


def _refuse_constant(literal: str) -> Any:
    raise _OutOfRangeError(literal)


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
