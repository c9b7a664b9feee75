"""The request body: bytes -> JSON value, with the contract's media types and the exact position of every error.

Source: create-message contract, sections 3 and 4 (docs/contract/create-message.md)."""

import json
import re
from collections.abc import Mapping
from typing import IO, Any

import orjson
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from threadsvc.api.errors import UNREADABLE_BODY, InvalidJSON

_JSON_MEDIA_TYPE = re.compile(r"application/(json|[-!#$%&'*+.^_`|~0-9a-z]*\+json)")
# Python makes no number of more digits; orjson makes a float of them.
_TOO_MANY_DIGITS = re.compile(rb"[0-9]{4301}")
_OUT_OF_RANGE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?Infinity|NaN)', re.DOTALL)


class JSONBodyParser(BaseParser):
    """The JSON value of a body. One of another media type stays bytes, which no field takes for a value of its own."""

    media_type = "application/json"  # for the documentation; OneFormat gives every body to this parser

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read()
        if len(body) != int((parser_context or {})["request"].META["CONTENT_LENGTH"]):
            raise ParseError(UNREADABLE_BODY)  # the client went away in the middle of it
        return parse_json(body) if is_json(media_type or "") else body


def is_json(content_type: str) -> bool:
    """Whether a Content-Type header means JSON: none, application/json or application/*+json, any parameters."""
    content_type = content_type.strip(" \t")
    essence = content_type.partition(";")[0].rstrip(" \t").lower()
    return not content_type or _JSON_MEDIA_TYPE.fullmatch(essence) is not None


def parse_json(body: bytes) -> Any:
    """The value that UTF-8 encoded JSON stands for; a lone surrogate, escaped or not, is kept for the fields to judge.

    Raises InvalidJSON (422) for text that is not JSON, ParseError (400) for bytes that are not UTF-8, for nesting
    deeper than the interpreter can follow and for integers of more than 4300 digits.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_as_python_does(body)
    return parse_as_python_does(body) if len(body) > 4300 and _TOO_MANY_DIGITS.search(body) else value


def parse_as_python_does(body: bytes) -> Any:
    """`parse_json` by Python's own decoder: the judge of what orjson, which is faster, refuses.

    It knows where the error is in the words of the contract, and takes a byte order mark and lone surrogates.
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
        # All before it is sound JSON, so the first such word outside of strings is the one that was met.
        position = next(match.start() for match in _OUT_OF_RANGE.finditer(text) if match[1])
        raise InvalidJSON("Out of range float values are not JSON compliant", position) from error
    except (RecursionError, ValueError) as error:
        raise ParseError(UNREADABLE_BODY) from error


def as_before_3_13(error: json.JSONDecodeError) -> tuple[str, int]:
    """Message and position as CPython 3.8 to 3.12 tell them: 3.13 has words of its own for a comma before a bracket."""
    if not error.msg.startswith("Illegal trailing comma before end of"):
        return error.msg, error.pos
    bracket = re.compile(r"[ \t\n\r]*").match(error.doc, error.pos + 1)
    expected = "property name enclosed in double quotes" if error.msg.endswith("object") else "value"
    return f"Expecting {expected}", bracket.end() if bracket else error.pos


class _OutOfRangeError(Exception):
    """NaN, Infinity or -Infinity was met."""


def _refuse(literal: str) -> Any:
    raise _OutOfRangeError(literal)


_decoder = json.JSONDecoder(parse_constant=_refuse)
