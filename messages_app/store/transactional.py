"""The backend for SQLite and PostgreSQL, which relies on transactions.

On PostgreSQL, a writer locks the row of the thread. SQLite has one writer at a time, so its writers queue.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from messages_app.ids import Origin, identity
from messages_app.models import IdempotencyRecord, Message, MessageQuerySet, Thread, ThreadPair, ThreadQuerySet
from messages_app.models.thread import digest_of_pair
from messages_app.store import bulk
from messages_app.store.backend import Backend, visible_thread
from messages_app.store.compiled_query import CompiledQuery, CompiledStatement, Parameter
from messages_app.store.engine import RETRY_PAUSES, Result, connection_to
from messages_app.store.errors import WriteConflict
from messages_app.store.idempotency import KeyedRequest, KeyedResponse, is_current, replay
from messages_app.store.paging import Window, in_window

# A metadata pair is rare if fewer threads than this have it. Counting stops at this number.
RARE_PAIR_THREADS = 200

# All columns except the position of a new message, which the INSERT statement itself computes.
INSERTED_FIELDS = [field for field in Message._meta.concrete_fields if field.attname != "position"]


class TransactionalBackend(Backend):
    # Write

    def store(self, threads: Collection[Thread], messages: Collection[Message]) -> int:
        with transaction.atomic(using=self.database):
            bulk.insert(Thread, threads, self.database)
            bulk.insert(ThreadPair, (pair for thread in threads for pair in thread.new_pairs()), self.database)
            return bulk.insert(Message, messages, self.database)

    def store_once(self, thread: Thread, messages: Collection[Message]) -> Thread:
        self.store([thread], messages)
        return thread

    def append(self, tenant: str, thread_id: str, content: dict[str, Any], origin: Origin | None) -> Message:
        """Run one query, or two in a transaction if the engine locks the thread's row."""
        connection = connection_to(self.database)
        for pause in RETRY_PAUSES:
            try:
                if not connection.features.has_select_for_no_key_update:
                    with connection.write_turn():
                        return self._insert(tenant, thread_id, content)
                with transaction.atomic(using=self.database):
                    # Lock the row in a separate statement. A statement sees only changes committed before it started,
                    # not changes committed while it waited for the lock.
                    if not self._locked_thread_query.rows(tenant=tenant, thread_id=thread_id):
                        raise Thread.DoesNotExist
                    return self._insert(tenant, thread_id, content)
            except IntegrityError:  # another program inserted a message without the lock
                time.sleep(pause)
        raise WriteConflict("too many writers at once")

    def _insert(self, tenant: str, thread_id: str, content: dict[str, Any]) -> Message:
        """Store a message.

        The caller holds the lock of the thread or the turn to write, so no other writer can store a message in this
        thread now. A message with a later position therefore has a later id and time.
        """
        row = Message.from_values(**identity("msg"), thread_id=thread_id, **content)
        connection, values = connections[self.database], vars(row)
        params = {field.attname: field.get_db_prep_save(values[field.attname], connection) for field in INSERTED_FIELDS}
        stored = self._insertion.rows(self.database, {**params, "tenant": tenant})
        if not stored:
            raise Thread.DoesNotExist
        row.position = stored[0][0]
        return row

    @cached_property
    def _insertion(self) -> CompiledStatement:
        """The statement that stores a message at the end of its thread and returns its position.

        It returns no row if the tenant has no such thread.
        """
        quote = connections[self.database].ops.quote_name
        columns = ", ".join(quote(str(field.column)) for field in INSERTED_FIELDS)
        values = ", ".join("%s" for _ in INSERTED_FIELDS)
        table, position = quote(Message._meta.db_table), quote("position")
        thread, last = (query.statement for query in (self._thread_id_query, self._last_position_query))
        return CompiledStatement(
            f"INSERT INTO {table} ({columns}, {position}) "
            f"SELECT {values}, COALESCE(({last.sql}), 0) + 1 WHERE EXISTS ({thread.sql}) RETURNING {position}",
            [*(Parameter(field.attname) for field in INSERTED_FIELDS), *last.params, *thread.params],
        )

    @cached_property
    def _locked_thread_query(self) -> CompiledQuery:
        return CompiledQuery(
            lambda **values: self.lock(visible_thread(**values)).values_list("id"), tenant=str, thread_id=str
        )

    def once(self, request: KeyedRequest) -> KeyedResponse:
        """Store the row and the record in one transaction."""
        for _ in RETRY_PAUSES:
            try:
                with transaction.atomic(using=self.database):
                    return self._once(request)
            except IntegrityError:  # another request stored its record first, so replay that record
                continue
        raise WriteConflict("too many requests with this key at once")

    def _once(self, request: KeyedRequest) -> KeyedResponse:
        found = IdempotencyRecord.objects.filter(digest=request.digest).first()
        if found and is_current(found, request):
            return replay(found, request)
        row = request.create()
        body = request.render(row)
        # Delete the outdated record only after `create` has locked the thread. The purge locks them in the same order,
        # which prevents a deadlock.
        if found:
            IdempotencyRecord.objects.filter(digest=found.digest, seed=found.seed).delete()
        IdempotencyRecord.objects.create(
            digest=request.digest,
            request=request.fingerprint,
            thread_id=request.thread_id or row.id,
            message_id=row.id if request.thread_id else "",
            seed=os.urandom(16).hex(),
            created_at=timezone.now(),
            answer=body.decode(),
        )
        return KeyedResponse(body)

    def attempt(self, write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
        with transaction.atomic(using=self.database):
            return write()

    def roll_back_if_deleted(self, tenant: str, thread_id: str, message_ids: Collection[str]) -> None:
        """Do nothing. No other writer can delete the thread before this transaction ends."""

    def lock(self, rows: QuerySet[Any]) -> Any:
        return rows.select_for_update(no_key=True) if self.features.has_select_for_no_key_update else rows

    def replace_metadata(self, row: Any, metadata: dict[str, str]) -> None:
        row.metadata = metadata
        type(row).objects.filter(id=row.id).update(metadata=metadata)
        if isinstance(row, Thread):
            ThreadPair.objects.filter(thread=row).delete()
            ThreadPair.objects.bulk_create(row.new_pairs())

    # Read

    def visible_messages(self, tenant: str, thread_id: str) -> MessageQuerySet:
        """Return a query that reads the thread and its messages in the same snapshot."""
        rows = Message.objects.filter(thread_id=thread_id, deleted_at=None)
        return rows.filter(Exists(visible_thread(tenant, thread_id)))

    def in_thread(self, tenant: str, thread_id: str, rows: list[Message]) -> list[Message]:
        if not rows:
            self.require_thread(tenant, thread_id)
        return rows

    def threads_with(self, tenant: str, pairs: Mapping[str, str], window: Window) -> list[Thread]:
        """Run one query, plus one for each pair if there are several pairs."""
        rows = rows_with_pairs(tenant, pairs)
        return [pair.thread for pair in in_window(rows, window)]

    def contains(self, word: str) -> Q:
        """Search the text of the stored JSON.

        If LIKE ignores case only for ASCII letters, search for four spellings of a non-ASCII word.
        """
        knows_case = word.isascii() or self.features.folds_unicode_case
        found = Q()
        for spelling in [word] if knows_case else [word, word.lower(), word.upper(), word.capitalize()]:
            found |= Q(content__icontains=json.dumps(spelling, ensure_ascii=False)[1:-1])
        return found

    def idle(self, threads: ThreadQuerySet, before: datetime) -> list[str]:
        """Run one query."""
        messages = Message.objects.filter(deleted_at=None, thread=OuterRef("id")).order_by("-position")
        last = Subquery(messages.values_list("created_at", flat=True)[:1])
        rows = threads.order_by().annotate(last=last).values_list("id", "last")
        return [thread_id for thread_id, last_at in rows if last_at is None or last_at < before]

    # Delete

    def mark_deleted(self, threads: ThreadQuerySet, ids: Collection[str]) -> int:
        with transaction.atomic(using=self.database):
            marked = threads.update(deleted_at=timezone.now(), metadata={})
            if marked:
                ThreadPair.objects.filter(thread__in=ids).delete()
            return marked

    def mark_idle_deleted(self, threads: ThreadQuerySet, ids: Collection[str], before: datetime) -> tuple[int, int]:
        with transaction.atomic(using=self.database):
            locked = self.lock(threads.filter(id__in=ids).order_by(*threads.order)).values_list("id", flat=True)
            # Check in a separate statement: the statement that locks does not see changes committed while it waited.
            idle = self.idle(threads.filter(id__in=list(locked)), before)
            messages = Message.objects.filter(thread__in=idle, deleted_at=None).count()
            return self.mark_deleted(threads.filter(id__in=idle), idle), messages

    def recover_idle(self) -> None:
        """Do nothing. An interrupted transaction leaves no changes."""

    def remove_thread(self, deleted: ThreadQuerySet, now: datetime) -> int:
        with transaction.atomic(using=self.database):
            thread = self.lock(deleted).first()
            return 0 if thread is None else thread.delete()[1].get(Thread._meta.label, 0)

    def removable(self, deleted: MessageQuerySet, limit: int) -> tuple[list[Message], list[str]]:
        """Run one query."""
        later = Message.objects.filter(thread=OuterRef("thread"), position__gt=OuterRef("position"))
        rows = list(deleted.filter(Exists(later))[:limit])
        return rows, [message.id for message in rows]

    def claim(self, deleted: ThreadQuerySet) -> bool:
        """Lock the thread until the transaction ends."""
        return self.lock(deleted).only("id").first() is not None


def rows_with_pairs(tenant: str, pairs: Mapping[str, str]) -> QuerySet[ThreadPair]:
    """Return a row for each thread that has all of these pairs: the row of the rarest pair, with its thread.

    If there are several pairs, one query for each of them finds the rarest pair.
    """
    digests = [digest_of_pair(tenant, key, value) for key, value in pairs.items()]
    rarest = min(digests, key=frequency) if len(digests) > 1 else digests[0]
    rows = ThreadPair.objects.filter(digest=rarest, thread__deleted_at=None).select_related("thread")
    if len(digests) == 1:
        return rows
    # Use one COUNT instead of one EXISTS for each pair, because PostgreSQL takes long to plan several EXISTS.
    of_thread = ThreadPair.objects.filter(thread=OuterRef("thread"), digest__in=digests).order_by()
    number = of_thread.values("thread").annotate(number=Count("*")).values("number")
    return rows.alias(number=Subquery(number)).filter(number=len(digests))


def frequency(digest: str) -> int:
    """Return the number of threads that have a pair, at most RARE_PAIR_THREADS. One query."""
    return ThreadPair.objects.filter(digest=digest)[:RARE_PAIR_THREADS].count()
