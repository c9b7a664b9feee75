"""`manage.py create_api_key NAME`: makes a key and prints it, this once, alone on stdout."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError
from django.utils import timezone

from threadsvc.access.management import one_line, utc_time
from threadsvc.access.models import APIKey

EXPIRY_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def expiry(text: str) -> datetime:
    """Return the time in `90d` from now, or at the start of a date (UTC)."""
    now = timezone.now()
    try:
        if span := re.fullmatch(r"([1-9][0-9]{0,6})([hdw])", text, re.ASCII):
            return now + int(span[1]) * EXPIRY_UNITS[span[2]]
        ends = datetime.combine(date.fromisoformat(text), time(), UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is no time such as 12h, 90d or 4w, and no date such as 2030-01-31") from None
    if ends <= now:
        raise ArgumentTypeError(f"{text} is past")
    return ends


class Command(BaseCommand):
    help = (
        "Makes an API key. Prints the key, which cannot be shown again, on stdout and nothing else there, so that "
        "KEY=$(manage.py create_api_key NAME) works; what it may do, on stderr."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="who or what uses it")
        parser.add_argument(
            "--tenant", default=settings.DEFAULT_TENANT, help="whose threads it opens (default: %(default)s)"
        )
        parser.add_argument("--read-only", action="store_true", help="it reads, and changes nothing")
        parser.add_argument(
            "--expires", type=expiry, metavar="WHEN", help="12h, 90d, 4w, or a date, 2030-01-31 (UTC); default: never"
        )

    def handle(
        self, *args: Any, name: str, tenant: str, read_only: bool, expires: datetime | None, **options: Any
    ) -> None:
        row = APIKey(name=name, tenant=tenant, read_only=read_only, expires_at=expires)
        try:
            row.full_clean(exclude={"prefix", "hashed_key"})
        except ValidationError as error:
            field, (reason, *_) = next(iter(error.message_dict.items()))
            raise CommandError(f"{field}: {reason}") from error
        key = row.issue()
        until = f"until {utc_time(expires)}" if expires else "until it is revoked"
        self.stderr.write(f"Key {one_line(str(row))} may {row.rights} in tenant {one_line(tenant)}, {until}.")
        self.stderr.write("Store it now: it cannot be shown again.")
        self.stdout.write(key)
