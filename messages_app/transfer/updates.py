"""`import_threads --update`: compares an existing thread with a given one, and makes it hold the same messages.

Also removes the rest of deleted threads, so that an import can store them again.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from messages_app.models import Message, Thread, ThreadQuerySet
from messages_app.models.thread import UNDECIDED, UNFINISHED_LASTS, MessageRow
from messages_app.store.engine import can_roll_back, pauses
from messages_app.transfer.fields import CONTENT_FIELDS

IDS_PER_QUERY = 500


def batches_of_ids(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_PER_QUERY):
        yield ids[start : start + IDS_PER_QUERY]


def stored_messages(message_ids: Iterable[str], *columns: str) -> dict[str, Message]:
    """Return those messages that have a row, deleted ones included, by id; with these columns, or all.

    One query for each IDS_PER_QUERY ids.
    """
    rows = Message.objects.only(*columns)
    return {row.id: row for ids in batches_of_ids(list(message_ids)) for row in rows.filter(id__in=ids)}


# Deleted threads


def remove_deleted_thread(thread_id: str) -> None:
    """Remove all rows of a deleted or unfinished thread now, so that its id can be stored again.

    Does nothing if there is no such thread. `purge`, and a writer that has not finished the thread, notice: they look
    at its row before each write.
    """
    with transaction.atomic(using=Thread.objects.db):
        # Not a thread that `delete_threads` only hides: it may be shown again.
        deleted = Thread.objects.filter(id=thread_id, deleted_at__isnull=False, deleted_at__lt=UNDECIDED)
        if _claim(deleted):
            Message.objects.filter(thread=thread_id).delete()
            deleted.delete()


def _claim(deleted: ThreadQuerySet) -> bool:
    """Return whether there is such a deleted thread. If so, no other process removes or stores it from here on."""
    for pause in pauses():
        thread = deleted.locked().only("deleted_at").first()
        if thread is None:
            return False
        # Without row locks, changing `deleted_at` keeps others away: they search for the value that they have seen.
        ours = timezone.now() + UNFINISHED_LASTS
        if can_roll_back(deleted.db) or deleted.filter(deleted_at=thread.deleted_at).update(deleted_at=ours):
            return True
        time.sleep(pause)
    raise OperationalError("other processes keep removing or storing this thread")


# Existing threads


class ThreadDifferences(NamedTuple):
    """How an existing thread differs from a given one.

    `metadata`: its metadata differ. `missing`: given messages without a row. `changed`: given messages whose contents
    differ. `deleted`: the number of given messages that were deleted from the store.
    """

    metadata: bool
    missing: list[MessageRow]
    changed: list[MessageRow]
    deleted: int

    @property
    def any(self) -> bool:
        """Whether an update would write anything: deleted messages stay deleted."""
        return bool(self.metadata or self.missing or self.changed)


def compare_thread(
    thread: Thread, given: Thread, messages: Iterable[MessageRow], stored: Mapping[str, Message], *, metadata: bool
) -> ThreadDifferences:
    """Compare a stored thread with a given one and its messages; `stored` are the rows of those messages, by id.

    Compares metadata only with `metadata`. Raises IntegrityError if one of the rows is in another thread.
    """
    found = ThreadDifferences(metadata and thread.metadata != given.metadata, [], [], 0)
    deleted = 0
    for message in messages:
        row = stored.get(message.id)
        if row is None:
            found.missing.append(message)
        elif row.thread_id != thread.id:
            raise IntegrityError(f"message {row.id} is in another thread")
        elif row.deleted_at is not None:
            deleted += 1
        elif any(getattr(row, name) != getattr(message, name) for name in CONTENT_FIELDS):
            found.changed.append(message)
    return found._replace(deleted=deleted)


def update_thread(given: Thread, messages: Sequence[MessageRow], *, metadata: bool) -> ThreadDifferences:
    """Make a thread hold these messages and, with `metadata`, the given metadata. Returns what had to change.

    Adds missing messages at the end, in their order. Replaces the contents of existing ones, not ids, times and
    positions. Other messages stay, and deleted ones stay deleted. One transaction; on an engine without rollback,
    message by message, and safe to repeat. Raises Thread.DoesNotExist, and IntegrityError if a message is in another
    thread.
    """
    for pause in pauses():
        try:
            return _try_update(given, messages, metadata)
        except IntegrityError:
            if can_roll_back(Thread.objects.db) or _has_messages_of_other_threads(given.id, messages):
                raise
            time.sleep(pause)  # another writer was faster
    raise OperationalError("too many writers change this thread at once")


def _has_messages_of_other_threads(thread_id: str, messages: Iterable[MessageRow]) -> bool:
    stored = stored_messages((message.id for message in messages), "thread_id")
    return any(row.thread_id != thread_id for row in stored.values())


def _try_update(given: Thread, messages: Sequence[MessageRow], metadata: bool) -> ThreadDifferences:
    threads = Thread.objects.of_tenant(given.tenant)
    with transaction.atomic(using=threads.db):
        thread = threads.locked().by_id(given.id)
        stored = stored_messages(message.id for message in messages)
        found = compare_thread(thread, given, messages, stored, metadata=metadata)
        if found.metadata and not Thread.objects.replace_metadata(thread, given.metadata):
            raise IntegrityError("another writer changed the metadata")
        for message in found.changed:
            contents = {name: getattr(message, name) for name in CONTENT_FIELDS}
            Message.objects.visible_in(given.id).filter(id=message.id).update(**contents)
        last = Message.objects.last_position(given.id) or 0
        Message.objects.bulk_create(
            row._replace(position=position).message for position, row in enumerate(found.missing, start=last + 1)
        )
    if found.missing and not can_roll_back(threads.db):
        try:
            threads.require(given.id)
        except Thread.DoesNotExist:  # deleted in the meantime: see OneThread.append
            Message.objects.filter(id__in=[message.id for message in found.missing]).delete()
            raise
    return found
