"""Database URLs -> Django DATABASES entries, and the router that keeps threads and messages on their own database."""

import os
from typing import Any

import dj_database_url
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError
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

# How long a statement may take on PostgreSQL, waits for locks included. What takes longer is undone and answers 503.
POSTGRESQL_STATEMENT_SECONDS = 30

# How long a PostgreSQL server may leave us without any sign of life before it counts as away.
POSTGRESQL_SILENT_SECONDS = 2

# How long a request may wait for a connection: so short that two, one after the other, have their 503 in two seconds.
POSTGRESQL_POOL_SECONDS = 0.9

POSTGRESQL_OPTIONS = {
    "application_name": "threadsvc",
    "connect_timeout": POSTGRESQL_SILENT_SECONDS,
    # Of a machine that is gone TCP itself would say so after a quarter of an hour.
    "tcp_user_timeout": POSTGRESQL_SILENT_SECONDS * 1000,
    "keepalives_idle": 30,
    "keepalives_interval": POSTGRESQL_SILENT_SECONDS,
}

# Purging is done by a thread of its own, besides those of requests.
PURGERS = 1

# What the URL has another place for, and what Django sets.
NOT_OPTIONS = {"dbname", "user", "password", "port", "client_encoding", "replication"}


class RowTooLarge(DataError):
    """A row is larger than its engine takes (16 MB in MongoDB). Becomes 413."""


def database_from_url(name: str, url: str, threads: int) -> dict[str, Any]:
    """The DATABASES entry for a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://...` or, for
    threads and messages, `mongodb://...`.

    `threads` is how many requests a process works on at a time, each of which may need a connection.

    `name` is the setting that the URL came from, for the message of the ImproperlyConfigured that a bad one raises.
    The URL itself is never part of a message: it may hold a password.
    """
    scheme = url.partition("://")[0]
    if scheme in ("mongodb", "mongodb+srv") and name == "DATABASE_URL":
        raise ImproperlyConfigured(
            "DATABASE_URL: Django's own tables need SQL; THREADS_DATABASE_URL, of the threads, may be mongodb://"
        )
    if scheme in ("mongodb", "mongodb+srv"):
        from threadsvc.mongo.url import mongodb_entry  # the driver is there for those who need it

        return mongodb_entry(name, url)
    if scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured(
            f"{name}: {scheme!r} is not a database scheme; use sqlite:///, postgresql:// or mongodb://"
        )
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
    else:
        entry["CONN_MAX_AGE"] = 0  # after each request a connection goes back to the pool
        entry["ENGINE"] = "threadsvc.postgresql"
        entry["OPTIONS"] = _postgresql_options(name, entry.get("OPTIONS", {}), connections=threads + PURGERS)
    return entry


def _postgresql_options(name: str, given: dict[str, Any], connections: int) -> dict[str, Any]:
    """libpq's options: those of the URL, and ours where it has none."""
    try:
        import psycopg

        from threadsvc.postgresql.pool import pool_options
    except ImportError as error:
        raise ImproperlyConfigured(f"{name}: PostgreSQL needs psycopg[binary,pool] (requirements.txt)") from error
    seconds = _number(given.get("timeout", POSTGRESQL_STATEMENT_SECONDS))
    if not 0 < seconds <= MAX_BUSY_SECONDS:
        raise ImproperlyConfigured(
            f"{name}: ?timeout=SECONDS of postgresql:// takes more than 0 and up to {MAX_BUSY_SECONDS}"
        )
    options = {option: value for option, value in given.items() if option != "timeout"}
    known = {keyword.keyword.decode() for keyword in psycopg.pq.Conninfo.get_defaults()} - NOT_OPTIONS
    for option, value in options.items():
        if option not in known or isinstance(value, list):
            raise ImproperlyConfigured(
                f"{name}: {option!r} is no option of postgresql://, or given twice; there are timeout and libpq's own"
            )
    # A transaction that is not ended keeps its locks; nothing of ours thinks for that long in one.
    limits = f"-c statement_timeout={seconds * 1000:.0f} -c idle_in_transaction_session_timeout={seconds * 2000:.0f}"
    return {
        **POSTGRESQL_OPTIONS,
        **options,
        "options": f"{limits} {options.get('options', '')}".strip(),  # of two that are the same the later counts
        "pool": pool_options(connections, POSTGRESQL_POOL_SECONDS),
    }


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
