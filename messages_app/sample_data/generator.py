"""Generates and stores sample threads with messages. The same seed gives the same rows."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Any

from django.utils import timezone

from messages_app.ids import id_at, identity, object_id_at
from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from messages_app.sample_data.texts import SLOTS, DialogTurn, conversation
from messages_app.store import imports

SEED_BATCH_MESSAGES = 4000  # the number of messages in one transaction
SPREAD_DAYS = 90
ASSISTANTS = ("asst_support", "asst_travel", "asst_tutor")
TOOL_OF_FILE = {"document": "file_search", "table": "code_interpreter"}
# Replaces the current time if a seed is given, so that each run gives the same ids and times.
SEEDED_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fill_store(threads: int, messages: int, *, tenant: str, seed: int | None, progress: Callable[[int], Any]) -> None:
    """Store sample threads in batches. Calls `progress` with the number of messages stored so far.

    Each thread gets at least one message, and some threads get many more than others. Raises IntegrityError if the
    store already contains threads of this seed.
    """
    rng = random.Random(seed)  # noqa: S311
    now = timezone.now() if seed is None else SEEDED_NOW
    imports.expect_many()
    stored = 0
    for batch in _batches(_sample_threads(rng, now, tenant, threads, messages)):
        stored += imports.store(*batch)
        progress(stored)


def _batches(
    threads: Iterator[tuple[Thread, Iterator[Message]]],
) -> Iterator[tuple[list[Thread], list[Message]]]:
    """Yield batches of messages, each with the threads whose first message is in the batch.

    A batch has at most SEED_BATCH_MESSAGES messages.
    """
    new_threads: list[Thread] = []
    batch: list[Message] = []
    for thread, messages in threads:
        new_threads.append(thread)
        for message in messages:
            batch.append(message)
            if len(batch) == SEED_BATCH_MESSAGES:
                yield new_threads, batch
                new_threads, batch = [], []
    if batch:
        yield new_threads, batch


def _sample_threads(
    rng: random.Random, now: datetime, tenant: str, threads: int, messages: int
) -> Iterator[tuple[Thread, Iterator[Message]]]:
    """Yield unsaved threads, oldest first, each with an iterator of its unsaved messages.

    Read all messages of a thread before you request the next thread, because all of them use the same random generator.
    """
    weights = [rng.lognormvariate(0, 0.7) for _ in range(threads)]
    total, given = sum(weights), 0
    for number, weight in enumerate(accumulate(weights), start=1):
        # Each thread gets one message, and the weights distribute the rest. `upto` is the total up to this thread.
        upto = number + round(weight / total * (messages - threads))
        at = now - timedelta(days=SPREAD_DAYS) * (1 - (number - 1) / threads)
        metadata = {
            "customer": f"customer-{rng.randrange(10_000)}",
            "name": rng.choice(SLOTS["name"]),
            "channel": rng.choice(["web", "app", "e-mail"]),
        }
        columns = {"tenant": tenant, "metadata": metadata if rng.random() < 0.6 else {}}
        thread = Thread.from_values(**columns, **identity("thread", at, rng))
        yield thread, _sample_messages(thread, rng, upto - given)
        given = upto


def _sample_messages(thread: Thread, rng: random.Random, number: int) -> Iterator[Message]:
    milliseconds, run_id, assistant_id = int(thread.created_at.timestamp()) * 1000, "", rng.choice(ASSISTANTS)
    for position, turn in enumerate(islice(conversation(rng), number), start=1):
        milliseconds += rng.randrange(2_000, 120_000)
        seconds = milliseconds // 1000
        is_user = turn.role == "user"
        if is_user:
            run_id = f"run_{rng.getrandbits(96):024x}"  # the run of the next answer, including its tool calls
        # Keep the order of these calls to the random generator, so that a seed always gives the same rows.
        content = [text_part(turn.text), *_image_parts(turn, rng)]
        attachments, metadata = _attached_files(turn, rng), _message_metadata(turn, rng)
        yield Message.from_values(
            id=id_at("msg", milliseconds, rng.randbytes(10)),
            object_id=object_id_at(seconds, rng.randbytes(8)),
            thread_id=thread.id,
            position=position,
            role=turn.role,
            content=content,
            attachments=attachments,
            assistant_id="" if is_user else assistant_id,
            run_id=None if is_user else run_id,
            metadata=metadata,
            created_at=datetime.fromtimestamp(seconds, UTC),
        )


def _image_parts(turn: DialogTurn, rng: random.Random) -> list[dict[str, Any]]:
    if turn.attached != "picture":
        return []
    if rng.random() < 0.5:
        return [{"type": "image_file", "image_file": {"file_id": _file_id(rng), "detail": "auto"}}]
    return [{"type": "image_url", "image_url": {"url": f"https://pictures.example/{rng.getrandbits(32):08x}.jpg"}}]


def _attached_files(turn: DialogTurn, rng: random.Random) -> list[dict[str, Any]]:
    if turn.attached in TOOL_OF_FILE:
        return [{"file_id": _file_id(rng), "tools": [{"type": TOOL_OF_FILE[turn.attached]}]}]
    if turn.role == "user" and rng.random() < 0.03:
        return [{"file_id": _file_id(rng), "tools": []} for _ in range(rng.randrange(1, 4))]
    return []


def _file_id(rng: random.Random) -> str:
    return f"file-{rng.getrandbits(48):012x}"


def _message_metadata(turn: DialogTurn, rng: random.Random) -> dict[str, str]:
    """Return metadata for about one message in twenty, and {} for the others."""
    if rng.random() > 0.05:
        return {}
    if turn.role == "user":
        return {"client": rng.choice(["iOS", "Android", "Firefox"]), "Stimmung": rng.choice(["😀", "😐", "müde"])}
    return {"rating": rng.choice(["👍", "👎"])}
