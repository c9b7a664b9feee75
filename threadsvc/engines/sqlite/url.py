"""Converts a sqlite:/// URL to a DATABASES entry."""

import os
from typing import Any

from django.core.exceptions import ImproperlyConfigured

MAX_BUSY_SECONDS = 3600

SQLITE_OPTIONS = {
    # A transaction that reads before it writes can fail immediately with "database is locked", regardless of the busy
    # time-out. BEGIN IMMEDIATE takes the write lock first and waits for it.
    "transaction_mode": "IMMEDIATE",
    # WAL does not block readers during a write. synchronous=FULL syncs the log at each commit, so that acknowledged
    # writes survive a power cut. foreign_keys is repeated here because the data depends on it, although Django turns it
    # on too.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
}


def sqlite_entry(setting: str, parsed: dict[str, Any], given: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the entry for the output of `dj_database_url` and the options of the URL.

    `seconds` is the busy time-out: how long a writer waits for other writers. A write takes about a millisecond, so
    only a stuck process causes a long wait. Raises ImproperlyConfigured.
    """
    name = parsed["NAME"]
    if name == ":memory:":
        raise ImproperlyConfigured(f"{setting}: an in-memory database is lost with its process; name a file")
    if "\0" in name:
        raise ImproperlyConfigured(f"{setting}: no file can have that name")
    if given or not 0 <= seconds <= MAX_BUSY_SECONDS:
        raise ImproperlyConfigured(
            f"{setting}: the one option of sqlite:/// is ?timeout=SECONDS, from 0 to {MAX_BUSY_SECONDS}"
        )
    return {
        **parsed,
        "ENGINE": "threadsvc.engines.sqlite",
        "NAME": os.path.realpath(name),  # two paths to the same file must share one write queue
        "OPTIONS": {"timeout": seconds, **SQLITE_OPTIONS},
    }
