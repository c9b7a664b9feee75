"""The writes of an import: new threads, and changes to stored ones."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import DataError, IntegrityError, transaction

from messages_app.models import Message, Thread
from messages_app.store import bulk
from messages_app.store.backend import backend
from messages_app.store.engine import connection_to

# Rows that one query looks up by their ids.
IDS_PER_QUERY = 500

# The exceptions of an engine that refuses a single row. Any other error ends the import.
REJECTIONS = (IntegrityError, DataError)


def store(threads: Collection[Thread], messages: Collection[Message], replaced: Iterable[str] = ()) -> int:
    """Store new threads with their messages, all or none; return the number of messages.

    First removes the remains of the deleted threads with the ids `replaced`. Raises REJECTIONS.
    """

    def write() -> int:
        for thread_id in replaced:
            remove_remains(thread_id)
        return backend().store(threads, messages)

    return backend().attempt(write, is_rejected=lambda: True)


def expect_many() -> None:
    """Prepare this process for storing many threads."""
    connection_to(backend().database).expect_many_writes()


def undoes_rejected_writes() -> bool:
    """Return whether a rejected `store` is rolled back: then the caller may try first and check afterwards."""
    return backend().features.supports_transactions


def remove_remains(thread_id: str) -> None:
    """Remove at once the remains of a deleted or unfinished thread, so that its id can be stored again.

    The purge and any process that stores the thread notice this: they check again before each write.
    """
    with transaction.atomic(using=backend().database):
        deleted = Thread.objects.filter(id=thread_id, deleted_at__isnull=False)
        if backend().claim(deleted):
            Message.objects.filter(thread=thread_id).delete()
            deleted.delete()


def threads_by_id(ids: Sequence[str]) -> dict[str, Thread]:
    """Return the stored threads with these ids, deleted ones included."""
    return {row.id: row for row in _by_id(Thread.objects.all(), ids)}


def messages_by_id(ids: Sequence[str], *columns: str) -> dict[str, Message]:
    """Return the stored messages with these ids, deleted ones included, with all columns or only these."""
    return {row.id: row for row in _by_id(Message.objects.only(*columns), ids)}


def _by_id(rows: Any, ids: Sequence[str]) -> Iterable[Any]:
    for start in range(0, len(ids), IDS_PER_QUERY):
        yield from rows.filter(id__in=ids[start : start + IDS_PER_QUERY])


class Differences(NamedTuple):
    """How a stored thread differs from a wanted one: whether the metadata differ, the messages that are missing, the
    messages whose content differs, and the number of messages that were deleted from the store.
    """

    metadata: bool
    missing: list[Message]
    changed: list[Message]
    deleted: int

    @property
    def any(self) -> bool:
        return bool(self.metadata or self.missing or self.changed)


def differences(
    thread: Thread, wanted: Thread, messages: Iterable[Message], stored: Mapping[str, Message], *, metadata: bool
) -> Differences:
    """Compare the messages that a thread should have with the stored ones, by id.

    Raises IntegrityError if another thread has one of them.
    """
    missing, changed, deleted = [], [], 0
    for message in messages:
        row = stored.get(message.id)
        if row is None:
            missing.append(message)
        elif row.thread_id != thread.id:
            raise IntegrityError(f"message {row.id} is in another thread")
        elif row.deleted_at is not None:
            deleted += 1
        elif any(getattr(row, name) != getattr(message, name) for name in Message.CONTENT_FIELDS):
            changed.append(message)
    return Differences(metadata and thread.metadata != wanted.metadata, missing, changed, deleted)


def update(wanted: Thread, messages: Sequence[Message], *, metadata: bool) -> Differences:
    """Update a stored thread to have these messages and, with `metadata`, the metadata of `wanted`; return what
    changed.

    Appends missing messages in their order, and updates the CONTENT_FIELDS of stored ones. Other messages stay, and
    deleted ones stay deleted. Without transactions, it updates one message at a time and can be repeated. Raises
    Thread.DoesNotExist, and IntegrityError if another thread has one of the messages.
    """
    ids = [message.id for message in messages]

    def write() -> Differences:
        thread = backend().lock(Thread.objects.visible(wanted.tenant).filter(id=wanted.id)).get()
        found = differences(thread, wanted, messages, messages_by_id(ids), metadata=metadata)
        if found.metadata:
            backend().replace_metadata(thread, wanted.metadata)
        for message in found.changed:
            values = {name: getattr(message, name) for name in Message.CONTENT_FIELDS}
            Message.objects.visible_in(wanted.id).filter(id=message.id).update(**values)
        if found.missing:
            positions = (
                Message.objects.filter(thread=wanted.id).order_by("-position").values_list("position", flat=True)
            )
            for position, message in enumerate(found.missing, start=(positions.first() or 0) + 1):
                message.position = position
            bulk.insert(Message, found.missing, backend().database)
            backend().roll_back_if_deleted(wanted.tenant, wanted.id, [message.id for message in found.missing])
        return found

    def is_rejected() -> bool:
        stored = messages_by_id(ids, "thread_id")
        return any(row.thread_id != wanted.id for row in stored.values())

    return backend().attempt(write, is_rejected)
