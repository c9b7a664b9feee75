"""`manage.py list_api_keys`: prints a table of all keys, newest first."""

from typing import Any

from django.core.management import BaseCommand

from threadsvc.access.management import one_line, utc_time
from threadsvc.access.models import APIKey

HEAD = ("PREFIX", "NAME", "TENANT", "RIGHTS", "CREATED", "EXPIRES", "LAST USED", "STATE")


class Command(BaseCommand):
    help = "Lists the API keys, newest first. Keys are not stored: the list shows the prefix of each."

    def handle(self, *args: Any, **options: Any) -> None:
        rows: list[tuple[str, ...]] = [HEAD]
        for key in APIKey.objects.all():
            times = map(utc_time, (key.created_at, key.expires_at, key.last_used_at))
            rows.append((key.prefix, one_line(key.name), one_line(key.tenant), key.rights, *times, key.state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())
        if len(rows) == 1:
            self.stderr.write("There are no keys. Create one: manage.py create_api_key NAME")
