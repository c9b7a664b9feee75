"""`manage.py import_threads`: reads threads with their messages, as export_threads or somebody else wrote them."""

import sqlite3
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.management import Progress, many_objects, reason_of, require_tenant_name
from messages_app.models import Thread
from messages_app.store.engine import expect_many_writes
from messages_app.transfer.drafts import drafts_in
from messages_app.transfer.foreign import Spool
from messages_app.transfer.importing import Import
from messages_app.transfer.reader import Source
from messages_app.transfer.validation import Draft, Wrong

# More names than this of what was left out are not listed.
NAMES_LISTED = 50


class Command(BaseCommand):
    help = (
        "Reads threads with their messages: what export_threads wrote, threads and messages of OpenAI's API, or "
        "Rubra's collections as mongoexport writes them. What is there already is left as it is."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "files", nargs="*", metavar="file", help="read together as one; also packed by gzip (default -: stdin)"
        )
        parser.add_argument("--tenant", help="whose threads they become (default: whose they say they are)")
        parser.add_argument(
            "--update",
            action="store_true",
            help="brings threads that are there already up to date; what is only here stays",
        )
        parser.add_argument("--dry-run", action="store_true", help="checks and counts everything, and writes nothing")

    def handle(
        self, *args: Any, files: list[str], tenant: str | None, update: bool, dry_run: bool, **options: Any
    ) -> None:
        require_tenant_name(tenant)
        start = time.monotonic()
        importing = Import(self.stderr.write, tenant=tenant, update=update, dry_run=dry_run)
        try:
            with many_objects():
                self._import(files or ["-"], importing)
        except Error as error:
            stored = f"{importing.account.threads:,} threads were stored"
            raise CommandError(f"stopped: {reason_of(error)}; {stored}, the same import goes on there") from error
        except (OSError, sqlite3.Error) as error:
            raise CommandError(f"cannot keep what was read in a temporary file: {reason_of(error)}") from error
        self._summarise(importing, time.monotonic() - start)

    def _import(self, files: list[str], importing: Import) -> None:
        with ExitStack() as closing:
            try:
                # All before the first is read: a wrong name is told at once.
                sources = [closing.enter_context(Source(file)) for file in files]
            except OSError as error:
                raise CommandError(f"cannot read {error.filename}: {error.strerror}") from error
            spool = closing.enter_context(Spool())
            expect_many_writes(Thread.objects.db)
            self._read(sources, spool, importing)
            if spool.items:
                with Progress(spool.messages, "messages") as progress:
                    done = 0
                    for draft in spool.drafts(importing.account.left_out):
                        done += _take(draft, importing)
                        progress.update(done)
            importing.flush()

    def _read(self, sources: list[Source], spool: Spool, importing: Import) -> None:
        sizes = [source.size for source in sources if source.size is not None]
        knows_size = len(sizes) == len(sources)
        start, done = time.monotonic(), 0
        with Progress(*((sum(sizes), "bytes") if knows_size else (None, "messages"))) as progress:
            for source in sources:
                for draft in drafts_in(source, spool, importing.account.left_out):
                    done += _take(draft, importing)
                    if knows_size:
                        rate = (done + spool.messages) / (time.monotonic() - start)
                        progress.update(sum(each.read for each in sources), f"{rate:,.0f} messages/s")
                    else:
                        progress.update(done + spool.messages)

    def _summarise(self, importing: Import, seconds: float) -> None:
        account, dry = importing.account, importing.dry_run
        lines = []
        done = "Would import" if dry else "Imported"
        threads = f"{account.threads:,} threads with {account.messages:,} messages"
        lines.append(
            f"{done} {threads}" + ("." if dry else f" in {seconds:.1f} s ({account.messages / seconds:,.0f}/s).")
        )
        if account.there:
            lines.append(f"There already: {account.there:,} threads, {self._of_those(importing)}.")
        if account.deleted:
            lines.append(f"Stay deleted: {account.deleted:,} messages of those, which were deleted here.")
        if account.made:
            lines.append(
                f"Without an object of their own: {account.made:,} threads, made from their messages "
                f"(first: {account.first_made})."
            )
        left_out = sorted(account.left_out.named.items())
        for name, (count, first) in left_out[:NAMES_LISTED]:
            lines.append(f"Left out: {count:,} x {name} (first: {first})")
        if len(left_out) > NAMES_LISTED:
            lines.append(f"Left out: {len(left_out) - NAMES_LISTED:,} other names")
        for line in lines:
            self.stdout.write(line)
        if account.faulty:
            raise CommandError(f"{account.faulty:,} with faults, told above, were not taken")

    def _of_those(self, importing: Import) -> str:
        account = importing.account
        if not (importing.update or importing.dry_run):
            return "left as they are"
        if not account.differing:
            return "all as given"
        changes = f"{account.added:,} messages {{}}, {account.changed:,} changed"
        if importing.update and not importing.dry_run:
            return f"{account.differing:,} of them brought up to date ({changes.format('added')})"
        return f"{account.differing:,} of them not as given ({changes.format('missing')})"


def _take(draft: Draft | Wrong, importing: Import) -> int:
    """Hands it on; returns the number of its messages."""
    if isinstance(draft, Wrong):
        importing.refuse(draft)
        return 0
    importing.take(draft)
    return len(draft.messages)
