"""A sqlite:/// URL -> a Django DATABASES entry."""

import os
from typing import Any

from django.core.exceptions import ImproperlyConfigured

# Busy time-out in seconds: how long a SQLite writer waits for the one before it. A write takes about a millisecond, so
# only a stuck process can make anybody wait this long.
BUSY_SECONDS = 30
MAX_BUSY_SECONDS = 3600

OPTIONS = {
    "timeout": BUSY_SECONDS,
    # A transaction that begins as a reader and then writes can fail at once with "database is locked", whatever the
    # busy time-out. Taking the write lock at BEGIN queues writers instead.
    "transaction_mode": "IMMEDIATE",
    # WAL lets readers go on while one writes; synchronous=FULL syncs the log at each commit, so that what was answered
    # survives a power cut. Django itself turns foreign_keys on; it is repeated here because the data depends on it.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
}


def sqlite_entry(setting: str, parsed: dict[str, Any]) -> dict[str, Any]:
    """The entry for what `dj_database_url` has read. Raises ImproperlyConfigured."""
    name = parsed["NAME"]
    if name == ":memory:":
        raise ImproperlyConfigured(f"{setting}: an in-memory database is lost with its process; name a file")
    if "\0" in name:
        raise ImproperlyConfigured(f"{setting}: no file can have that name")
    given = parsed.get("OPTIONS", {})
    seconds = seconds_of(given.get("timeout", BUSY_SECONDS))
    if not given.keys() <= {"timeout"} or not 0 <= seconds <= MAX_BUSY_SECONDS:
        raise ImproperlyConfigured(
            f"{setting}: the one option of sqlite:/// is ?timeout=SECONDS, from 0 to {MAX_BUSY_SECONDS}"
        )
    return {
        **parsed,
        "ENGINE": "threadsvc.sqlite",
        "NAME": os.path.realpath(name),  # one file, one name
        "OPTIONS": {**OPTIONS, "timeout": seconds},
    }


def seconds_of(value: Any) -> float:
    """The number that a text in a URL says; -1 where it says none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1
