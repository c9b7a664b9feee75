"""`manage.py create_api_key NAME`: creates a key and prints it once. Stdout contains only the key."""

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
    """Return the current time plus a period such as `90d`, or the start of a date (UTC)."""
    now = timezone.now()
    try:
        if span := re.fullmatch(r"([1-9][0-9]{0,6})([hdw])", text, re.ASCII):
            return now + int(span[1]) * EXPIRY_UNITS[span[2]]
        ends = datetime.combine(date.fromisoformat(text), time(), UTC)
    except (ValueError, OverflowError):
        examples = "a duration such as 12h, 90d or 4w, nor a date such as 2030-01-31"
        raise ArgumentTypeError(f"{text!r} is not {examples}") from None
    if ends <= now:
        raise ArgumentTypeError(f"{text} is in the past")
    return ends


class Command(BaseCommand):
    help = (
        "Creates an API key. Prints only the key on stdout, so that KEY=$(manage.py create_api_key NAME) works, and "
        "its rights on stderr. The key cannot be shown again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the client that uses the key")
        parser.add_argument(
            "--tenant",
            default=settings.DEFAULT_TENANT,
            help="the tenant it can access (default: %(default)s)",
        )
        parser.add_argument("--read-only", action="store_true", help="the key can read, but not write")
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
        self.stderr.write(f"Key {one_line(str(row))} can {row.rights} in tenant {one_line(tenant)}, {until}.")
        self.stderr.write("Store it now: it cannot be shown again.")
        self.stdout.write(key)
