"""The formats that an import reads.

- The JSON Lines of an export.
- Objects and lists of OpenAI's API, which are the same in Assistants v1 and v2.
- Documents of Rubra's collections, as `mongoexport` writes them. Their values may be MongoDB Extended JSON v2
  (https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/).
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from messages_app.transfer.files import InputFile
from messages_app.transfer.reader import ObjectReader
from messages_app.transfer.source import (
    LIST_OBJECT,
    MESSAGE_OBJECT,
    THREAD_OBJECT,
    InvalidInput,
    SkippedValues,
    SourceLocation,
    SourceValue,
    UnvalidatedThread,
    nested_too_deeply,
    object_type,
    printable,
)
from messages_app.transfer.staging import StagingDatabase

_INTEGER = re.compile("-?[0-9]{1,19}")


def read_threads(
    file: InputFile, staging: StagingDatabase, skipped: SkippedValues
) -> Iterator[UnvalidatedThread | InvalidInput]:
    """Yield the threads of a file that contain their messages, and an InvalidInput for each invalid part.

    Adds separate threads and messages to `staging`, and counts objects of other types in `skipped`.
    """
    for parsed in ObjectReader(file.content):
        start = SourceLocation(file.name, parsed.line)
        if parsed.fault:
            yield InvalidInput([(start, parsed.fault)])
            continue
        for source, is_listed in _expand_list(SourceValue(start, parsed.value)):
            location, value = source
            match object_type(value):
                case "thread" if "messages" in value:
                    yield _whole_thread(source, parsed.size)
                case "thread" | "thread.message":
                    try:
                        if isinstance(value.get("_id"), dict):
                            source = SourceValue(location, decode_extended_json(value))
                        staging.add(source, is_listed)
                    except InvalidInput as invalid:
                        yield invalid
                    except RecursionError:
                        yield nested_too_deeply(location)
                case str(other):
                    skipped.add(f"object of type {printable(other)}", location)
                case None:
                    expected = f"`object` must be {THREAD_OBJECT} or {MESSAGE_OBJECT}"
                    yield InvalidInput([(location, f"not a thread or a message: {expected}")])


def _whole_thread(source: SourceValue, size: int) -> UnvalidatedThread | InvalidInput:
    location, value = source
    messages = value["messages"]
    if not isinstance(messages, list):
        return InvalidInput([(location.at("messages"), "value is not a valid list")])
    return UnvalidatedThread(source, messages, partial(location.at, "messages"), size)


def _expand_list(source: SourceValue) -> Iterator[tuple[SourceValue, bool]]:
    """Yield (item, True) for each item of an API list, or (source, False) for any other object."""
    location, value = source
    if object_type(value) == LIST_OBJECT and isinstance(value.get("data"), list):
        for i, item in enumerate(value["data"]):
            yield SourceValue(location.at("data", i), item), True
    else:
        yield source, False


def decode_extended_json(value: Any) -> Any:
    """Convert Extended JSON: ids to strings, numbers to integers, and dates to Unix seconds.

    Values that only resemble Extended JSON stay unchanged, and validation reports them.
    """
    match value:
        case list():
            return [decode_extended_json(item) for item in value]
        case {"$oid": str(digits)} if len(value) == 1:
            return digits
        case {"$numberInt": str(digits)} | {"$numberLong": str(digits)} if len(value) == 1 and _INTEGER.fullmatch(
            digits
        ):
            return int(digits)
        case {"$date": {"$numberLong": str(digits)}} if len(value) == 1 and _INTEGER.fullmatch(digits):
            return int(digits) // 1000
        case {"$date": str(text)} if len(value) == 1:
            with suppress(ValueError):
                at = datetime.fromisoformat(text)
                return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 1)
            return value
        case dict():
            return {key: decode_extended_json(item) for key, item in value.items()}
    return value
