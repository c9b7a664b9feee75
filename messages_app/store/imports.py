"""The write operations of an import: new threads, and changes to stored threads."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import DataError, IntegrityError, transaction

from messages_app.models import Message, Thread
from messages_app.store import bulk
from messages_app.store.backend import backend
from messages_app.store.engine import connection_to

# The number of ids that one query looks up.
IDS_PER_QUERY = 500

# An engine raises these exceptions if it rejects a single row. Any other error ends the import.
REJECTIONS = (IntegrityError, DataError)


def store(threads: Collection[Thread], messages: Collection[Message], replaced: Iterable[str] = ()) -> int:
    """Store all of these new threads and messages, or none of them. Return the number of messages.

    First removes the remains of deleted threads whose ids are in `replaced`. Raises REJECTIONS.
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
    """Return whether the engine rolls back a rejected `store`.

    If it does, the caller can store first and look for the cause of a rejection afterwards.
    """
    return backend().features.supports_transactions


def remove_remains(thread_id: str) -> None:
    """Remove the remains of a deleted or unfinished thread immediately, so that its id can be stored again.

    This does not disturb the purge or a process that stores the thread, because they check the thread before each
    write.
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
    """Return the stored messages with these ids, including deleted ones.

    If `columns` are given, load only these columns.
    """
    return {row.id: row for row in _by_id(Message.objects.only(*columns), ids)}


def _by_id(rows: Any, ids: Sequence[str]) -> Iterable[Any]:
    for start in range(0, len(ids), IDS_PER_QUERY):
        yield from rows.filter(id__in=ids[start : start + IDS_PER_QUERY])


class Differences(NamedTuple):
    """The differences between a stored thread and the imported one.

    `metadata` is True if the metadata differ. `missing` messages are not stored, and `changed` messages have a
    different content. `deleted` is the number of messages that were deleted from the store.
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
    """Compare the messages that a thread should have with the stored messages, by id.

    Raises IntegrityError if one of them belongs to another thread.
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
    """Store these messages in an existing thread.

    With `metadata`, also store the metadata of `wanted`. Return the changes.

    Appends missing messages in their order, and updates the CONTENT_FIELDS of stored messages. All other messages stay
    unchanged, and deleted messages stay deleted. Without transactions, it updates one message at a time and can be
    repeated. Raises Thread.DoesNotExist, and IntegrityError if one of the messages belongs to another thread.
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
