"""The store on each engine: with transactions or without them. This module makes that choice, once.

A backend holds only the differences. Code that is the same on all engines is in the modules of the verbs (threads.py,
messages.py, ...), which call the backend.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from django.db.models import Q, QuerySet

from messages_app.ids import Origin
from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.store.compiled_query import CompiledQuery
from messages_app.store.engine import EngineFeatures, Result, connection_to
from messages_app.store.paging import Window

if TYPE_CHECKING:
    from messages_app.store.idempotency import KeyedRequest, KeyedResponse


def visible_thread(tenant: str, thread_id: str) -> ThreadQuerySet:
    """Return the query for one thread of a tenant."""
    return Thread.objects.visible(tenant).filter(id=thread_id)


class Backend(ABC):
    """The interface of both backends, for the database with this alias."""

    def __init__(self, database: str) -> None:
        self.database = database

    @property
    def features(self) -> EngineFeatures:
        """The features of this thread's connection. Not cached: a cached object would keep the connection of an ended
        thread.
        """
        return connection_to(self.database).features

    # Threads by id

    def thread(self, tenant: str, thread_id: str) -> Thread:
        """Return a thread. One query. Raises Thread.DoesNotExist."""
        for thread in self._thread_query.rows(tenant=tenant, thread_id=thread_id):
            return thread  # type: ignore[no-any-return]
        raise Thread.DoesNotExist

    def require_thread(self, tenant: str, thread_id: str) -> None:
        """Raise Thread.DoesNotExist if there is no such thread. One query."""
        if not self.has_thread(tenant, thread_id):
            raise Thread.DoesNotExist

    def has_thread(self, tenant: str, thread_id: str) -> bool:
        """Return whether there is such a thread. One query."""
        return bool(self._thread_id_query.rows(tenant=tenant, thread_id=thread_id))

    @cached_property
    def _thread_query(self) -> CompiledQuery:
        return CompiledQuery(visible_thread, tenant=str, thread_id=str)

    @cached_property
    def _thread_id_query(self) -> CompiledQuery:
        return CompiledQuery(lambda **values: visible_thread(**values).values_list("id"), tenant=str, thread_id=str)

    @cached_property
    def _last_position_query(self) -> CompiledQuery:
        """The highest position in a thread, deleted messages included: positions are never reused."""
        messages = Message.objects.order_by("-position").values_list("position")
        return CompiledQuery(lambda thread_id: messages.filter(thread_id=thread_id)[:1], thread_id=str)

    # Write

    @abstractmethod
    def store(self, threads: Collection[Thread], messages: Collection[Message]) -> int:
        """Store new threads with their messages, all or none; return the number of messages.

        Raises IntegrityError if one of them is already stored.
        """

    @abstractmethod
    def store_once(self, thread: Thread, messages: Collection[Message]) -> Thread:
        """Store a new thread and return it as it is now. An earlier attempt may have stored a part of it."""

    @abstractmethod
    def append(self, tenant: str, thread_id: str, content: dict[str, Any], origin: Origin | None) -> Message:
        """Store a message at the end of a thread. Positions are in the order of commits.

        With `origin`, an earlier attempt may already have stored the message: then return that message. Raises
        Thread.DoesNotExist.
        """

    @abstractmethod
    def once(self, request: "KeyedRequest") -> "KeyedResponse":
        """Create the row of a request. Further requests with the same key create nothing. See store/idempotency.py."""

    @abstractmethod
    def attempt(self, write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
        """Run writes that belong together, and return the result of `write`, which may run several times.

        `write` raises IntegrityError if it conflicts with another writer. If `is_rejected` returns True, the error has
        another cause, which a new attempt would meet again.
        """

    @abstractmethod
    def roll_back_if_deleted(self, tenant: str, thread_id: str, message_ids: Collection[str]) -> None:
        """Take back messages that were just stored if the thread was deleted meanwhile. Raises Thread.DoesNotExist."""

    def lock(self, rows: QuerySet[Any]) -> Any:
        """Return the query, which also locks its rows until the transaction ends if the engine has row locks."""
        return rows

    @abstractmethod
    def replace_metadata(self, row: Any, metadata: dict[str, str]) -> None:
        """Replace the metadata of a row. Raises IntegrityError if another writer has changed it since it was read."""

    # Read

    @abstractmethod
    def visible_messages(self, tenant: str, thread_id: str) -> MessageQuerySet:
        """Return the query for the messages of a thread, for compiled queries. `in_thread` takes its rows."""

    @abstractmethod
    def in_thread(self, tenant: str, thread_id: str, rows: list[Message]) -> list[Message]:
        """Return the messages in these rows of `visible_messages`. May query for the thread. Raises
        Thread.DoesNotExist.
        """

    @abstractmethod
    def threads_with(self, tenant: str, pairs: Mapping[str, str], window: Window) -> list[Thread]:
        """Return the window of a tenant's threads whose metadata has all of these pairs: 1 to 16.

        Positions are (created_at, id).
        """

    @abstractmethod
    def contains(self, word: str) -> Q:
        """Return a condition for messages whose text contains a word, ignoring case. It may match a few other messages
        too.
        """

    @abstractmethod
    def idle(self, threads: ThreadQuerySet, before: datetime) -> list[str]:
        """Return the ids of those threads whose last visible message, if any, is older than `before`."""

    # Delete

    @abstractmethod
    def mark_deleted(self, threads: ThreadQuerySet, ids: Collection[str]) -> int:
        """Hide the threads of this query that have one of these ids; return their number."""

    @abstractmethod
    def mark_idle_deleted(self, threads: ThreadQuerySet, ids: Collection[str], before: datetime) -> tuple[int, int]:
        """Hide the threads with these ids that are idle; return the numbers of threads and of messages in them.

        A thread that gets a message meanwhile stays.
        """

    @abstractmethod
    def recover_idle(self) -> None:
        """Show the threads again that a crashed process left hidden in `mark_idle_deleted`."""

    @abstractmethod
    def remove_thread(self, deleted: ThreadQuerySet, now: datetime) -> int:
        """Remove the deleted thread that this query finds, after its messages; return the number of threads."""

    @abstractmethod
    def removable(self, deleted: MessageQuerySet, limit: int) -> tuple[list[Message], list[str]]:
        """Return the first rows of a query of deleted messages, and the ids of those that may be removed.

        The last message of a thread may not be removed. The rows may omit it.
        """

    @abstractmethod
    def claim(self, deleted: ThreadQuerySet) -> bool:
        """Claim a deleted thread and return whether it exists. From then on, no one else removes it or stores its id
        again.
        """


@cache
def backend() -> Backend:
    """Return the backend of the database of threads and messages."""
    from messages_app.store.documents import DocumentBackend  # they import this module
    from messages_app.store.transactional import TransactionalBackend

    database = Thread.objects.db
    can_roll_back = connection_to(database).features.supports_transactions
    return (TransactionalBackend if can_roll_back else DocumentBackend)(database)
