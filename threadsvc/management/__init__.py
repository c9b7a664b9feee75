"""Helpers for backup and restore: the option that selects a database, the database's file, and a progress bar."""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.db import connections, router
from tqdm import tqdm

from threadsvc.checks import url_setting
from threadsvc.engines.sqlite.backup import Report

BACKUP_TOOLS = {
    "threadsvc.engines.postgresql": ("PostgreSQL", "pg_dump and pg_restore"),
    "threadsvc.engines.mongodb": ("MongoDB", "mongodump and mongorestore"),
}


def add_database_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        choices=list(settings.DATABASES),
        default="threads" if "threads" in settings.DATABASES else "default",
        help="which database, if THREADS_DATABASE_URL and DATABASE_URL differ (default: the one with the threads)",
    )


def expected_tables(alias: str, include_auto_created: bool = False) -> list[str]:
    """Return the tables that the migrations of this version create in a database."""
    return [
        model._meta.db_table
        for model in apps.get_models(include_auto_created)
        if router.allow_migrate_model(alias, model) and model._meta.can_migrate(connections[alias])
    ]


def file_of(alias: str) -> Path:
    """Return the file of an SQLite database.

    For another engine, raises a CommandError that names the engine's own tools.
    """
    if other := BACKUP_TOOLS.get(connections[alias].settings_dict["ENGINE"]):
        engine, tools = other
        raise CommandError(
            f"this command is for SQLite, and {url_setting(alias)} is {engine}: use {tools} (docs/operations.md)"
        )
    return Path(connections[alias].settings_dict["NAME"])


@contextmanager
def bar(doing: str) -> Iterator[Report]:
    """Show a progress bar in bytes, but only on a terminal."""
    with tqdm(desc=doing, unit="B", unit_scale=True, leave=False, disable=None) as shown:

        def report(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield report


def megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"
