"""Public ids, which sort by the time they were made, and object ids in MongoDB's form."""

import os
import re
from datetime import UTC, datetime, timedelta
from threading import Lock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Unix seconds of 0001-01-01 and of the end of 9999-12-31: no datetime is beyond.
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799

OBJECT_ID = re.compile("[0-9a-f]{24}")

# Base 32 in the alphabet of ULID (Crockford's, lower case): its digits are in the order of their code points, so that
# ids sort as text as the numbers in them do.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]  # ten bits at a time

_MILLISECOND = timedelta(milliseconds=1)


def new_id(prefix: str, at: datetime, random_bytes: bytes) -> str:
    """`<prefix>_` and a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, 26 digits."""
    return id_at(prefix, (at - EPOCH) // _MILLISECOND, random_bytes)


def id_at(prefix: str, milliseconds: int, random_bytes: bytes) -> str:
    """The same, of a moment in Unix milliseconds."""
    number, pairs = milliseconds << 80 | int.from_bytes(random_bytes, "big"), _PAIRS
    return (
        f"{prefix}_{pairs[number >> 120]}{pairs[number >> 110 & 1023]}{pairs[number >> 100 & 1023]}"
        f"{pairs[number >> 90 & 1023]}{pairs[number >> 80 & 1023]}{pairs[number >> 70 & 1023]}"
        f"{pairs[number >> 60 & 1023]}{pairs[number >> 50 & 1023]}{pairs[number >> 40 & 1023]}"
        f"{pairs[number >> 30 & 1023]}{pairs[number >> 20 & 1023]}{pairs[number >> 10 & 1023]}{pairs[number & 1023]}"
    )


class SystemBytes:
    """Random bytes of the system's, which is asked for many at once: a thread that asks it lets others go first."""

    AT_ONCE = 4096

    def __init__(self) -> None:
        self.start_anew()
        # A child must not make the ids that its parent makes, or another child.
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
    """A MongoDB ObjectId as 24 hex digits: 4 bytes of Unix seconds, 8 random bytes.

    Source: https://www.mongodb.com/docs/manual/reference/bson-types/#objectid; what stands there for machine and
    counter is random here, so that processes need to agree on nothing.
    """
    return object_id_at(int(at.timestamp()), random_bytes)


def object_id_at(seconds: int, random_bytes: bytes) -> str:
    """The same, of a moment in Unix seconds."""
    return (seconds.to_bytes(4, "big") + random_bytes).hex()
