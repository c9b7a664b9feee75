"""`manage.py purge`: removes for good what was deleted. The service does the same by itself; this waits for the end."""

from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error

from messages_app.management import reason_of
from messages_app.store.deletion import purge


class Command(BaseCommand):
    help = (
        "Removes deleted threads with all that was in them, and what is left of messages that were deleted, and of "
        "idempotency keys that were used, more than 24 hours ago. Other writers go on meanwhile."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            purged = purge()
        except Error as error:
            raise CommandError(f"cannot purge: {reason_of(error)}; what is left, the next purge removes") from error
        self.stdout.write(
            f"Removed {purged.threads:,} deleted threads with {purged.messages:,} messages, "
            f"the places of {purged.places:,} messages deleted before, and {purged.keys:,} idempotency keys."
        )
