"""`manage.py revoke_api_key KEY`: revokes a key. Later requests with this key are refused."""

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError

from threadsvc.access.management import one_line, utc_time
from threadsvc.access.models import KEY_MARK, APIKey


class Command(BaseCommand):
    help = "Revokes an API key immediately and permanently."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", metavar="KEY", help="its prefix, as list_api_keys shows it, or the whole key")

    def handle(self, *args: Any, key: str, **options: Any) -> None:
        prefix = key.removeprefix(KEY_MARK).partition("_")[0]
        row = APIKey.objects.filter(prefix=prefix).first() if prefix.isascii() else None
        if row is None:
            # Do not print the argument, because it may be a key of another service.
            raise CommandError("there is no such key; list_api_keys shows the prefixes")
        if row.revoke():
            self.stdout.write(f"Revoked {one_line(str(row))}. Requests with it are refused from now on.")
        else:
            self.stdout.write(f"{one_line(str(row))} was already revoked on {utc_time(row.revoked_at)}.")
