"""Online backup and restore of an SQLite database, each in one transaction (https://www.sqlite.org/backup.html).

If the process dies during a backup or a restore, the database does not change.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from threadsvc.engines.sqlite.base import write_queue

# Suffixes of the files that SQLite and this engine keep for a database.
BESIDE = ("", "-wal", "-shm", "-journal", ".turn")

PAGES_AT_ONCE = 2000

# How long to wait for readers of the old content before truncating the log. If they take longer, a later writer
# truncates it.
SECONDS_FOR_READERS = 2

# Called with the number of bytes done and the total number of bytes.
Report = Callable[[int, int], None]


class Unusable(Exception):
    """A file is not a usable database. The message is a predicate: it is printed after the file's name."""


@contextmanager
def opened(path: Path, mode: str = "rw", seconds: float = 30) -> Iterator[sqlite3.Connection]:
    """Open a connection without implicit transactions. Creates the file only if `mode` is "rwc"."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as database:
        yield database


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Create an empty private file on the same file system.

    Removes it at the end, with the files that SQLite adds.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        draft = Path(directory) / "draft"
        draft.touch(mode=0o600)
        yield draft


def copy(database: Path, target: Path, report: Report, check: bool = True) -> None:
    """Copy a snapshot of a database to `target`, atomically, while other processes write.

    `target` is a single file with mode 0600. With `check`, raises Unusable if SQLite finds damage in the copy. Also
    raises sqlite3.Error and OSError.
    """
    with draft_beside(target) as draft:
        with opened(database) as source, opened(draft) as written:
            # All steps must read the same snapshot. Otherwise the copy would restart at every write.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            _transfer(source, written, report)
            written.execute("PRAGMA journal_mode = DELETE")  # moves the content of the log into the file
        if check and (fault := fault_of(draft)):
            raise Unusable(f"is damaged: {fault}")
        _sync(draft)
        draft.replace(target)
        _sync(target.parent)


def put_back(source: Path, database: Path, seconds: float, report: Report, keep: Path | None = None) -> None:
    """Replace the content of a database, even while services are running. They then see the new content.

    Writers queue during the replacement. `keep` is the file for a copy of the old content, including the last committed
    write. `seconds` is how long to wait for current writers. Raises sqlite3.Error and OSError.
    """
    queue = write_queue(str(database))
    if not queue.acquire(seconds):
        raise sqlite3.OperationalError("database is locked")
    try:
        if keep is not None:
            copy(database, keep, report, check=False)  # keep the old content even if it is damaged
        with opened(source) as new, opened(database, "rwc", seconds) as live:
            try:
                live.execute("PRAGMA journal_mode = WAL")
                live.execute("PRAGMA synchronous = FULL")
                _transfer(new, live, report)
            except sqlite3.Error:
                if keep is not None:
                    keep.unlink(missing_ok=True)  # not needed: the database still has the old content
                raise
            with suppress(sqlite3.Error):  # the new content is committed, and the log can be truncated later
                live.execute(f"PRAGMA busy_timeout = {SECONDS_FOR_READERS * 1000}")
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(database.parent)
    finally:
        queue.release()


def _transfer(source: sqlite3.Connection, target: sqlite3.Connection, report: Report) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()

    def tell(status: int, remaining: int, total: int) -> None:
        # SQLite has already waited for its time-out. Without an exception, Python would retry.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise sqlite3.OperationalError("database is locked")
        report((total - remaining) * page_size, total * page_size)

    source.backup(target, pages=PAGES_AT_ONCE, progress=tell)


def fault_of(path: Path) -> str:
    """Return the first damage that SQLite finds in a file, or "" if there is none. Reads the whole file."""
    with opened(path) as database:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            return " ".join(found.split())
        if row := database.execute("PRAGMA foreign_key_check").fetchone():
            return f"a row of {row[0]} belongs to one of {row[2]} that is not there"
    return ""


def page_size_of(path: Path) -> int:
    with opened(path) as database:
        return int(database.execute("PRAGMA page_size").fetchone()[0])


def row_counts(path: Path, *tables: str) -> list[int | None]:
    """Return the number of rows of each table, or None for a missing table."""
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
    """Return the applied migrations as (app, name)."""
    with opened(path) as database:
        return set(database.execute("SELECT app, name FROM django_migrations"))


def _sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk. Without this, a power cut could undo the previous changes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
