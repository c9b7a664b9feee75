"""The backend for MongoDB, which has no rollback and no row locks.

A process may crash after any write, so the store must be consistent after every single write.

A thread is hidden until all of it is stored. A writer that stores a message checks the thread again afterwards. If two
writers can conflict, a unique index rejects the second, or each update requires the old value (compare-and-set).
"""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Any

from django.db import DataError, Error, IntegrityError, NotSupportedError, OperationalError, ProgrammingError
from django.db.models import Q
from django.utils import timezone

from messages_app.ids import Origin, identity
from messages_app.models import NO_TENANT, IdempotencyRecord, Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.store import bulk
from messages_app.store.backend import Backend
from messages_app.store.engine import RETRY_PAUSES, Result, retried
from messages_app.store.errors import KeyInUse, KeyReused, WriteConflict
from messages_app.store.idempotency import KeyedRequest, KeyedResponse, is_current, replay
from messages_app.store.paging import Window, in_window

# While a thread is being stored, its deletion time is this far in the future, which hides the thread. If its writer
# dies, the time passes and the purge removes the thread.
UNFINISHED_LASTS = timedelta(hours=1)

# While `delete_idle` checks an idle thread, the thread has this deletion time, so that nobody writes to it. The time is
# far in the future, so the purge never removes such a thread.
UNDECIDED = datetime(9999, 1, 1, tzinfo=UTC)

# A writer may read a thread just before its deletion, store a message after the purge, and crash before it removes the
# message again. The purge keeps the thread's id for this long, so that it can find such a message.
WRITERS_LAST = timedelta(hours=1)

# A record without a response belongs to a request in flight for this long. After that, a retry completes the record.
IN_PROGRESS_LASTS = timedelta(seconds=10)

# A write that fails with one of these exceptions, or with an error whose `stored_nothing` is true, was not stored.
# After any other database error, the write may have been stored, or may still be stored later.
REJECTIONS_BY_DATABASE = (DataError, IntegrityError, NotSupportedError, ProgrammingError)


class DocumentBackend(Backend):
    # Write

    def store(self, threads: Collection[Thread], messages: Collection[Message]) -> int:
        is_one_write = not messages and len(threads) <= 1
        hidden = None if is_one_write else timezone.now() + UNFINISHED_LASTS
        for thread in threads:
            thread.deleted_at = hidden
        unfinished = Thread.objects.filter(id__in=[thread.id for thread in threads], deleted_at=hidden)
        try:
            bulk.insert(Thread, threads, self.database)
            stored = bulk.insert(Message, messages, self.database)
            if hidden and unfinished.update(deleted_at=None) < len(threads):
                raise WriteConflict("another process removed or stored the same thread meanwhile")
        except Error as error:
            # Mark the threads as deleted, so that the purge removes them. If the engine is unavailable
            # (OperationalError), they stay hidden until UNFINISHED_LASTS has passed, and are purged after that.
            if hidden and not isinstance(error, OperationalError):
                with suppress(Error):
                    unfinished.update(deleted_at=timezone.now())
            raise
        for thread in threads:
            thread.deleted_at = None
        return stored

    def store_once(self, thread: Thread, messages: Collection[Message]) -> Thread:
        try:
            self.store([thread], messages)
        except IntegrityError:
            return self._finish(thread, messages)
        return thread

    def _finish(self, thread: Thread, messages: Collection[Message]) -> Thread:
        """Store the missing messages of a hidden thread, and make the thread visible.

        Return a visible or deleted thread unchanged.
        """
        there = Thread.objects.filter(id=thread.id).first()
        if there and (there.deleted_at is None or there.deleted_at <= timezone.now() or there.tenant == NO_TENANT):
            return there
        stored = set(Message.objects.filter(thread=thread).values_list("id", flat=True))
        with suppress(IntegrityError):
            bulk.insert(Message, [message for message in messages if message.id not in stored], self.database)
            if there and Thread.objects.filter(id=there.id, deleted_at=there.deleted_at).update(deleted_at=None):
                there.deleted_at = None
                return there
        raise WriteConflict("another request stores the same thread meanwhile")

    def append(self, tenant: str, thread_id: str, content: dict[str, Any], origin: Origin | None) -> Message:
        """Store the message with four queries.

        If two writers choose the same position, the unique index rejects one of them, and this writer tries the next
        position.
        """

        def write() -> Message:
            self.require_thread(tenant, thread_id)
            last = self._last_position_query.rows(thread_id=thread_id)
            made = identity("msg", origin.at, origin.random()) if origin else identity("msg")
            position = last[0][0] + 1 if last else 1
            message = Message.from_values(**made, thread_id=thread_id, position=position, **content)
            try:
                message.save(force_insert=True, using=self.database)
            except IntegrityError:
                if origin and (there := Message.objects.filter(id=message.id).first()):
                    return there
                raise
            self.roll_back_if_deleted(tenant, thread_id, [message.id])
            return message

        return self.attempt(write)

    def once(self, request: KeyedRequest) -> KeyedResponse:
        """Store the idempotency record before the row that the request creates.

        The record contains the ids of the row, so that a retry after a crash completes the same row.
        """
        for pause in RETRY_PAUSES:
            with suppress(IntegrityError):  # another request with this key stored its record first
                if response := self._once(request):
                    return response
            time.sleep(pause)
        raise WriteConflict("too many requests with this key at once")

    def _once(self, request: KeyedRequest) -> KeyedResponse | None:
        record = IdempotencyRecord.objects.filter(digest=request.digest).first()
        if record and not is_current(record, request):
            forget(record)
            record = None
        if record and record.answer:
            return replay(record, request)
        if request.thread_id:
            self.require_thread(request.tenant, request.thread_id)
        if record is None:
            record = new_record(request)
            record.save(force_insert=True, using=self.database)
        elif record.request != request.fingerprint:
            raise KeyReused
        elif record.created_at > timezone.now() - IN_PROGRESS_LASTS:
            raise KeyInUse
        try:
            row = request.create(origin=Origin(record.created_at, record.seed))
        except Exception as error:
            if was_not_stored(error):
                with suppress(Error):
                    # Delete the record, so that a retry gets the same error. With the record, it would get 409.
                    if not has_row(record):
                        forget(record)
            raise
        if row.deleted_at is not None:
            forget(record)
            return None
        body = request.render(row)
        mine = IdempotencyRecord.objects.filter(digest=record.digest, seed=record.seed)
        # A response may be too large for its record (DataError). The record then has no response, and a retry renders
        # the row again.
        with suppress(DataError):
            if not mine.filter(answer="").update(answer=body.decode()) and (answered := mine.first()):
                return KeyedResponse(answered.answer.encode())  # another request has completed the record
        return KeyedResponse(body)

    def attempt(self, write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
        return retried(write, is_rejected)

    def roll_back_if_deleted(self, tenant: str, thread_id: str, message_ids: Collection[str]) -> None:
        """Check the thread again, because it may be deleted and purged just before a message is stored."""
        try:
            self.require_thread(tenant, thread_id)
        except Thread.DoesNotExist:
            Message.objects.filter(id__in=message_ids).delete()
            raise

    def replace_metadata(self, row: Any, metadata: dict[str, str]) -> None:
        unchanged = type(row).objects.filter(id=row.id, deleted_at=None, metadata=row.metadata)
        if not unchanged.update(metadata=metadata):
            raise IntegrityError("another writer has changed the metadata, or deleted the row")
        row.metadata = metadata

    # Read

    def visible_messages(self, tenant: str, thread_id: str) -> MessageQuerySet:
        """Return the query without a check of the thread, because the engine has no joins."""
        return Message.objects.filter(thread_id=thread_id, deleted_at=None)

    def in_thread(self, tenant: str, thread_id: str, rows: list[Message]) -> list[Message]:
        """Check the thread after the rows are read. If it was deleted during the read, messages may be missing."""
        self.require_thread(tenant, thread_id)
        return rows

    def threads_with(self, tenant: str, pairs: Mapping[str, str], window: Window) -> list[Thread]:
        """Run one query, which uses an index of the metadata pairs in the documents."""
        rows = Thread.objects.visible(tenant).filter(metadata__contains=dict(pairs))
        return list(in_window(rows, window))

    def contains(self, word: str) -> Q:
        return Q(content__text__value__icontains=word)

    def idle(self, threads: ThreadQuerySet, before: datetime) -> list[str]:
        """Run one query, plus one for each thread."""
        last = Message.objects.filter(deleted_at=None).order_by("-position").values_list("created_at", flat=True)
        rows = [
            (thread_id, last.filter(thread=thread_id).first()) for thread_id in threads.values_list("id", flat=True)
        ]
        return [thread_id for thread_id, last_at in rows if last_at is None or last_at < before]

    # Delete

    def mark_deleted(self, threads: ThreadQuerySet, ids: Collection[str]) -> int:
        return threads.update(deleted_at=timezone.now(), metadata={})

    def mark_idle_deleted(self, threads: ThreadQuerySet, ids: Collection[str], before: datetime) -> tuple[int, int]:
        """Hide the threads and check them again. Then delete the idle threads and make the others visible.

        A writer checks the thread after it stores a message. If the thread is already hidden, the writer removes the
        message. Otherwise the second check here finds the message.
        """
        mark = UNDECIDED + timedelta(milliseconds=SystemRandom().randrange(10**10))  # no other call has the same mark
        hidden = Thread.objects.filter(id__in=ids, deleted_at=mark)
        try:
            threads.filter(id__in=ids).update(deleted_at=mark)
            idle = self.idle(hidden, before)
            messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
            return self.mark_deleted(hidden.filter(id__in=idle), idle), messages
        finally:
            hidden.update(deleted_at=None)

    def recover_idle(self) -> None:
        """Make threads visible that a crashed process left hidden.

        This is safe while another process runs `mark_idle_deleted`, because that process deletes only the threads
        that still have its own mark.
        """
        Thread.objects.filter(deleted_at__gte=UNDECIDED).update(deleted_at=None)

    def remove_thread(self, deleted: ThreadQuerySet, now: datetime) -> int:
        """Keep the row without its tenant for WRITERS_LAST. Remove it when a later purge calls this method again.

        With the row, that purge finds messages that a crashed writer stored in the meantime.
        """
        thread = deleted.first()
        if thread is None:
            return 0
        if thread.tenant == NO_TENANT:
            deleted._raw_delete(deleted.db)  # a single write, without a search for related rows
            return 0
        return deleted.filter(tenant=thread.tenant).update(tenant=NO_TENANT, deleted_at=now + WRITERS_LAST)

    def removable(self, deleted: MessageQuerySet, limit: int) -> tuple[list[Message], list[str]]:
        """Run one query, plus one for each message."""
        rows = list(deleted[:limit])
        last = {row.thread_id: self._last_position_query.rows(thread_id=row.thread_id)[0][0] for row in rows}
        return rows, [row.id for row in rows if row.position != last[row.thread_id]]

    def claim(self, deleted: ThreadQuerySet) -> bool:
        """Change the time of deletion. The updates of other writers then fail, because they require the old time."""
        deleted = deleted.filter(deleted_at__lt=UNDECIDED)  # an undecided thread is hidden, not deleted
        for pause in RETRY_PAUSES:
            thread = deleted.only("deleted_at").first()
            if thread is None:
                return False
            ours = timezone.now() + UNFINISHED_LASTS
            if deleted.filter(deleted_at=thread.deleted_at).update(deleted_at=ours):
                return True
            time.sleep(pause)
        raise WriteConflict("others remove or store this thread all the time")


def new_record(request: KeyedRequest) -> IdempotencyRecord:
    """Return an unsaved record that contains the ids of the row to create."""
    origin = Origin.new(timezone.now())
    return IdempotencyRecord(
        digest=request.digest,
        request=request.fingerprint,
        thread_id=request.thread_id or origin.first_id("thread"),
        message_id=origin.first_id("msg") if request.thread_id else "",
        seed=origin.seed,
        created_at=origin.at,
    )


def was_not_stored(error: Exception) -> bool:
    """Return True if a write that failed with this error was not stored, and will not be stored later."""
    is_of_database = isinstance(error, Error)
    return not is_of_database or isinstance(error, REJECTIONS_BY_DATABASE) or getattr(error, "stored_nothing", False)


def has_row(record: IdempotencyRecord) -> bool:
    """Return whether the row of a record is stored. A write may succeed although it raises an error."""
    if record.message_id:
        return Message.objects.filter(id=record.message_id).exists()
    return Thread.objects.filter(id=record.thread_id).exists()


def forget(record: IdempotencyRecord) -> None:
    IdempotencyRecord.objects.filter(digest=record.digest, seed=record.seed).delete()
