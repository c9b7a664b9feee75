"""Files, standard input, gzip: the JSON objects in them, one after the other, each with the line that it starts in.

JSON Lines, documents written over several lines, one array of all objects and several of them in a row are read alike:
what stands between objects tells them apart. No more is in memory than one object and a piece of the file.
"""

import codecs
import gzip
import json
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from typing import Any, NamedTuple, Protocol, Self

import orjson

# Bytes read at once. Memory fragments where pieces are much larger.
PIECE = 64 * 1024
GZIP = b"\x1f\x8b"
STANDARD_INPUT = "-"

# An error of JSON so near to the end of what was read may be but a value that goes on: `-Infinity`, `\ud83d\ude00`.
LONGEST_TOKEN = 16

_BETWEEN = re.compile(r"[ \t\r\n]*")
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")
_REST_OF_LINE = re.compile(r"[ \t\r]*")
_NEXT_START = re.compile(r"\n(?=[{\[])")


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Found(NamedTuple):
    """An object, or why there is none in this place. `size` is the number of its characters."""

    line: int
    value: Any = None
    size: int = 0
    fault: str | None = None


class _NotJSONError(ValueError):
    pass


def _refuse(literal: str) -> Any:
    raise _NotJSONError(f"{literal} is no value of JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).raw_decode


class Source:
    """A file, or standard input for `-`; what is in gzip, by its name or its first bytes, is unpacked.

    `size` is the number of bytes of the file, None where that cannot be known. Raises OSError.
    """

    def __init__(self, name: str) -> None:
        self.name = "stdin" if name == STANDARD_INPUT else name
        is_stdin = name == STANDARD_INPUT
        self._file = open(0 if is_stdin else name, "rb", closefd=not is_stdin)  # noqa: SIM115  # until __exit__
        status = os.fstat(self._file.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        packed = name.endswith(".gz") or self._file.peek(len(GZIP))[: len(GZIP)] == GZIP
        self.content: Readable = gzip.GzipFile(fileobj=self._file) if packed else self._file

    @property
    def read(self) -> int:
        """How many bytes of the file were read."""
        return self._file.tell() if self.size is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Objects:
    """The JSON objects of a stream of bytes, and the faults of what is none; iterates over Found.

    After a fault it goes on at the next line that starts with an object or an array.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        # Bytes that are not UTF-8 become lone surrogates, which no text may have: a fault of the text that they are in.
        self._to_text = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._line = "", 0, 1
        self._depth = 0  # in how many arrays
        self._ended = False
        self._broken: str | None = None

    def __iter__(self) -> Iterator[Found]:
        if self._read_more():
            self._text = self._text.removeprefix("\ufeff")
        while True:
            self._go_to((_BETWEEN_ITEMS if self._depth else _BETWEEN).match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at == len(self._text):
                if self._read_more():
                    continue
                break
            match self._text[self._at]:
                case "{":
                    found = self._plain_line() or self._object()
                    if found is None:
                        continue
                    yield found
                    if found.fault is None:
                        continue
                case "[":
                    self._depth += 1
                    self._go_to(self._at + 1)
                    continue
                case "]" if self._depth:
                    self._depth -= 1
                    self._go_to(self._at + 1)
                    continue
                case _:
                    yield Found(self._line, fault="neither an object of JSON nor a list of them")
            self._skip()
        if self._broken or self._depth:
            yield Found(self._line, fault=self._broken or "breaks off within a list")

    def _plain_line(self) -> Found | None:
        """The object that is the line which begins here, where orjson writes it as it stands; None where it does not.

        Then nothing was lost in reading: no key is there twice, no number is too large. Others are for `_object`.
        """
        if self._depth:
            return None
        end = self._text.find("\n", self._at)
        if end < 0 and len(self._text) - self._at < PIECE and self._read_more():
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
        found = Found(self._line, value, end - self._at)
        self._at = end
        return found

    def _object(self) -> Found | None:
        """What begins here; None where more was read, to try it again."""
        try:
            value, end = _decode(self._text, self._at)
        except json.JSONDecodeError as error:
            goes_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - LONGEST_TOKEN
            if goes_on and self._read_more():
                return None
            if goes_on and (error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())):
                return Found(self._line, fault="not JSON: it breaks off")
            further = self._text.count("\n", self._at, error.pos)
            where = f"line {self._line + further}" if further else f"character {error.pos - self._at + 1}"
            return Found(self._line, fault=f"not JSON: {error.msg.removesuffix(' at')} ({where})")
        except _NotJSONError as error:
            return Found(self._line, fault=f"not JSON: {error}")
        except RecursionError:
            return Found(self._line, fault="not JSON that can be read: nested too deep")
        except ValueError:
            return Found(self._line, fault="not JSON that can be read: a number of too many digits")
        behind = _REST_OF_LINE.match(self._text, end).end()  # type: ignore[union-attr]
        if behind == len(self._text) and self._read_more():
            return None
        if not self._depth and behind < len(self._text) and self._text[behind] not in "\n{[":
            return Found(self._line, fault="not JSON: more follows behind the object")
        found = Found(self._line, value, end - self._at)
        self._go_to(end)
        return found

    def _go_to(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = at

    def _skip(self) -> None:
        """Goes to the next line that may begin with an object."""
        while True:
            if match := _NEXT_START.search(self._text, self._at):
                self._go_to(match.end())
                return
            self._go_to(max(self._at, len(self._text) - 1))  # a newline may be the last that was read
            if not self._read_more():
                self._go_to(len(self._text))
                return

    def _read_more(self) -> bool:
        """Reads about as much again as there is of the object at hand, so that long ones are not tried too often."""
        while not self._ended:
            kept = self._text[self._at :]
            try:
                data = self._stream.read(max(PIECE, len(kept)))
            except (OSError, EOFError, zlib.error) as error:
                self._broken, data = f"cannot be read any further: {error}", b""
            self._ended = not data
            self._text, self._at = kept + self._to_text.decode(data, final=self._ended), 0
            if len(self._text) > len(kept):
                return True
        return False


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


@contextmanager
def written(name: str) -> Iterator[Writable]:
    """Where the bytes of a new file go, which gets its name, in place of what had it, when all of it is there; packed
    where the name ends in .gz. It is for its owner alone. `-` is standard output. Raises OSError."""
    if name == STANDARD_INPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(name)
    is_special = os.path.exists(path) and not os.path.isfile(path)  # a pipe or a device is not replaced
    with open(path, "wb") if is_special else _draft_of(path) as file:
        if name.endswith(".gz"):
            # No name and no time in it: the same threads are the same bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed
        else:
            yield file


@contextmanager
def _draft_of(path: str) -> Iterator[BufferedWriter]:
    directory, name = os.path.split(path)
    descriptor, draft = tempfile.mkstemp(dir=directory, prefix=f".{name[:100]}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
