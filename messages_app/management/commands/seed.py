"""`manage.py seed`: fills the store with threads and messages that read like real conversations."""

import random
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import DatabaseError, IntegrityError
from django.utils import timezone

from messages_app.ids import id_at, object_id_at
from messages_app.management import Progress, many_objects, reason_of, require_tenant_name
from messages_app.models import Thread
from messages_app.models.thread import MessageRow, text_part
from messages_app.sample_data.texts import SLOTS, Turn, conversation
from messages_app.store.engine import expect_many_writes

BATCH_MESSAGES = 4000
SPREAD_DAYS = 90
ASSISTANTS = ("asst_support", "asst_travel", "asst_tutor")
# What reads what is attached.
TOOLS = {"document": "file_search", "table": "code_interpreter"}
# With --seed, "now" is this moment, so that ids and times are the same on each run.
SEEDED_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 10**8:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100,000,000")
    return int(text)


class Command(BaseCommand):
    help = "Makes threads with messages that read like real conversations."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--threads", type=count, default=100, help="how many threads (default 100)")
        parser.add_argument("--messages", type=count, default=1000, help="how many messages in all (default 1000)")
        parser.add_argument("--seed", type=int, help="the same number makes the same threads: words, ids and times")
        parser.add_argument("--tenant", default="default", help="whose threads they are (default: default)")

    def handle(self, *args: Any, threads: int, messages: int, seed: int | None, tenant: str, **options: Any) -> None:
        if messages < threads:
            raise CommandError(f"{messages} messages are too few for {threads} threads: each gets one at least")
        require_tenant_name(tenant)
        rng = random.Random(seed)
        now = timezone.now() if seed is None else SEEDED_NOW
        start, stored = time.monotonic(), 0
        try:
            expect_many_writes(Thread.objects.db)
            with many_objects(), Progress(messages, "messages") as progress:
                for made in batches(made_up(rng, now, tenant, threads, messages)):
                    stored += Thread.objects.store_rows(*made)
                    progress.update(stored)
        except IntegrityError as error:
            raise CommandError(f"threads of --seed {seed} are in this store already; take another number") from error
        except DatabaseError as error:
            alias = Thread.objects.db
            migrate = "migrate" if alias == "default" else f"migrate --database {alias}"
            raise CommandError(
                f"cannot store them: {reason_of(error)}; `manage.py {migrate}` makes the tables"
            ) from error
        seconds = time.monotonic() - start
        self.stdout.write(
            f"Made {threads:,} threads with {messages:,} messages in {seconds:.1f} s ({messages / seconds:,.0f}/s)."
        )


def made_up(
    rng: random.Random, now: datetime, tenant: str, threads: int, messages: int
) -> Iterator[tuple[Thread, Iterator[MessageRow]]]:
    """Threads with their messages, not stored yet, oldest first; some threads are much longer than others.

    Each thread's messages must be taken before the next thread is.
    """
    weights = [rng.lognormvariate(0, 0.7) for _ in range(threads)]
    total, given = sum(weights), 0
    for number, weight in enumerate(accumulate(weights), start=1):
        # One message each, and the rest by weight.
        upto = number + round(weight / total * (messages - threads))
        at = now - timedelta(days=SPREAD_DAYS) * (1 - (number - 1) / threads)
        metadata = {
            "customer": f"customer-{rng.randrange(10_000)}",
            "name": rng.choice(SLOTS["name"]),
            "channel": rng.choice(["web", "app", "e-mail"]),
        }
        thread = Thread.new(at=at, rng=rng, tenant=tenant, metadata=metadata if rng.random() < 0.6 else {})
        yield thread, messages_of(thread, rng, upto - given)
        given = upto


def messages_of(thread: Thread, rng: random.Random, number: int) -> Iterator[MessageRow]:
    milliseconds, run_id, assistant_id = int(thread.created_at.timestamp()) * 1000, "", rng.choice(ASSISTANTS)
    for position, turn in enumerate(islice(conversation(rng), number), start=1):
        milliseconds += rng.randrange(2_000, 120_000)
        seconds = milliseconds // 1000
        is_users = turn.role == "user"
        if is_users:
            run_id = f"run_{rng.getrandbits(96):024x}"  # what answers it, with its tools
        # One after the other, as the generator gives them: the same seed makes the same rows.
        content = [text_part(turn.text), *picture(turn, rng)]
        files, metadata = attachments(turn, rng), remark(turn, rng)
        yield MessageRow(
            id_at("msg", milliseconds, rng.randbytes(10)),
            object_id_at(seconds, rng.randbytes(8)),
            thread.id,
            position,
            turn.role,
            content,
            files,
            "" if is_users else assistant_id,
            None if is_users else run_id,
            metadata,
            datetime.fromtimestamp(seconds, UTC),
        )


def picture(turn: Turn, rng: random.Random) -> list[dict[str, Any]]:
    """The part that shows a picture, where there is one: a file, or an address."""
    if turn.attached != "picture":
        return []
    if rng.random() < 0.5:
        return [{"type": "image_file", "image_file": {"file_id": file_id(rng), "detail": "auto"}}]
    return [{"type": "image_url", "image_url": {"url": f"https://pictures.example/{rng.getrandbits(32):08x}.jpg"}}]


def attachments(turn: Turn, rng: random.Random) -> list[dict[str, Any]]:
    if turn.attached in TOOLS:
        return [{"file_id": file_id(rng), "tools": [{"type": TOOLS[turn.attached]}]}]
    if turn.role == "user" and rng.random() < 0.03:
        return [{"file_id": file_id(rng), "tools": []} for _ in range(rng.randrange(1, 4))]
    return []


def file_id(rng: random.Random) -> str:
    return f"file-{rng.getrandbits(48):012x}"


def remark(turn: Turn, rng: random.Random) -> dict[str, str]:
    """The metadata of a message: few have any."""
    if rng.random() > 0.05:
        return {}
    if turn.role == "user":
        return {"client": rng.choice(["iOS", "Android", "Firefox"]), "Stimmung": rng.choice(["😀", "😐", "müde"])}
    return {"rating": rng.choice(["👍", "👎"])}


def batches(
    conversations: Iterator[tuple[Thread, Iterator[MessageRow]]],
) -> Iterator[tuple[list[Thread], list[MessageRow]]]:
    """BATCH_MESSAGES messages at a time, with the threads that begin among them: one transaction each."""
    threads: list[Thread] = []
    messages: list[MessageRow] = []
    for thread, said in conversations:
        threads.append(thread)
        for message in said:
            messages.append(message)
            if len(messages) == BATCH_MESSAGES:
                yield threads, messages
                threads, messages = [], []
    if messages:
        yield threads, messages
