"""Print the number of messages or some ids of a store as JSON. Uses the service's settings, and works on every engine.

- `python -m bench.contents count` prints the number of messages.
- `python -m bench.contents sample N` prints the ids of up to N threads and messages.
- `python -m bench.contents long N` prints the id of the long thread and some cursors in it. If this thread does not
  exist, the program creates it with N messages.
"""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import django

BATCH = 500

# In the long thread, the texts repeat after this number of messages. A page also has 20 messages, so all pages have the
# same size.
PERIOD = 20
LONG = {"bench": "long"}


def count() -> dict[str, int]:
    from messages_app.models import Message

    return {"messages": Message.objects.count()}


def sample(number: int) -> dict[str, list[Any]]:
    """Return the ids of up to `number` random threads and messages. They are the same in every run.

    The long thread and its messages are excluded.
    """
    from messages_app.models import Message, Thread

    rng = random.Random(7)
    excluded = {thread.id for thread in find_long_thread()}
    known = [i for i in Thread.objects.order_by("id").values_list("id", flat=True) if i not in excluded]
    threads = rng.sample(known, min(number, len(known)))
    long_threads, messages = [], []
    for start in range(0, len(threads), BATCH):
        of_these = Message.objects.filter(thread_id__in=threads[start : start + BATCH])
        rows = list(of_these.values_list("thread_id", "id", "position"))
        long_threads += [thread_id for thread_id, _, position in rows if position == PERIOD + 1]
        messages += [(thread_id, message_id) for thread_id, message_id, _ in rows]
    rng.shuffle(long_threads)
    return {
        "threads": threads,
        "long_threads": long_threads,
        "messages": rng.sample(sorted(messages), min(number, len(messages))),
    }


def long(number: int) -> dict[str, Any]:
    """Return the id of the long thread, and cursors for pages in its middle and near both ends."""
    from messages_app.models import Message

    found = find_long_thread()
    thread = found[0] if found else create_long_thread(number)
    last = Message.objects.filter(thread_id=thread.id).count()
    cursors = {"middle": last // 2, "end": last - PERIOD, "start": PERIOD + 1}
    rows = Message.objects.filter(thread_id=thread.id)
    return {"thread": thread.id, **{name: rows.get(position=position).id for name, position in cursors.items()}}


def find_long_thread() -> list[Any]:
    """Return a list with the long thread, or an empty list if it does not exist."""
    from messages_app.store.backend import backend
    from messages_app.store.paging import Window

    return backend().threads_with("default", LONG, Window(None, None, descending=True, limit=1))


def create_long_thread(number: int) -> Any:
    from messages_app.models import Message
    from messages_app.models.content import text_part
    from messages_app.sample_data.texts import conversation
    from tests.rows import new_message, new_thread, store_rows

    rng, at = random.Random(7), datetime(2026, 1, 1, tzinfo=UTC)
    turns = list(islice(conversation(rng), PERIOD))
    thread = new_thread(at, rng, metadata=LONG)

    def messages() -> Iterator[Message]:
        for position in range(1, number + 1):
            turn, moment = turns[position % PERIOD], at + timedelta(seconds=position)
            fields = {"role": turn.role, "content": [text_part(turn.text)]}
            yield new_message(moment, rng, thread_id=thread.id, position=position, **fields)

    new = messages()
    store_rows([thread])
    while batch := list(islice(new, BATCH)):
        Message.objects.bulk_create(batch)
    return thread


def main(what: str, *numbers: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "threadsvc.settings"
    django.setup()
    commands: dict[str, Callable[..., Any]] = {"count": count, "sample": sample, "long": long}
    print(json.dumps(commands[what](*map(int, numbers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
