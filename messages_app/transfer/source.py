"""JSON values with their location in a file, unvalidated threads, and the faults that prevent their import."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

THREAD_OBJECT, MESSAGE_OBJECT, LIST_OBJECT = "thread", "thread.message", "list"

MAX_PRINTED_CHARACTERS = 60  # of a key or an id in a message; longer ones are shortened


class SourceLocation(NamedTuple):
    """The location of a value: the file, the first line of its outermost object, and the path from that object."""

    file: str
    line: int
    path: tuple[str | int, ...] = ()

    def at(self, *steps: str | int) -> "SourceLocation":
        return SourceLocation(self.file, self.line, (*self.path, *steps))

    @property
    def file_and_line(self) -> str:
        file = self.file if self.file.isprintable() else json.dumps(self.file)
        return f"{file}:{self.line}"

    def __str__(self) -> str:
        return " ".join(filter(None, [self.file_and_line, format_path(self.path)]))


class SourceValue(NamedTuple):
    """An unvalidated JSON value and its location."""

    location: SourceLocation
    value: Any


class UnvalidatedThread(NamedTuple):
    """A thread with its messages in order. `size` is the approximate number of characters of their JSON.

    `message_location` returns the location of the message at an index. `has_own_object` is False if the files contain
    messages of the thread but no thread object.
    """

    thread: SourceValue
    messages: Sequence[Any]
    message_location: Callable[[int], SourceLocation]
    size: int
    has_own_object: bool = True


class InvalidInput(Exception):
    """A part of a file cannot be imported. `faults` lists locations and messages, in order."""

    def __init__(self, faults: Iterable[tuple[SourceLocation, str]]) -> None:
        self.faults = list(faults)
        super().__init__(self.faults)


class SkippedValues:
    """Counts the values that the store does not support, by name, and keeps the first location of each name."""

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[int, SourceLocation]] = {}

    def add(self, name: str, location: SourceLocation, count: int = 1) -> None:
        before, first = self.by_name.get(name, (0, location))
        self.by_name[name] = before + count, first

    def merge(self, other: "SkippedValues") -> None:
        for name, (count, first) in other.by_name.items():
            self.add(name, first, count)


def nested_too_deeply(location: SourceLocation) -> InvalidInput:
    return InvalidInput([(location, "arrays and objects are nested too deeply")])


def object_type(value: Any) -> str | None:
    """Return the value of the key `object` if it is a string, or None."""
    name = value.get("object") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def format_path(path: Iterable[str | int]) -> str:
    """Return the steps of a path, joined with dots."""
    return ".".join(printable(step) if isinstance(step, str) else str(step) for step in path)


def printable(text: str) -> str:
    """Return a key or an id, shortened, as printable text in one line.

    If it is empty or not printable, return it as JSON.
    """
    short = text if len(text) <= MAX_PRINTED_CHARACTERS else f"{text[:MAX_PRINTED_CHARACTERS]}…"
    return short if short.isprintable() and short else json.dumps(short)
