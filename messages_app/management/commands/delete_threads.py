"""`manage.py delete_threads --older-than ...`: deletes threads in which nothing has happened for that long."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error
from django.utils import timezone

from messages_app.management import Progress, reason_of, require_tenant_name
from messages_app.store.deletion import purge_threads
from messages_app.store.retention import delete_idle

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def moment(text: str) -> datetime:
    """When that age began: `90d`, or the start of a day (UTC)."""
    now = timezone.now()
    try:
        if age := re.fullmatch(r"([1-9][0-9]{0,6})([hdw])", text, re.ASCII):
            return now - int(age[1]) * UNITS[age[2]]
        began = datetime.combine(date.fromisoformat(text), time(), UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is no age such as 12h, 90d or 4w, and no date such as 2026-01-31") from None
    if began > now:
        raise ArgumentTypeError(f"{text} is still to come: every thread is older")
    return began


class Command(BaseCommand):
    help = (
        "Deletes threads that are older than that and whose last message, if they have any, is older too, and removes "
        "them for good. Other writers go on meanwhile."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--older-than", type=moment, required=True, metavar="AGE", help="12h, 90d, 4w, or a date, 2026-01-31 (UTC)"
        )
        parser.add_argument("--tenant", help="only this tenant's threads (default: those of all tenants)")
        parser.add_argument("--dry-run", action="store_true", help="delete nothing, and say what would be deleted")

    def handle(self, *args: Any, older_than: datetime, tenant: str | None, dry_run: bool, **options: Any) -> None:
        require_tenant_name(tenant)
        try:
            with Progress(None, "threads looked at") as progress:
                found = delete_idle(older_than, tenant, dry_run, progress.update)
        except Error as error:
            raise CommandError(f"cannot go on: {reason_of(error)}; what is left, the next run deletes") from error
        of_whom = f"of tenant {tenant}, " if tenant is not None else ""
        since = f"idle since {older_than:%Y-%m-%d %H:%M:%S} UTC"
        what = f"{found.threads:,} threads with {found.messages:,} messages, {of_whom}{since}"
        if dry_run:
            self.stdout.write(f"Would delete {what}.")
            return
        self.stdout.write(f"Deleted {what}.")
        try:
            with Progress(found.threads, "threads removed") as progress:
                purge_threads(progress.update)
        except Error as error:
            raise CommandError(f"cannot purge: {reason_of(error)}; what is left, the next purge removes") from error
