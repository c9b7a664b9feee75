"""One thread as a request sees it: itself, its messages found, listed and added, by queries that are kept.

Where the engine can join, what is of a thread is found by the query that looks whether the thread is there: one look at
one moment. Where not, the thread is looked for last: a page of one that went meanwhile may lack what was removed.
"""

import time
from collections.abc import Iterable
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import Exists

from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.models.thread import id_of_seed, identity, seeded
from messages_app.store.compiled_query import KeptQuery, Named, Statement
from messages_app.store.engine import can_roll_back, one_write, pauses


class OneThread(NamedTuple):
    """A tenant's thread, which may not be there; its messages as a list that pages are made of (with `run_id`, those of
    a run). All but `places` raise Thread.DoesNotExist, also for another tenant's."""

    tenant: str
    id: str
    run_id: str | None = None

    def get(self) -> Thread:
        """The thread itself. One query."""
        for thread in THREAD.rows(tenant=self.tenant, thread_id=self.id):
            return thread  # type: ignore[no-any-return]
        raise Thread.DoesNotExist

    def require(self) -> None:
        """One query."""
        if not THREAD_ID.rows(tenant=self.tenant, thread_id=self.id):
            raise Thread.DoesNotExist

    def message(self, message_id: str) -> Message:
        """A message of the thread. Raises also Message.DoesNotExist. One query, where it is there and the engine can
        join."""
        found = self._of_thread(MESSAGE.rows(tenant=self.tenant, thread_id=self.id, message_id=message_id))
        for message in found:
            return message
        raise Message.DoesNotExist

    def places(self, public_ids: Iterable[str]) -> dict[str, tuple[int]]:
        """The places of those messages that are there, also of those that are deleted. One query."""
        # Of its own texts U+0000 is in none.
        ids = [public_id for public_id in dict.fromkeys(public_ids) if "\0" not in public_id]
        named = {f"message_{number}": public_id for number, public_id in enumerate(ids)}
        found = places_query(tuple(named)).rows(thread_id=self.id, **named) if named else []
        return {public_id: (position,) for public_id, position in found}

    def between(
        self, low: tuple[int] | None, high: tuple[int] | None, *, descending: bool, limit: int
    ) -> list[Message]:
        """The first `limit` messages after `low` and before `high`. One query, unless there are none,
        where the engine can join."""
        bounds = {name: place[0] for name, place in (("low", low), ("high", high)) if place is not None}
        of_run = {} if self.run_id is None else {"run_id": self.run_id}
        query = page_query(tuple(bounds), bool(of_run), descending, limit)
        return self._of_thread(query.rows(tenant=self.tenant, thread_id=self.id, **bounds, **of_run))

    def _of_thread(self, messages: list[Message]) -> list[Message]:
        """These; whether the thread is there is asked where they do not show it."""
        if not messages or not can_roll_back(MESSAGE.database):
            self.require()
        return messages

    def append(self, at: datetime | None = None, seed: str | None = None, **fields: Any) -> Message:
        """Stores a message at the end of the thread and returns it.

        A message of that time and seed that is there already is the one that is returned.

        The order of a thread's positions is the order of its commits: the thread's row is locked first (or, on SQLite,
        the database), so that the next writer sees this position before it takes its own. Where an engine has no such
        lock, the unique constraint refuses the second of two writers, which then asks again.

        One query, two in a transaction where a row is locked; four where there are no transactions.
        """
        told = {"thread_id": self.id, **fields}
        told |= {field.attname: field.get_default() for field in TOLD if field.attname not in told}
        append = self._append if can_roll_back(MESSAGE.database) else self._append_without_locks
        for pause in pauses():
            try:
                return append(at, seed, told)
            except IntegrityError:  # somebody was faster
                if at and seed and (there := Message.objects.filter(id=id_of_seed("msg", at, seed)).first()):
                    return there
                time.sleep(pause)
        raise OperationalError("too many writers append to this thread at once")

    def _append(self, at: datetime | None, seed: str | None, told: dict[str, Any]) -> Message:
        connection = connections[MESSAGE.database]
        values = {field.attname: field.get_db_prep_save(told[field.attname], connection) for field in TOLD}
        values["tenant"] = self.tenant
        if not connection.features.has_select_for_no_key_update:
            with one_write(MESSAGE.database):
                return self._store(at, seed, told, values)
        with transaction.atomic(using=MESSAGE.database):
            # A statement sees what was committed before it began, so the lock is one of its own.
            if not LOCKED_THREAD_ID.rows(tenant=self.tenant, thread_id=self.id):
                raise Thread.DoesNotExist
            return self._store(at, seed, told, values)

    def _store(self, at: datetime | None, seed: str | None, told: dict[str, Any], values: dict[str, Any]) -> Message:
        """Stores it, by the one writer to the thread that there is now; the time of a later message is no earlier."""
        connection = connections[MESSAGE.database]
        made = identity("msg", at, seeded(seed))
        for field in MADE:
            values[field.attname] = field.get_db_prep_save(made[field.attname], connection)
        statement = appending(MESSAGE.database)
        stored = statement.run(connection, statement.filled_in(values))
        if not stored:
            raise Thread.DoesNotExist
        row = {**made, **told, "position": stored[0][0]}
        return Message.from_db(MESSAGE.database, row.keys(), row.values())  # quicker than Django's constructor

    def _append_without_locks(self, at: datetime | None, seed: str | None, told: dict[str, Any]) -> Message:
        self.require()
        last = LAST_POSITION.rows(thread_id=self.id)
        message = Message.new(at, seeded(seed), position=last[0][0] + 1 if last else 1, **told)
        message.save(force_insert=True, using=MESSAGE.database)
        try:
            self.require()
        except Thread.DoesNotExist:  # deleted meanwhile, and perhaps purged before the message was there
            Message.objects.filter(id=message.id).delete()
            raise
        return message


def thread_query(tenant: str, thread_id: str) -> ThreadQuerySet:
    return Thread.objects.of_tenant(tenant).filter(id=thread_id)


def messages_query(tenant: str, thread_id: str) -> MessageQuerySet:
    """Where the engine can join, none of a thread that is not there."""
    rows = Message.objects.filter(thread_id=thread_id, deleted_at=None)
    return rows.filter(Exists(thread_query(tenant, thread_id))) if can_roll_back(rows.db) else rows


@lru_cache(maxsize=1024)
def page_query(bounds: tuple[str, ...], of_run: bool, descending: bool, limit: int) -> KeptQuery:
    def build(tenant: str, thread_id: str, **values: Any) -> MessageQuerySet:
        rows = messages_query(tenant, thread_id)
        if of_run:
            rows = rows.filter(run_id=values["run_id"])
        low, high = ((values[name],) if name in bounds else None for name in ("low", "high"))
        return rows.window(low, high, descending=descending)[:limit]

    kinds: dict[str, type] = dict.fromkeys(bounds, int)
    return KeptQuery(build, **OF_THREAD, **kinds, **({"run_id": str} if of_run else {}))


@cache
def places_query(names: tuple[str, ...]) -> KeptQuery:
    """The ids and positions of so many messages, also of those that are deleted: one or two, as a page has cursors."""

    def build(thread_id: str, **ids: str) -> Any:
        return Message.objects.filter(thread_id=thread_id, id__in=list(ids.values())).values_list("id", "position")

    return KeptQuery(build, thread_id=str, **dict.fromkeys(names, str))


OF_THREAD = {"tenant": str, "thread_id": str}
THREAD = KeptQuery(thread_query, **OF_THREAD)
THREAD_ID = KeptQuery(lambda **named: thread_query(**named).values_list("id"), **OF_THREAD)
LOCKED_THREAD_ID = KeptQuery(lambda **named: thread_query(**named).locked().values_list("id"), **OF_THREAD)
MESSAGE = KeptQuery(
    lambda message_id, **named: messages_query(**named).filter(id=message_id), **OF_THREAD, message_id=str
)
LAST_POSITION = KeptQuery(
    lambda thread_id: Message.objects.filter(thread_id=thread_id).order_by("-position").values_list("position")[:1],
    thread_id=str,
)

# A new message is told what is in it. It makes its ids and its time when it is its turn, and finds its position as it
# is stored.
MADE = [field for field in Message._meta.concrete_fields if field.name in ("id", "object_id", "created_at")]
TOLD = [field for field in Message._meta.concrete_fields if field not in MADE and field.name != "position"]


@cache
def appending(database: str) -> Statement:
    """Stores a message at the end of its thread and tells its position; nothing, where there is no such thread."""
    quote = connections[database].ops.quote_name
    given = [*MADE, *TOLD]
    columns = ", ".join(quote(str(field.column)) for field in given)
    values = ", ".join("%s" for _ in given)
    table, position = quote(Message._meta.db_table), quote("position")
    thread, last = THREAD_ID.compiled.statement, LAST_POSITION.compiled.statement
    return Statement(
        f"INSERT INTO {table} ({columns}, {position}) "  # names of ours
        f"SELECT {values}, COALESCE(({last.sql}), 0) + 1 WHERE EXISTS ({thread.sql}) RETURNING {position}",
        [*(Named(field.attname) for field in given), *last.params, *thread.params],
    )
