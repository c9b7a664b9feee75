"""Converts database URLs to DATABASES entries. Each engine's url.py reads the options in its own URLs."""

from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from threadsvc.engines.mongodb.url import mongodb_entry
from threadsvc.engines.postgresql.url import postgresql_entry
from threadsvc.engines.sqlite.url import sqlite_entry

# The default of ?timeout=SECONDS: how long a writer waits for other writers (SQLite), or a statement may take
# (PostgreSQL).
TIMEOUT_SECONDS = 30


def database_from_url(name: str, url: str, threads: int) -> dict[str, Any]:
    """Return the DATABASES entry for a URL.

    The URL is `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://...` or, only for threads and messages,
    `mongodb://...`. `threads` is the number of requests that a process handles at a time. Each of them may need a
    connection.

    Raises ImproperlyConfigured for an invalid URL. The message contains `name`, the setting with the URL. It never
    contains the URL itself, which may include a password.
    """
    scheme = url.partition("://")[0]
    if scheme in ("mongodb", "mongodb+srv"):
        if name == "DATABASE_URL":
            raise ImproperlyConfigured(
                "DATABASE_URL: Django's own tables need SQL; THREADS_DATABASE_URL, of the threads, may be mongodb://"
            )
        return mongodb_entry(name, url)
    if scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured(
            f"{name}: {scheme!r} is not a database scheme; use sqlite:///, postgresql:// or mongodb://"
        )
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url, conn_max_age=None))
    except (ValueError, KeyError, dj_database_url.ParseError) as error:
        raise ImproperlyConfigured(f"{name}: not a database URL that can be read") from error
    if not parsed["NAME"]:
        raise ImproperlyConfigured(f"{name}: the URL names no database")
    options = parsed.pop("OPTIONS", {})
    seconds = _number(options.pop("timeout", TIMEOUT_SECONDS))
    if scheme == "sqlite":
        return sqlite_entry(name, parsed, options, seconds)
    return postgresql_entry(name, parsed, options, seconds, threads)


def _number(value: Any) -> float:
    """Return the option's value as a number, or -1 if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1
