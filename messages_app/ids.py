"""Public ids, which sort by creation time, and MongoDB ObjectIds."""

import os
import re
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Lock
from typing import Any, NamedTuple, Self

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The limits of Python's datetime in Unix seconds: the start of 0001-01-01 and the end of 9999-12-31.
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799

OBJECT_ID = re.compile("[0-9a-f]{24}")

# ULID's alphabet for base 32 (Crockford's, in lower case). Its digits are in the order of their code points, so ids as
# text sort like the numbers that they encode.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]  # each pair of digits encodes ten bits

_MILLISECOND = timedelta(milliseconds=1)


def new_id(prefix: str, at: datetime, random_bytes: bytes) -> str:
    """Return `<prefix>_` followed by a ULID (https://github.com/ulid/spec).

    A ULID has 26 digits. They encode 48 bits of Unix milliseconds and 80 random bits.
    """
    return id_at(prefix, (at - EPOCH) // _MILLISECOND, random_bytes)


def id_at(prefix: str, milliseconds: int, random_bytes: bytes) -> str:
    """Return an id in the form of `new_id`, for a time in Unix milliseconds."""
    number, pairs = milliseconds << 80 | int.from_bytes(random_bytes, "big"), _PAIRS
    return (
        f"{prefix}_{pairs[number >> 120]}{pairs[number >> 110 & 1023]}{pairs[number >> 100 & 1023]}"
        f"{pairs[number >> 90 & 1023]}{pairs[number >> 80 & 1023]}{pairs[number >> 70 & 1023]}"
        f"{pairs[number >> 60 & 1023]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


class SystemBytes:
    """Random bytes from the operating system, read in blocks.

    Reading blocks needs fewer calls of os.urandom, each of which releases the GIL to other threads.
    """

    AT_ONCE = 4096

    def __init__(self) -> None:
        self.start_anew()
        # A child process must not use the same random bytes as its parent.
        os.register_at_fork(after_in_child=self.start_anew)

    def start_anew(self) -> None:
        self._lock = Lock()
        self._bytes, self._at = b"", 0

    def take(self, number: int) -> bytes:
        with self._lock:
            if self._at + number > len(self._bytes):
                self._bytes, self._at = os.urandom(self.AT_ONCE), 0
            taken = self._bytes[self._at : self._at + number]
            self._at += number
        return taken


system_bytes = SystemBytes()


def new_object_id(at: datetime, random_bytes: bytes) -> str:
    """Return a MongoDB ObjectId as 24 hex digits: 4 bytes of Unix seconds, then 8 random bytes.

    Source: https://www.mongodb.com/docs/manual/reference/bson-types/#objectid. MongoDB uses some of these 8 bytes for
    the machine and a counter. Here all of them are random, so processes need no coordination.
    """
    return object_id_at(int(at.timestamp()), random_bytes)


def object_id_at(seconds: int, random_bytes: bytes) -> str:
    """Return an ObjectId in the form of `new_object_id`, for a time in Unix seconds."""
    return (seconds.to_bytes(4, "big") + random_bytes).hex()


class Origin(NamedTuple):
    """A time and a seed that determine all ids of one create. A create with the same Origin makes the same rows."""

    at: datetime  # in whole milliseconds, which every engine can store
    seed: str

    @classmethod
    def new(cls, now: datetime) -> Self:
        return cls(now.replace(microsecond=now.microsecond // 1000 * 1000), os.urandom(16).hex())

    def random(self) -> Random:
        return Random(self.seed)  # noqa: S311  # secure, because the seed has 128 random bits

    def first_id(self, prefix: str) -> str:
        """Return the id of the first row that this create makes."""
        first: str = identity(prefix, self.at, self.random())["id"]
        return first


def identity(prefix: str, at: datetime | None = None, random: Random | None = None) -> dict[str, Any]:
    """Return the columns `id`, `object_id` and `created_at` of a new row, created now or at `at`."""
    at = at or datetime.now(UTC)
    take = random.randbytes if random else system_bytes.take
    return {
        "id": new_id(prefix, at, take(10)),
        "object_id": new_object_id(at, take(8)),
        "created_at": at.replace(microsecond=0),
    }
