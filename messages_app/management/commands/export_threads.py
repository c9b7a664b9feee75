"""`manage.py export_threads`: writes threads with their messages as JSON Lines."""

import os
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.management import Progress, rare_garbage_collection, require_tenant_name
from messages_app.store.errors import reason_of
from messages_app.transfer.files import STANDARD_STREAM
from messages_app.transfer.json_lines import export_to_file


class Command(BaseCommand):
    help = (
        "Writes threads with their messages as JSON Lines, one thread per line, oldest first. import_threads reads "
        "them on any engine."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", nargs="?", default=STANDARD_STREAM, help="compressed if its name ends in .gz (default -: stdout)"
        )
        parser.add_argument("--tenant", help="only threads of this tenant (default: of all tenants)")

    def handle(self, *args: Any, file: str, tenant: str | None, **options: Any) -> None:
        require_tenant_name(tenant)
        start = time.monotonic()
        try:
            with rare_garbage_collection():
                threads = export_to_file(file, tenant, Progress)
        except BrokenPipeError:
            # The reader has closed the pipe, so no message is needed. Discard the rest of the output, because Python
            # would fail to flush it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            raise CommandError(f"cannot write {file}: {error.strerror or error}") from error
        except Error as error:
            raise CommandError(f"cannot read the threads: {reason_of(error)}") from error
        seconds = time.monotonic() - start
        summary = f"Exported {threads:,} threads in {seconds:.1f} s ({threads / seconds:,.0f}/s)."
        if file == STANDARD_STREAM:
            # stdout contains the export. `str` replaces the function that formats text on stderr as an error.
            self.stderr.write(summary, str)
        else:
            self.stdout.write(summary)
