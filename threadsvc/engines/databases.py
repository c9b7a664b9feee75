"""Database URLs -> Django DATABASES entries, and the router that keeps threads and messages on their own database.

What a URL may say, and what becomes of it, is each engine's: threadsvc/{sqlite,postgresql,mongo}/url.py.
"""

from collections.abc import Sequence
from typing import Any

import dj_database_url
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, OperationalError
from django.db.models import Model
from django.db.utils import DatabaseErrorWrapper

from threadsvc.engines.mongodb.url import mongodb_entry
from threadsvc.engines.postgresql.url import postgresql_entry
from threadsvc.engines.sqlite.url import sqlite_entry

# ?timeout=SECONDS: how long a writer waits for its turn (SQLite), or a statement may take (PostgreSQL).
TIMEOUT_SECONDS = 30


class RowTooLarge(DataError):
    """A row is larger than its engine takes (16 MB in MongoDB). Becomes 413."""


class DiskFull(OperationalError):
    """A database has no room for what is to be written, and has written nothing of it. Becomes 507."""


class DatabaseErrors(DatabaseErrorWrapper):
    """Makes Django's exceptions of a driver's; a full disk, which the engine's wrapper knows, has one of its own."""

    wrapper: Any

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is not None and self.wrapper.is_disk_full(error):
            self.wrapper.errors_occurred = True
            raise DiskFull(*error.args).with_traceback(traceback) from error
        super().__exit__(kind, error, traceback)


class Direct:
    """For an engine's DatabaseWrapper that has a shorter way to the rows of a statement than a cursor of Django's."""

    def fetch_all(self: Any, sql: str, params: Sequence[Any]) -> list[Any]:
        """What a cursor of Django's fetches; without one, where nobody listens to it."""
        if self.execute_wrappers or self.force_debug_cursor:
            with self.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall())
        self.ensure_connection()
        self.validate_no_broken_transaction()
        with self.wrap_database_errors:
            return list(self.fetch_directly(sql, params))


class Unlogged:
    """For an engine's DatabaseWrapper: statements are logged for tests that ask for it alone.

    Django asks its settings as well, for each statement; what it would log with DEBUG on nobody sees, nor empties.
    """

    force_debug_cursor: bool

    @property
    def queries_logged(self) -> bool:
        return self.force_debug_cursor


def reason_of(error: Exception) -> str:
    """Why a database refused, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def database_from_url(name: str, url: str, threads: int) -> dict[str, Any]:
    """The DATABASES entry for a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://...` or, for
    threads and messages, `mongodb://...`.

    `threads` is how many requests a process works on at a time, each of which may need a connection.

    `name` is the setting that the URL came from, for the message of the ImproperlyConfigured that a bad one raises.
    The URL itself is never part of a message: it may hold a password.
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
    """What a text of a URL says; -1 where that is no number."""
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
