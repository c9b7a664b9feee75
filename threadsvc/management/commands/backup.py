"""`manage.py backup FILE`: copies an SQLite database and checks the copy, while the service runs."""

import os
import sqlite3
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import connections

from threadsvc.engines.base import error_reason
from threadsvc.engines.sqlite.backup import BESIDE, Unusable, copy
from threadsvc.management import add_database_option, bar, file_of, megabytes


class Command(BaseCommand):
    help = "Copies an SQLite database into one file while the service runs, and checks the copy."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="the copy; other engines: docs/operations.md")
        parser.add_argument("--overwrite", action="store_true", help="replace FILE when the new copy has been checked")
        add_database_option(parser)

    def handle(self, *args: Any, file: Path, overwrite: bool, database: str, **options: Any) -> None:
        source = file_of(database)
        refuse_target(file, overwrite)
        if not source.exists():
            raise CommandError(f"there is no database yet: {source}")
        start = time.monotonic()
        try:
            with bar("copying") as report:
                copy(source, Path(os.path.realpath(file)), report)  # write to the target of a symbolic link
        except Unusable as error:
            raise CommandError(f"the database {error}; nothing was written to {file}") from error
        except (sqlite3.Error, OSError) as error:
            raise CommandError(f"cannot copy {source} to {file}: {error_reason(error)}") from error
        seconds = time.monotonic() - start
        self.stdout.write(f"Wrote {file}: {megabytes(file.stat().st_size)} in {seconds:.1f} s, checked.")
        if len(settings.DATABASES) > 1:
            left_out = {
                "default": "threads and messages (--database threads)",
                "threads": "accounts and sessions of the admin (--database default)",
            }
            self.stdout.write(f"Not included: {left_out[database]}.")


def refuse_target(file: Path, overwrite: bool) -> None:
    """Raise CommandError if the copy must not or cannot be written to this file."""
    names = [connection.settings_dict["NAME"] for connection in connections.all() if connection.vendor == "sqlite"]
    for name in names:
        if os.path.realpath(file) in {f"{name}{end}" for end in BESIDE}:
            raise CommandError(f"{file} is the database itself, or belongs to it")
    if file.exists() and not file.is_file():
        raise CommandError(f"{file} is not a regular file")
    if not file.parent.is_dir():
        raise CommandError(f"there is no directory {file.parent}")
    if file.exists() and not overwrite:
        raise CommandError(f"{file} exists. Use --overwrite to replace it.")
