"""`manage.py export_threads`: writes threads with their messages as JSON Lines."""

import os
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.management import Progress, many_objects, reason_of, require_tenant_name
from messages_app.models import Thread
from messages_app.transfer import exported
from messages_app.transfer.json_lines import visible_threads
from messages_app.transfer.reader import STANDARD_INPUT, written


class Command(BaseCommand):
    help = (
        "Writes threads with their messages as JSON Lines, one thread a line, oldest first. import_threads reads that "
        "on any engine."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", nargs="?", default="-", help="where to; packed where its name ends in .gz (default -: stdout)"
        )
        parser.add_argument("--tenant", help="only this tenant's threads (default: all)")

    def handle(self, *args: Any, file: str, tenant: str | None, **options: Any) -> None:
        require_tenant_name(tenant)
        start, lines = time.monotonic(), 0
        try:
            total = Thread.objects.visible(tenant).count()
            with many_objects(), Progress(total, "threads") as progress, written(file) as output:
                for piece in exported(visible_threads(tenant)):
                    output.write(piece.encode())
                    lines += piece.endswith("\n")
                    progress.update(lines)
        except BrokenPipeError:
            # Who reads has gone: nobody is there to be told. Nor must Python try again to write what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            raise CommandError(f"cannot write {file}: {error.strerror or error}") from error
        except Error as error:
            raise CommandError(f"cannot read the threads: {reason_of(error)}") from error
        seconds = time.monotonic() - start
        told = f"Exported {lines:,} threads in {seconds:.1f} s ({lines / seconds:,.0f}/s)."
        if file == STANDARD_INPUT:
            self.stderr.write(told, str)  # in no colour of errors
        else:
            self.stdout.write(told)
