"""Database URLs -> Django DATABASES entries, and the router that keeps threads and messages on their own database."""

import os
from typing import Any

import dj_database_url
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

# Busy time-out in seconds: how long a SQLite writer waits for the one before it. A write takes about a millisecond, so
# only a stuck process can make anybody wait this long.
SQLITE_BUSY_SECONDS = 30
MAX_BUSY_SECONDS = 3600

SQLITE_OPTIONS = {
    "timeout": SQLITE_BUSY_SECONDS,
    # A transaction that begins as a reader and then writes can fail at once with "database is locked", whatever the
    # busy time-out. Taking the write lock at BEGIN queues writers instead.
    "transaction_mode": "IMMEDIATE",
    # WAL lets readers go on while one writes; synchronous=FULL syncs the log at each commit, so that what was answered
    # survives a power cut. Django itself turns foreign_keys on; it is repeated here because the data depends on it.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
}


def database_from_url(name: str, url: str) -> dict[str, Any]:
    """The DATABASES entry for a URL: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://...`.

    `name` is the setting that the URL came from, for the message of the ImproperlyConfigured that a bad one raises.
    The URL itself is never part of a message: it may hold a password.
    """
    scheme = url.partition("://")[0]
    if scheme in ("mongodb", "mongodb+srv"):
        raise ImproperlyConfigured(
            f"{name}: MongoDB is not supported by this version (see README, Databases); use sqlite:/// or postgresql://"
        )
    if scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured(f"{name}: {scheme!r} is not a database scheme; use sqlite:/// or postgresql://")
    try:
        entry: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=None))
    except (ValueError, KeyError, dj_database_url.ParseError) as error:
        raise ImproperlyConfigured(f"{name}: not a database URL that can be read") from error
    if not entry["NAME"]:
        raise ImproperlyConfigured(f"{name}: the URL names no database")
    if scheme == "sqlite":
        if entry["NAME"] == ":memory:":
            raise ImproperlyConfigured(f"{name}: an in-memory database is lost with its process; name a file")
        if "\0" in entry["NAME"]:
            raise ImproperlyConfigured(f"{name}: no file can have that name")
        options = {name: _number(value) for name, value in entry.get("OPTIONS", {}).items()}
        if not options.keys() <= {"timeout"} or not 0 <= options.get("timeout", 0) <= MAX_BUSY_SECONDS:
            raise ImproperlyConfigured(
                f"{name}: the one option of sqlite:/// is ?timeout=SECONDS, from 0 to {MAX_BUSY_SECONDS}"
            )
        entry["NAME"] = os.path.realpath(entry["NAME"])  # one file, one name
        entry["ENGINE"] = "threadsvc.sqlite"
        entry["OPTIONS"] = {**SQLITE_OPTIONS, **options}
    return entry


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1


class ThreadsRouter:
    """Sends messages_app to the `threads` database where there is one; everything else to `default`."""

    def database_of(self, app_label: str) -> str:
        return "threads" if app_label == "messages_app" and "threads" in settings.DATABASES else "default"

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return self.database_of(model._meta.app_label)

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == self.database_of(app_label)
