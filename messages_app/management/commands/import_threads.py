"""`manage.py import_threads`: imports threads with their messages from files of export_threads or other services."""

import sqlite3
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.management import Progress, rare_garbage_collection, require_tenant_name
from messages_app.store.errors import reason_of
from messages_app.transfer.files import STANDARD_STREAM, UnreadableFile
from messages_app.transfer.importing import Importer, ImportSummary

MAX_LISTED_NAMES = 50


class Command(BaseCommand):
    help = (
        "Reads threads with their messages: the output of export_threads, threads and messages of OpenAI's API, or "
        "Rubra's collections as mongoexport writes them. Existing threads stay unchanged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "files", nargs="*", metavar="file", help="all files are one import; gzip is recognised (default -: stdin)"
        )
        parser.add_argument("--tenant", help="the owner of all threads (default: the tenant in the file)")
        parser.add_argument("--update", action="store_true", help="update existing threads; their other messages stay")
        parser.add_argument("--dry-run", action="store_true", help="validate and count, but write nothing")

    def handle(
        self, *args: Any, files: list[str], tenant: str | None, update: bool, dry_run: bool, **options: Any
    ) -> None:
        require_tenant_name(tenant)
        start = time.monotonic()
        importer = Importer(self.stderr.write, tenant=tenant, update=update, dry_run=dry_run)
        summary = importer.summary
        try:
            with rare_garbage_collection():
                importer.import_files(files or [STANDARD_STREAM], Progress)
        except UnreadableFile as error:
            raise CommandError(str(error)) from error
        except Error as error:
            so_far = f"{summary.threads:,} threads were stored; run the same import again to continue"
            raise CommandError(f"stopped: {reason_of(error)}; {so_far}") from error
        except (OSError, sqlite3.Error) as error:
            raise CommandError(f"cannot write a temporary file: {reason_of(error)}") from error
        seconds = time.monotonic() - start
        for line in summary_lines(summary, seconds, update, dry_run):
            self.stdout.write(line)
        if summary.invalid:
            raise CommandError(f"{summary.invalid:,} not imported because of the errors above")


def summary_lines(summary: ImportSummary, seconds: float, update: bool, dry_run: bool) -> Iterator[str]:
    threads = f"{summary.threads:,} threads with {summary.messages:,} messages"
    if dry_run:
        yield f"Would import {threads}."
    else:
        yield f"Imported {threads} in {seconds:.1f} s ({summary.messages / seconds:,.0f}/s)."
    if summary.existing:
        yield f"Already stored: {summary.existing:,} threads, {state_of_existing(summary, update, dry_run)}."
    if summary.deleted:
        yield f"Not restored: {summary.deleted:,} messages that were deleted from this store."
    if summary.without_own_object:
        first = summary.first_without_own_object
        yield f"Made from messages alone: {summary.without_own_object:,} threads (first: {first})."
    skipped = sorted(summary.skipped.by_name.items())
    for name, (count, first_location) in skipped[:MAX_LISTED_NAMES]:
        yield f"Left out: {count:,} x {name} (first: {first_location})"
    if len(skipped) > MAX_LISTED_NAMES:
        yield f"Left out: {len(skipped) - MAX_LISTED_NAMES:,} other names"


def state_of_existing(summary: ImportSummary, update: bool, dry_run: bool) -> str:
    if not (update or dry_run):
        return "left unchanged"
    if not summary.differing:
        return "all up to date"
    if dry_run:
        return f"{summary.differing:,} out of date ({summary.added:,} messages missing, {summary.changed:,} changed)"
    return f"{summary.differing:,} updated ({summary.added:,} messages added, {summary.changed:,} changed)"
