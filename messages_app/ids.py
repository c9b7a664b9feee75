"""Public ids, which sort by the time they were made, and object ids in MongoDB's form."""

import base64
import re
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Unix seconds of 0001-01-01 and of the end of 9999-12-31: no datetime is beyond.
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799

OBJECT_ID = re.compile("[0-9a-f]{24}")

# Base 32 in the alphabet of ULID (Crockford's, lower case): its digits are in the order of their code points, so that
# ids sort as text as the numbers in them do.
_TO_ULID_DIGITS = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789abcdefghjkmnpqrstvwxyz")
_ULID_DIGITS = 26


def new_id(prefix: str, at: datetime, random_bytes: bytes) -> str:
    """`<prefix>_` and a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, 26 digits."""
    milliseconds = (at - EPOCH) // timedelta(milliseconds=1)
    number = int.from_bytes(milliseconds.to_bytes(6, "big") + random_bytes, "big")
    # 26 digits of 5 bits are 130: ULID puts the 2 that are too many in front, and so do 17 bytes (2 + 128 + 6 bits).
    digits = base64.b32hexencode((number << 6).to_bytes(17, "big"))[:_ULID_DIGITS]
    return f"{prefix}_{digits.translate(_TO_ULID_DIGITS).decode()}"


def new_object_id(at: datetime, random_bytes: bytes) -> str:
    """A MongoDB ObjectId as 24 hex digits: 4 bytes of Unix seconds, 8 random bytes.

    Source: https://www.mongodb.com/docs/manual/reference/bson-types/#objectid; what stands there for machine and
    counter is random here, so that processes need to agree on nothing.
    """
    return (int(at.timestamp()).to_bytes(4, "big") + random_bytes).hex()
