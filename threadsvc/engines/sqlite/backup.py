"""Copying an SQLite database while others write to it, and putting a copy back: each in one transaction.

SQLite's own online backup does both (https://www.sqlite.org/backup.html). A process that dies amid either leaves the
database as it was.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from threadsvc.engines.sqlite.base import write_queue

# What SQLite and this engine keep beside a database, by the name of the database and one of these.
BESIDE = ("", "-wal", "-shm", "-journal", ".turn")

PAGES_AT_ONCE = 2000

# How long to wait for readers of the old content before the log is left to be emptied by whoever writes next.
SECONDS_FOR_READERS = 2

# Told bytes done and bytes in all.
Report = Callable[[int, int], None]


class Unusable(Exception):
    """Why a file cannot serve, in words that follow its name."""


@contextmanager
def opened(path: Path, mode: str = "rw", seconds: float = 30) -> Iterator[sqlite3.Connection]:
    """A connection that makes no file where `mode` is not "rwc", and begins no transaction by itself."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as database:
        yield database


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """The path of an empty file on the same file system, its owner's alone; it goes, with what SQLite puts beside."""
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        draft = Path(directory) / "draft"
        draft.touch(mode=0o600)
        yield draft


def copy(database: Path, target: Path, report: Report, check: bool = True) -> None:
    """Makes `target` hold what is committed in a database now, whole or not at all, while others write.

    `target` is one file that needs none beside it, mode 0600; where `check`, SQLite has found no fault in it. Raises
    Unusable where it has, and sqlite3.Error and OSError.
    """
    with draft_beside(target) as draft:
        with opened(database) as source, opened(draft) as written:
            # One snapshot over all steps: otherwise the copy begins anew whenever somebody writes.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            _transfer(source, written, report)
            written.execute("PRAGMA journal_mode = DELETE")  # what is in the log is in the copy
        if check and (fault := fault_of(draft)):
            raise Unusable(f"is damaged: {fault}")
        _sync(draft)
        draft.replace(target)
        _sync(target.parent)


def put_back(source: Path, database: Path, seconds: float, report: Report, keep: Path | None = None) -> None:
    """Replaces all that is in a database, also under running services, which from then on see only the new content.

    Writers wait for it in line, as for any other writer. `keep` gets what was there, to the last committed write.
    `seconds` is how long to wait for those who write now. Raises sqlite3.Error and OSError.
    """
    queue = write_queue(str(database))
    if not queue.acquire(seconds):
        raise sqlite3.OperationalError("database is locked")
    try:
        if keep is not None:
            copy(database, keep, report, check=False)  # of what is damaged, too
        with opened(source) as new, opened(database, "rwc", seconds) as live:
            try:
                live.execute("PRAGMA journal_mode = WAL")
                live.execute("PRAGMA synchronous = FULL")
                _transfer(new, live, report)
            except sqlite3.Error:
                if keep is not None:
                    keep.unlink(missing_ok=True)  # all of it is still where it was
                raise
            with suppress(sqlite3.Error):  # it is done; the log, now as large as the database, can be emptied later too
                live.execute(f"PRAGMA busy_timeout = {SECONDS_FOR_READERS * 1000}")
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(database.parent)
    finally:
        queue.release()


def _transfer(source: sqlite3.Connection, target: sqlite3.Connection, report: Report) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()

    def tell(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # after the time-out: Python would try for ever
            raise sqlite3.OperationalError("database is locked")
        report((total - remaining) * page_size, total * page_size)

    source.backup(target, pages=PAGES_AT_ONCE, progress=tell)


def fault_of(path: Path) -> str:
    """The first fault that SQLite finds in a file, or none. Reads all of it."""
    with opened(path) as database:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            return " ".join(found.split())
        if row := database.execute("PRAGMA foreign_key_check").fetchone():
            return f"a row of {row[0]} belongs to one of {row[2]} that is not there"
    return ""


def page_size_of(path: Path) -> int:
    with opened(path) as database:
        size: int = database.execute("PRAGMA page_size").fetchone()[0]
    return size


def row_counts(path: Path, *tables: str) -> list[int | None]:
    """How many rows each of these tables has; None for one that is not there."""
    there = tables_of(path)
    with opened(path) as database:
        return [
            database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] if table in there else None  # noqa: S608
            for table in tables
        ]


def tables_of(path: Path) -> set[str]:
    with opened(path) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def migrations_of(path: Path) -> set[tuple[str, str]]:
    """The migrations that a database had, as (app, name)."""
    with opened(path) as database:
        return set(database.execute("SELECT app, name FROM django_migrations"))


def _sync(path: Path) -> None:
    """Until then, a power cut may undo what was done to a file, or to the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
