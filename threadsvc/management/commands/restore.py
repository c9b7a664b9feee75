"""`manage.py restore FILE`: restores a copy that `manage.py backup` made, even while the service is running."""

import sqlite3
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError, call_command
from django.db import DatabaseError, connections
from django.db.migrations.loader import MigrationLoader

from threadsvc.engines.base import error_reason
from threadsvc.engines.sqlite import backup
from threadsvc.management import add_database_option, bar, expected_tables, file_of


class Command(BaseCommand):
    help = (
        "Replaces the content of an SQLite database with a copy that backup made, all or nothing. Running services "
        "continue with the new content. The old content is kept in a file beside the database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="the copy; other engines: docs/operations.md")
        parser.add_argument("--yes", "--no-input", action="store_true", help="do not ask")
        parser.add_argument("--discard", action="store_true", help="do not keep the old content")
        add_database_option(parser)

    def handle(self, *args: Any, file: Path, yes: bool, discard: bool, database: str, **options: Any) -> None:
        target = file_of(database)
        if not file.is_file():
            raise CommandError(f"there is no file {file}")
        if target.exists() and file.samefile(target):
            raise CommandError(f"{file} is the database itself")
        try:
            with usable(file, target, database) as source:
                is_empty = not holds_something(target)
                if not is_empty and not yes and not self.is_confirmed(file, target):
                    raise CommandError("nothing was changed")
                keep = None if is_empty or discard else name_to_keep(target)
                start = time.monotonic()
                seconds = connections[database].settings_dict["OPTIONS"]["timeout"]
                with bar("restoring") as report:
                    backup.put_back(source, target, seconds, report, keep)
        except backup.Unusable as error:
            raise CommandError(f"{file} {error}") from error
        except (sqlite3.Error, DatabaseError, OSError) as error:
            # FILE has passed its check, so sqlite3.DatabaseError itself means that the database is damaged. Its
            # subclasses have other causes, such as a locked database.
            away = f". Move {target}* away and restore again." if type(error) is sqlite3.DatabaseError else ""
            raise CommandError(f"cannot restore {file}: {error_reason(error)}{away}") from error
        self.stdout.write(f"Restored {target} in {time.monotonic() - start:.1f} s: {contents(target)}.")
        if keep is not None:
            self.stdout.write(f"The old content is in {keep}. Delete it when you no longer need it.")

    def is_confirmed(self, file: Path, target: Path) -> bool:
        self.stdout.write(
            f"This replaces everything in {target}:\n  now    {contents(target)}\n  after  {contents(file)}"
        )
        try:
            return input("Type yes to go on: ").strip().lower() == "yes"
        except EOFError:
            raise CommandError("no answer on standard input. Use --yes to restore without confirmation.") from None


@contextmanager
def usable(file: Path, target: Path, alias: str) -> Iterator[Path]:
    """Yield a file with the content of `file` in the tables of this version. Raises Unusable."""
    try:
        if fault := backup.fault_of(file):
            raise backup.Unusable(f"is damaged: {fault}")
        if "django_migrations" not in backup.tables_of(file):
            raise backup.Unusable("is not a backup of threadsvc: it has no table django_migrations")
    except sqlite3.DatabaseError as error:
        raise backup.Unusable(f"cannot be used: {error}") from error
    had, known = backup.migrations_of(file), set(MigrationLoader(None).disk_migrations)
    if unknown := sorted(had - known):
        raise backup.Unusable(f"is from a newer version: its migration {'.'.join(unknown[0])} is unknown")
    if holds_something(target):
        size, size_there = backup.page_size_of(file), backup.page_size_of(target)
        if size != size_there:
            raise backup.Unusable(f"has a page size of {size} bytes, but the database has {size_there}")
    if known <= had:
        refuse_without_tables(file, alias)
        yield file
        return
    with backup.draft_beside(target) as draft:
        backup.copy(file, draft, lambda *_: None, check=False)
        with connected_to(draft, alias):
            call_command("migrate", database=alias, verbosity=0, interactive=False)
        refuse_without_tables(draft, alias)
        yield draft


def refuse_without_tables(file: Path, alias: str) -> None:
    if missing := sorted(set(expected_tables(alias, include_auto_created=True)) - backup.tables_of(file)):
        raise backup.Unusable(f"is not a backup of this database: it has no table {missing[0]}")


@contextmanager
def connected_to(file: Path, alias: str) -> Iterator[None]:
    """Send this process's queries to another file while the block runs."""
    connection = connections[alias]
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = str(file)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = name


def holds_something(target: Path) -> bool:
    """Return whether a database has tables, or True if it cannot be read."""
    try:
        return target.exists() and bool(backup.tables_of(target))
    except sqlite3.DatabaseError:
        return True


def contents(path: Path) -> str:
    """Return the row counts that help an operator to recognize a database."""
    try:
        threads, messages = backup.row_counts(path, "messages_app_thread", "messages_app_message")
        (accounts,) = backup.row_counts(path, "auth_user")
    except sqlite3.DatabaseError as error:
        return f"not readable ({error})"
    counts = ((threads, "threads"), (messages, "messages"), (accounts, "accounts"))
    return ", ".join(f"{number:,} {what}" for number, what in counts if number is not None)


def name_to_keep(target: Path) -> Path:
    return target.with_name(f"{target.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
