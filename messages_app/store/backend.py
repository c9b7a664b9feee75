"""The interface of the two backends: for engines with transactions and without. `backend()` chooses one of them.

A backend contains only code that differs between engines. All other code is in the modules that call the backend
(threads.py, messages.py, ...).
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
    """Return the query for a tenant's thread with this id, if the thread is not deleted."""
    return Thread.objects.visible(tenant).filter(id=thread_id)


class Backend(ABC):
    """The base class of both backends. `database` is the alias of the database with threads and messages."""

    def __init__(self, database: str) -> None:
        self.database = database

    @property
    def features(self) -> EngineFeatures:
        """The features of the database connection. Each Python thread has its own connection.

        Not cached, because a cached object would keep the connection of a Python thread that has ended.
        """
        return connection_to(self.database).features

    # Threads by id

    def thread(self, tenant: str, thread_id: str) -> Thread:
        """Return a thread of a tenant. One query. Raises Thread.DoesNotExist."""
        for thread in self._thread_query.rows(tenant=tenant, thread_id=thread_id):
            return thread  # type: ignore[no-any-return]
        raise Thread.DoesNotExist

    def require_thread(self, tenant: str, thread_id: str) -> None:
        """Raise Thread.DoesNotExist if the tenant has no such thread. One query."""
        if not self.has_thread(tenant, thread_id):
            raise Thread.DoesNotExist

    def has_thread(self, tenant: str, thread_id: str) -> bool:
        """Return whether the tenant has this thread. One query."""
        return bool(self._thread_id_query.rows(tenant=tenant, thread_id=thread_id))

    @cached_property
    def _thread_query(self) -> CompiledQuery:
        return CompiledQuery(visible_thread, tenant=str, thread_id=str)

    @cached_property
    def _thread_id_query(self) -> CompiledQuery:
        return CompiledQuery(lambda **values: visible_thread(**values).values_list("id"), tenant=str, thread_id=str)

    @cached_property
    def _last_position_query(self) -> CompiledQuery:
        """The query for the last position in a thread.

        It includes deleted messages, because positions are never reused.
        """
        messages = Message.objects.order_by("-position").values_list("position")
        return CompiledQuery(lambda thread_id: messages.filter(thread_id=thread_id)[:1], thread_id=str)

    # Write

    @abstractmethod
    def store(self, threads: Collection[Thread], messages: Collection[Message]) -> int:
        """Store all of these new threads and messages, or none of them. Return the number of messages.

        Raises IntegrityError if one of them is already stored.
        """

    @abstractmethod
    def store_once(self, thread: Thread, messages: Collection[Message]) -> Thread:
        """Store a new thread and return it as it is now stored. An earlier attempt may have stored a part of it."""

    @abstractmethod
    def append(self, tenant: str, thread_id: str, content: dict[str, Any], origin: Origin | None) -> Message:
        """Store a message at the end of a thread and return it. Positions are in the order of commits.

        If an earlier attempt with the same `origin` stored the message, return that message. Raises
        Thread.DoesNotExist.
        """

    @abstractmethod
    def once(self, request: "KeyedRequest") -> "KeyedResponse":
        """Create the row of a request. Later requests with the same key create nothing. See store/idempotency.py."""

    @abstractmethod
    def attempt(self, write: Callable[[], Result], is_rejected: Callable[[], bool] = lambda: False) -> Result:
        """Run a function whose writes belong together, and return its result. The function may run several times.

        `write` raises IntegrityError if it conflicts with another writer. If `is_rejected` then returns True, the error
        has a different cause, and a new attempt would fail again.
        """

    @abstractmethod
    def roll_back_if_deleted(self, tenant: str, thread_id: str, message_ids: Collection[str]) -> None:
        """Check a thread after storing messages in it.

        If the thread was deleted in the meantime, remove these messages and raise Thread.DoesNotExist.
        """

    def lock(self, rows: QuerySet[Any]) -> Any:
        """Return the query. If the engine has row locks, the query locks its rows until the transaction ends."""
        return rows

    @abstractmethod
    def replace_metadata(self, row: Any, metadata: dict[str, str]) -> None:
        """Replace the metadata of a row.

        Raises IntegrityError if another writer has changed it since the row was read.
        """

    # Read

    @abstractmethod
    def visible_messages(self, tenant: str, thread_id: str) -> MessageQuerySet:
        """Return the query for a thread's messages that are not deleted. Pass its rows to `in_thread`."""

    @abstractmethod
    def in_thread(self, tenant: str, thread_id: str, rows: list[Message]) -> list[Message]:
        """Return these rows of `visible_messages` if the thread exists.

        May need another query. Raises Thread.DoesNotExist.
        """

    @abstractmethod
    def threads_with(self, tenant: str, pairs: Mapping[str, str], window: Window) -> list[Thread]:
        """Return a window of the tenant's threads whose metadata has all of these 1 to 16 pairs.

        Positions are (created_at, id).
        """

    @abstractmethod
    def contains(self, word: str) -> Q:
        """Return a condition for messages that contain a word, ignoring case.

        It may also match a few other messages.
        """

    @abstractmethod
    def idle(self, threads: ThreadQuerySet, before: datetime) -> list[str]:
        """Return the ids of those threads that have no visible message, or whose last one is older than `before`."""

    # Delete

    @abstractmethod
    def mark_deleted(self, threads: ThreadQuerySet, ids: Collection[str]) -> int:
        """Mark the threads of this query as deleted, which hides them.

        Return their number. `ids` are the ids of the threads.
        """

    @abstractmethod
    def mark_idle_deleted(self, threads: ThreadQuerySet, ids: Collection[str], before: datetime) -> tuple[int, int]:
        """Mark the idle threads among these ids as deleted. Return the numbers of threads and messages.

        Does not delete a thread that has received a message in the meantime.
        """

    @abstractmethod
    def recover_idle(self) -> None:
        """Make all threads visible again that a crashed process left hidden in `mark_idle_deleted`."""

    @abstractmethod
    def remove_thread(self, deleted: ThreadQuerySet, now: datetime) -> int:
        """Remove the deleted thread that this query finds, after its messages are removed.

        Return the number of threads.
        """

    @abstractmethod
    def removable(self, deleted: MessageQuerySet, limit: int) -> tuple[list[Message], list[str]]:
        """Return the first rows of a query for deleted messages, and the ids of the messages that may be removed.

        A thread's last message must stay, because a new message gets the position after it. The rows may omit it.
        """

    @abstractmethod
    def claim(self, deleted: ThreadQuerySet) -> bool:
        """Claim a deleted thread and return whether it exists.

        After that, no other process removes the thread or stores a thread with its id.
        """


@cache
def backend() -> Backend:
    """Return the backend for the database with threads and messages."""
    from messages_app.store.documents import DocumentBackend  # not at the top of the file: both modules import this one
    from messages_app.store.transactional import TransactionalBackend

    database = Thread.objects.db
    can_roll_back = connection_to(database).features.supports_transactions
    return (TransactionalBackend if can_roll_back else DocumentBackend)(database)
