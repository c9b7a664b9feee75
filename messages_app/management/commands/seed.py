"""`manage.py seed`: fills the store with sample threads that read like real conversations."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import DatabaseError, IntegrityError

from messages_app.management import Progress, rare_garbage_collection, require_tenant_name
from messages_app.models import DEFAULT_TENANT, Thread
from messages_app.sample_data.generator import fill_store
from messages_app.store.errors import reason_of


def parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 10**8:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100,000,000")
    return int(text)


class Command(BaseCommand):
    help = "Stores sample threads whose messages read like real conversations."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--threads", type=parse_count, default=100, help="how many threads (default 100)")
        parser.add_argument(
            "--messages", type=parse_count, default=1000, help="how many messages in all (default 1000)"
        )
        parser.add_argument("--seed", type=int, help="the same number gives the same threads: texts, ids and times")
        parser.add_argument("--tenant", default=DEFAULT_TENANT, help="the owner of the threads (default: %(default)s)")

    def handle(self, *args: Any, threads: int, messages: int, seed: int | None, tenant: str, **options: Any) -> None:
        if messages < threads:
            raise CommandError(f"{messages} messages are too few for {threads} threads: each needs at least one")
        require_tenant_name(tenant)
        start = time.monotonic()
        try:
            with rare_garbage_collection(), Progress(messages, "messages") as progress:
                fill_store(threads, messages, tenant=tenant, seed=seed, progress=progress.update)
        except IntegrityError as error:
            raise CommandError(f"threads of --seed {seed} are already in this store; use another number") from error
        except DatabaseError as error:
            alias = Thread.objects.db
            migrate = "migrate" if alias == "default" else f"migrate --database {alias}"
            raise CommandError(
                f"cannot store the threads: {reason_of(error)}; `manage.py {migrate}` creates the tables"
            ) from error
        seconds = time.monotonic() - start
        self.stdout.write(
            f"Stored {threads:,} threads with {messages:,} messages in {seconds:.1f} s ({messages / seconds:,.0f}/s)."
        )
