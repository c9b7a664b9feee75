"""`manage.py purge`: permanently removes deleted rows, as the service does in the background."""

from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.store.deletion import purge
from messages_app.store.errors import reason_of


class Command(BaseCommand):
    help = (
        "Removes deleted threads with their messages, tombstones of messages that were deleted more than 24 hours ago, "
        "and idempotency keys older than 24 hours. Safe while the service runs."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            purged = purge()
        except Error as error:
            raise CommandError(f"cannot purge: {reason_of(error)}. The next purge removes the rest.") from error
        self.stdout.write(
            f"Removed {purged.threads:,} deleted threads with {purged.messages:,} messages, "
            f"{purged.places:,} tombstones of deleted messages, and {purged.keys:,} idempotency keys."
        )
