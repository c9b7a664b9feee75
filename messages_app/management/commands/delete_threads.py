"""`manage.py delete_threads --older-than AGE`: deletes threads that have been idle for at least AGE."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error
from django.utils import timezone

from messages_app.management import Progress, require_tenant_name
from messages_app.store.deletion import purge_threads
from messages_app.store.errors import reason_of
from messages_app.store.retention import delete_idle

AGE_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_age(text: str) -> datetime:
    """Return the current time minus an age such as `90d`, or the start of a date (UTC)."""
    now = timezone.now()
    try:
        if age := re.fullmatch(r"([1-9][0-9]{0,6})([hdw])", text, re.ASCII):
            return now - int(age[1]) * AGE_UNITS[age[2]]
        start_of_day = datetime.combine(date.fromisoformat(text), time(), UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{text!r} is not an age such as 12h, 90d or 4w, nor a date such as 2026-01-31"
        ) from None
    if start_of_day > now:
        raise ArgumentTypeError(f"{text} is in the future: every thread is older")
    return start_of_day


class Command(BaseCommand):
    help = (
        "Deletes idle threads and removes them for good: threads that are older than AGE and have no newer message. "
        "Safe while the service runs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        age = "12h, 90d, 4w, or a date such as 2026-01-31 (UTC)"
        parser.add_argument("--older-than", type=parse_age, required=True, metavar="AGE", help=age)
        parser.add_argument("--tenant", help="only threads of this tenant (default: of all tenants)")
        parser.add_argument("--dry-run", action="store_true", help="only print what would be deleted")

    def handle(self, *args: Any, older_than: datetime, tenant: str | None, dry_run: bool, **options: Any) -> None:
        require_tenant_name(tenant)
        try:
            with Progress(None, "threads examined") as progress:
                idle = delete_idle(older_than, tenant, dry_run, progress.update)
        except Error as error:
            raise CommandError(f"cannot continue: {reason_of(error)}. The next run deletes the rest.") from error
        of_tenant = f"of tenant {tenant}, " if tenant is not None else ""
        since = f"idle since {older_than:%Y-%m-%d %H:%M:%S} UTC"
        what = f"{idle.threads:,} threads with {idle.messages:,} messages, {of_tenant}{since}"
        if dry_run:
            self.stdout.write(f"Would delete {what}.")
            return
        self.stdout.write(f"Deleted {what}.")
        try:
            with Progress(idle.threads, "threads removed") as progress:
                purge_threads(progress.update)
        except Error as error:
            raise CommandError(f"cannot purge: {reason_of(error)}. The next purge removes the rest.") from error
