"""Create rows without the API, for tests that need another tenant, another time or thousands of rows."""

from collections.abc import Collection
from datetime import datetime
from random import Random
from typing import Any

from messages_app.ids import identity
from messages_app.models import Message, Thread
from messages_app.store import messages
from messages_app.store.backend import backend


def new_thread(at: datetime | None = None, random: Random | None = None, **columns: Any) -> Thread:
    """Return an unsaved thread with new ids, created now or at `at`. `random` generates the ids."""
    return Thread(**identity("thread", at, random), **columns)


def new_message(at: datetime | None = None, random: Random | None = None, **columns: Any) -> Message:
    """Return an unsaved message with new ids, created now or at `at`. `random` generates the ids."""
    return Message(**identity("msg", at, random), **columns)


def store_rows(threads: Collection[Thread], messages: Collection[Message] = ()) -> int:
    return backend().store(threads, messages)


def append(thread_id: str, tenant: str = "default", **content: Any) -> Message:
    return messages.append(tenant, thread_id, **content)


def delete_thread(thread_id: str) -> None:
    """Hide a thread like a DELETE request, but do not wake the purger. Its rows remain until the next purge."""
    assert backend().mark_deleted(Thread.objects.visible(None).filter(id=thread_id), [thread_id])


def delete_message(message_id: str) -> None:
    messages.erase(Message.objects.get(id=message_id).thread_id, message_id)
