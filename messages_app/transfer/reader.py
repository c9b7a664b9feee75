"""The reader: converts bytes to JSON objects, each with the line in which it starts.

It accepts JSON Lines, objects over several lines, one array of objects, and several arrays in a row. Only one object
and one chunk of the file are in memory.
"""

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

import orjson

# Larger chunks fragment the memory.
CHUNK_BYTES = 64 * 1024

# A JSON error this close to the end of the text may only mean that a token is incomplete, such as `-Infinity` or
# `\ud83d\ude00`.
LONGEST_TOKEN = 16

_BETWEEN = re.compile(r"[ \t\r\n]*")
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")
_REST_OF_LINE = re.compile(r"[ \t\r]*")
_NEXT_START = re.compile(r"\n(?=[{\[])")


class ParsedObject(NamedTuple):
    """A JSON object of `size` characters, or the reason (`fault`) why there is no valid object at this line."""

    line: int
    value: Any = None
    size: int = 0
    fault: str | None = None


class _ConstantError(ValueError):
    """A constant, such as NaN, that Python's parser accepts but that is not JSON."""


def _refuse_constant(literal: str) -> Any:
    raise _ConstantError(f"{literal} is not a JSON value")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


class ObjectReader:
    """Iterates over the JSON objects in a byte stream, and over the faults between them, as ParsedObject.

    After a fault, reading continues at the next line that starts with an object or an array.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        # Bytes that are not UTF-8 become lone surrogates. Validation then reports the text that contains them.
        self._to_text = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._line = "", 0, 1
        self._depth = 0  # the number of open arrays
        self._ended = False
        self._read_error: str | None = None

    def __iter__(self) -> Iterator[ParsedObject]:
        if self._read_more():
            self._text = self._text.removeprefix("\ufeff")
        while True:
            self._move_to((_BETWEEN_ITEMS if self._depth else _BETWEEN).match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at == len(self._text):
                if self._read_more():
                    continue
                break
            match self._text[self._at]:
                case "{":
                    found = self._parse_line() or self._parse_object()
                    if found is None:
                        continue
                    yield found
                    if found.fault is None:
                        continue
                case "[":
                    self._depth += 1
                    self._move_to(self._at + 1)
                    continue
                case "]" if self._depth:
                    self._depth -= 1
                    self._move_to(self._at + 1)
                    continue
                case _:
                    yield ParsedObject(self._line, fault="not a JSON object or array")
            self._skip_to_next_start()
        if self._read_error or self._depth:
            yield ParsedObject(self._line, fault=self._read_error or "the file ends inside an array")

    def _parse_line(self) -> ParsedObject | None:
        """Return the object in the rest of the line, or None if orjson would write the object differently.

        If orjson writes the same bytes, parsing lost nothing: no key is repeated, and no number is too large.
        `_parse_object` parses all other lines.
        """
        if self._depth:
            return None
        end = self._text.find("\n", self._at)
        if end < 0 and len(self._text) - self._at < CHUNK_BYTES and self._read_more():
            end = self._text.find("\n")
        if end < 0:
            return None
        try:
            line = self._text[self._at : end].encode()
            value = orjson.loads(line)
            if orjson.dumps(value) != line:
                return None
        except (ValueError, TypeError):
            return None
        found = ParsedObject(self._line, value, end - self._at)
        self._at = end
        return found

    def _parse_object(self) -> ParsedObject | None:
        """Return the object or fault at this position, or None if more text was read and the caller must try again."""
        try:
            value, end = _decode(self._text, self._at)
        except json.JSONDecodeError as error:
            may_continue = error.msg.startswith("Unterminated") or error.pos > len(self._text) - LONGEST_TOKEN
            if may_continue and self._read_more():
                return None
            if may_continue and (error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())):
                return ParsedObject(self._line, fault="not JSON: unexpected end of file")
            further = self._text.count("\n", self._at, error.pos)
            where = f"line {self._line + further}" if further else f"character {error.pos - self._at + 1}"
            return ParsedObject(self._line, fault=f"not JSON: {error.msg.removesuffix(' at')} ({where})")
        except _ConstantError as error:
            return ParsedObject(self._line, fault=f"not JSON: {error}")
        except RecursionError:
            return ParsedObject(self._line, fault="cannot parse JSON: nested too deeply")
        except ValueError:
            return ParsedObject(self._line, fault="cannot parse JSON: a number has too many digits")
        after = _REST_OF_LINE.match(self._text, end).end()  # type: ignore[union-attr]
        if after == len(self._text) and self._read_more():
            return None
        if not self._depth and after < len(self._text) and self._text[after] not in "\n{[":
            return ParsedObject(self._line, fault="not JSON: extra data after the object")
        found = ParsedObject(self._line, value, end - self._at)
        self._move_to(end)
        return found

    def _move_to(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = at

    def _skip_to_next_start(self) -> None:
        """Move to the next line that may start with an object."""
        while True:
            if match := _NEXT_START.search(self._text, self._at):
                self._move_to(match.end())
                return
            self._move_to(max(self._at, len(self._text) - 1))  # keep the last character: it may be a newline
            if not self._read_more():
                self._move_to(len(self._text))
                return

    def _read_more(self) -> bool:
        """Read more text, and return whether there was any.

        After each call, the current object is parsed again from its start. Each call therefore reads at least as much
        text as the object already has, so that a long object needs few calls.
        """
        while not self._ended:
            kept = self._text[self._at :]
            try:
                data = self._stream.read(max(CHUNK_BYTES, len(kept)))
            except (OSError, EOFError, zlib.error) as error:
                self._read_error, data = f"cannot read the rest of the file: {error}", b""
            self._ended = not data
            self._text, self._at = kept + self._to_text.decode(data, final=self._ended), 0
            if len(self._text) > len(kept):
                return True
        return False
