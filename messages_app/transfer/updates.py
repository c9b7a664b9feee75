"""What an import changes of threads that are here: contents are brought up to date, the rest of deleted ones goes."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from messages_app.models import Message, Thread, ThreadQuerySet
from messages_app.models.thread import UNDECIDED, UNFINISHED_LASTS, MessageRow
from messages_app.store.engine import can_roll_back, pauses

# How many rows are looked up by their ids in one query.
LOOKED_UP_AT_ONCE = 500

# What a message says, as opposed to which it is and where it stands.
CONTENTS = ("role", "content", "attachments", "metadata", "assistant_id", "run_id")


def messages_by_id(message_ids: Iterable[str], *columns: str) -> dict[str, Message]:
    """Those of these messages that are there, deleted ones too; of their columns these, or all.

    One query for LOOKED_UP_AT_ONCE of them.
    """
    ids = list(message_ids)
    rows = Message.objects.only(*columns)
    parts = (ids[start : start + LOOKED_UP_AT_ONCE] for start in range(0, len(ids), LOOKED_UP_AT_ONCE))
    return {row.id: row for part in parts for row in rows.filter(id__in=part)}


# What is left of deleted threads


def forget(thread_id: str) -> None:
    """Removes at once all that is left of a deleted or unfinished thread, so that its id can be given again.

    Does nothing where there is none. `purge` and who stores it notice: they look again before each of their writes.
    """
    with transaction.atomic(using=Thread.objects.db):
        # But for one of which `delete_threads` has not decided yet: it is there, and only hidden.
        gone = Thread.objects.filter(id=thread_id, deleted_at__isnull=False, deleted_at__lt=UNDECIDED)
        if _is_ours(gone):
            Message.objects.filter(thread=thread_id).delete()
            gone.delete()


def _is_ours(gone: ThreadQuerySet) -> bool:
    """Whether there is such a deleted thread; from here on nobody else removes or stores it."""
    for pause in pauses():
        thread = gone.locked().only("deleted_at").first()
        if thread is None:
            return False
        # Where no lock keeps others away, one write does: they look for the time that they have seen.
        ours = timezone.now() + UNFINISHED_LASTS
        if can_roll_back(gone.db) or gone.filter(deleted_at=thread.deleted_at).update(deleted_at=ours):
            return True
        time.sleep(pause)
    raise OperationalError("others remove or store this thread all the time")


# What is there already


class Differences(NamedTuple):
    """What a thread lacks of what it should hold: whether its metadata are others, messages that are not here, messages
    whose contents are others, and how many were deleted here."""

    metadata: bool
    missing: list[MessageRow]
    changed: list[MessageRow]
    deleted: int

    @property
    def any(self) -> bool:
        return bool(self.metadata or self.missing or self.changed)


def differences(
    thread: Thread, wanted: Thread, messages: Iterable[MessageRow], here: Mapping[str, Message], metadata: bool
) -> Differences:
    """Compares what should be in a thread with the messages that are here, by id.

    Raises IntegrityError where one of those is in another thread.
    """
    found = Differences(metadata and thread.metadata != wanted.metadata, [], [], 0)
    deleted = 0
    for message in messages:
        row = here.get(message.id)
        if row is None:
            found.missing.append(message)
        elif row.thread_id != thread.id:
            raise IntegrityError(f"message {row.id} is in another thread")
        elif row.deleted_at is not None:
            deleted += 1
        elif any(getattr(row, name) != getattr(message, name) for name in CONTENTS):
            found.changed.append(message)
    return found._replace(deleted=deleted)


def bring_up_to_date(wanted: Thread, messages: Sequence[MessageRow], *, metadata: bool) -> Differences:
    """Makes a thread hold these messages, and (with `metadata`) the metadata of `wanted`; returns what that took.

    Messages that are not here yet are put at the end, in their order; of those that are, everything but ids, times
    and positions becomes as given. Others stay, and deleted ones stay deleted. All in one transaction; where there
    is none, message by message, and it can be repeated. Raises Thread.DoesNotExist, and IntegrityError where a
    message is another thread's.
    """
    for pause in pauses():
        try:
            return _bring_up_to_date(wanted, messages, metadata)
        except IntegrityError:
            if can_roll_back(Thread.objects.db) or _has_messages_of_others(wanted.id, messages):
                raise
            time.sleep(pause)  # somebody was faster
    raise OperationalError("too many writers change this thread at once")


def _has_messages_of_others(thread_id: str, messages: Iterable[MessageRow]) -> bool:
    here = messages_by_id((message.id for message in messages), "thread_id")
    return any(row.thread_id != thread_id for row in here.values())


def _bring_up_to_date(wanted: Thread, messages: Sequence[MessageRow], metadata: bool) -> Differences:
    threads = Thread.objects.of_tenant(wanted.tenant)
    with transaction.atomic(using=threads.db):
        thread = threads.locked().by_id(wanted.id)
        here = messages_by_id(message.id for message in messages)
        found = differences(thread, wanted, messages, here, metadata)
        if found.metadata and not Thread.objects.replace_metadata(thread, wanted.metadata):
            raise IntegrityError("metadata were changed meanwhile")
        for message in found.changed:
            values = {name: getattr(message, name) for name in CONTENTS}
            Message.objects.visible_in(wanted.id).filter(id=message.id).update(**values)
        last = Message.objects.last_position(wanted.id) or 0
        Message.objects.bulk_create(
            row._replace(position=position).message for position, row in enumerate(found.missing, start=last + 1)
        )
    if found.missing and not can_roll_back(threads.db):
        try:
            threads.require(wanted.id)
        except Thread.DoesNotExist:  # deleted meanwhile: see OneThread.append
            Message.objects.filter(id__in=[message.id for message in found.missing]).delete()
            raise
    return found
