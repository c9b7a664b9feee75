"""Converts pymongo's exceptions to the DB-API's, which Django converts to its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from djongo import database
from pymongo import errors

from threadsvc.engines.base import DiskFull, RowTooLarge

DUPLICATE_KEY = 11000
IMMUTABLE_FIELD = 66
# Codes of temporary failures: no primary, shutdown, interruption, time-out, refused authentication.
UNAVAILABLE = {6, 7, 13, 18, 24, 43, 50, 64, 89, 91, 112, 133, 134, 175, 189, 262, 365}
UNAVAILABLE |= {9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
DISK_FULL_CODE = 14031
TOO_LARGE = {10334, 17419, 17420}  # a document is too large, before or after an update


def database_error(error: Exception) -> Exception:
    """Return the DB-API exception for an exception of pymongo."""
    kind: type[Exception] = database.DatabaseError
    match error:
        case errors.DuplicateKeyError():
            kind = database.IntegrityError
        case errors.BulkWriteError():
            codes = {write["code"] for write in error.details.get("writeErrors", ())}
            if DISK_FULL_CODE in codes:
                return DiskFull(str(error))
            if DUPLICATE_KEY in codes:
                kind = database.IntegrityError
            # Without codes, the server applied the writes but could not confirm the requested write concern.
            elif not codes or codes & UNAVAILABLE:
                kind = database.OperationalError
        case (
            errors.ConnectionFailure()
            | errors.ExecutionTimeout()
            | errors.WriteConcernError()
            | errors.InvalidOperation()
            | errors.ConfigurationError()
        ):
            kind = database.OperationalError
        case errors.DocumentTooLarge():
            return RowTooLarge(str(error))
        case errors.OperationFailure():
            if error.code in TOO_LARGE:
                return RowTooLarge(str(error))
            if error.code == DISK_FULL_CODE:
                return DiskFull(str(error))
            if error.code in UNAVAILABLE:
                kind = database.OperationalError
            elif error.code == IMMUTABLE_FIELD:  # the statement changes an `_id`, which MongoDB forbids
                kind = database.NotSupportedError
        case BSONError() | OverflowError() | UnicodeError():
            kind = database.DataError
    # pymongo's message about an unreachable server starts with the reason. The rest describes the state of the client.
    reason = str(error)
    for rest in (" (configured timeouts", ", Timeout:", ", full error:"):
        reason = reason.partition(rest)[0]
    return kind(reason)


@contextmanager
def database_errors() -> Iterator[None]:
    try:
        yield
    except (errors.PyMongoError, BSONError, OverflowError, UnicodeError) as error:
        raise database_error(error) from error
