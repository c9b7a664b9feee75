"""Threads and their messages: the rows, and every write of more than one of them."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, ClassVar, NamedTuple, Self

from django.conf import settings
from django.db import Error, IntegrityError, OperationalError, models, transaction
from django.db.models import Count, Max, Min, OuterRef, Q, Subquery
from django.utils import timezone

from messages_app.ids import new_id, new_object_id, system_bytes
from messages_app.models.base import MAX_METADATA_PAIRS, QuickModel, RowQuerySet
from messages_app.models.fields import DocumentField, PairsField
from messages_app.models.idempotency import IdempotencyRecord
from messages_app.store.bulk import insert_of, takes_rows
from messages_app.store.engine import can_roll_back

DEFAULT_TENANT = settings.DEFAULT_TENANT
MAX_TENANT_CHARACTERS = settings.MAX_TENANT_CHARACTERS
NOBODY = ""  # the tenant of a thread of which nothing is left but its id

# Where nothing is rolled back, a thread is hidden until all of it is stored: until then it counts as deleted at this
# time in the future. If its writer dies, that time comes, and purge removes it.
UNFINISHED_LASTS = timedelta(hours=1)

# There, too, an idle thread is hidden from such a time on before it is deleted, so that nobody writes to it. That time
# does not come: purge removes nothing of which it is not decided.
UNDECIDED = datetime(9999, 1, 1, tzinfo=UTC)

# How many messages are removed in one transaction, for which other writers may have to wait.
REMOVED_AT_ONCE = 100

# To how many threads a pair is rare.
COUNTED_PAIRS = 200


class ThreadQuerySet(RowQuerySet["Thread"]):
    place = ("created_at", "id")

    def of_tenant(self, tenant: str) -> Self:
        """What this tenant may know of: its own threads that are not deleted. Every look-up starts here."""
        return self.filter(tenant=tenant, deleted_at=None)

    def visible(self, tenant: str | None = None) -> Self:
        """What operators may know of: the threads of all tenants, or of one, that are not deleted."""
        return self.filter(deleted_at=None) if tenant is None else self.of_tenant(tenant)

    def leaving(self) -> Self:
        """Those that are deleted and whose messages may not be removed yet: few, for a moment."""
        return self.filter(deleted_at__isnull=False).exclude(tenant=NOBODY)

    def require(self, thread_id: str) -> None:
        """Raises Thread.DoesNotExist where there is no such thread."""
        self.only("id").by_id(thread_id)

    def store(self, threads: Collection["Thread"], messages: Collection["Message"] = ()) -> int:
        """Stores new threads with their messages, all or none; returns the number of messages.

        Raises IntegrityError where one of them is there already.
        """
        if not can_roll_back(self.db):
            return self._store_hidden(threads, messages)
        with transaction.atomic(using=self.db):
            self.bulk_create(threads)
            ThreadPair.objects.bulk_create(pair for thread in threads for pair in thread.new_pairs())
            return len(Message.objects.bulk_create(messages))

    def store_rows(self, threads: Collection["Thread"], messages: Collection["MessageRow"]) -> int:
        """`store` of thousands."""
        if not takes_rows(self.db):
            return self.store(threads, [row.message for row in messages])
        pairs = ((thread.id, digest, thread.created_at) for thread in threads for digest in thread.digests())
        with transaction.atomic(using=self.db):
            insert_of(Thread, self.db).instances(threads)
            insert_of(ThreadPair, self.db).rows(pairs)
            return insert_of(Message, self.db).rows(messages)

    def _store_hidden(self, threads: Collection["Thread"], messages: Collection["Message"]) -> int:
        """`store` where nothing is rolled back: until its last write, which shows it, a thread is out of sight."""
        is_one_write = not messages and len(threads) <= 1
        hidden = None if is_one_write else timezone.now() + UNFINISHED_LASTS
        for thread in threads:
            thread.deleted_at = hidden
        unfinished = self.filter(id__in=[thread.id for thread in threads], deleted_at=hidden)
        try:
            self.bulk_create(threads)
            stored = len(Message.objects.bulk_create(messages))
            if hidden and unfinished.update(deleted_at=None) < len(threads):
                raise OperationalError("somebody else removed or stored the same thread meanwhile")
        except Error as error:
            # Where the engine is away, it stays hidden, and is removed when its time comes.
            if hidden and not isinstance(error, OperationalError):
                with suppress(Error):
                    unfinished.update(deleted_at=timezone.now())
            raise
        for thread in threads:
            thread.deleted_at = None
        return stored

    def store_once(self, thread: "Thread", messages: Collection["Message"]) -> "Thread":
        """`store` of what another writer may have stored, or a part of it; returns the thread as it is now."""
        try:
            self.store([thread], messages)
        except IntegrityError:
            if can_roll_back(self.db):
                raise
            return self._finish(thread, messages)
        return thread

    def _finish(self, thread: "Thread", messages: Collection["Message"]) -> "Thread":
        """Stores those messages of a hidden thread that are missing, and shows it. One that is deleted stays so."""
        there = self.filter(id=thread.id).first()
        if there and (there.deleted_at is None or there.deleted_at <= timezone.now() or there.tenant == NOBODY):
            return there
        stored = set(Message.objects.filter(thread=thread).values_list("id", flat=True))
        with suppress(IntegrityError):
            Message.objects.bulk_create(message for message in messages if message.id not in stored)
            if there and self.filter(id=there.id, deleted_at=there.deleted_at).update(deleted_at=None):
                there.deleted_at = None
                return there
        raise OperationalError("somebody else stores the same thread meanwhile")

    def mark_deleted(self, thread_id: str) -> None:
        """Makes a thread and all in it invisible to everybody, by one write of its row; `purge` removes them.

        Raises Thread.DoesNotExist.
        """
        with transaction.atomic(using=self.db):  # on SQLite, what is not in a transaction does not queue
            if not self.named(id=thread_id).mark_all_deleted([thread_id]):
                raise Thread.DoesNotExist

    def mark_all_deleted(self, thread_ids: Collection[str]) -> int:
        """Marks the threads of this query, in the transaction that is open; their ids are these, or there are none."""
        marked = self.update(deleted_at=timezone.now(), metadata={})
        if marked and can_roll_back(self.db):
            ThreadPair.objects.filter(thread__in=thread_ids).delete()
        return marked

    def replace_metadata(self, row: "Thread", metadata: dict[str, str]) -> bool:
        replaced = super().replace_metadata(row, metadata)
        if can_roll_back(self.db):
            row.pairs.all().delete()
            ThreadPair.objects.bulk_create(row.new_pairs())
        return replaced

    def tenants(self, at_most: int) -> list[str]:
        """The tenants that have threads, by name. One query each, and one more: none reads more than one row."""
        found: list[str] = []
        threads = self.filter(deleted_at=None).order_by("tenant").values_list("tenant", flat=True)
        while len(found) < at_most:
            tenant = (threads.filter(tenant__gt=found[-1]) if found else threads).first()
            if tenant is None:
                break
            found.append(tenant)
        return found

    def matching(self, tenant: str, pairs: Mapping[str, str]) -> "ThreadQuerySet | ThreadPairQuerySet":
        """What lists those of a tenant's threads whose metadata has all of these pairs (one at least)."""
        if len(pairs) > MAX_METADATA_PAIRS:
            return self.none()
        if can_roll_back(self.db):
            return ThreadPair.objects.matching(tenant, pairs)
        return self.of_tenant(tenant).filter(metadata__contains=dict(pairs))


class Activity(NamedTuple):
    """What there is in a thread: how many messages, and the positions of the first and the last of them."""

    messages: int
    first: int
    last: int


class Thread(QuickModel):
    """A conversation. Belongs to one tenant; `id` and `object_id` are unique over all of them."""

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # Text, no foreign key: what knows tenants may live in another database.
    tenant = models.CharField(max_length=MAX_TENANT_CHARACTERS, default=DEFAULT_TENANT, editable=False)
    metadata = PairsField(default=dict, blank=True)
    # To the second, as the API tells it: lists are in the order of (created_at, id), and the id has the milliseconds.
    created_at = models.DateTimeField("created", editable=False)
    deleted_at = models.DateTimeField("deleted", null=True, editable=False)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["tenant", "created_at", "id"], condition=Q(deleted_at=None), name="thread_list"),
            models.Index(fields=["created_at", "id"], condition=Q(deleted_at=None), name="thread_by_time"),
            models.Index(fields=["deleted_at"], condition=Q(deleted_at__isnull=False), name="thread_deleted"),
        ]

    def __str__(self) -> str:
        return self.id

    @classmethod
    def new(cls, at: datetime | None = None, rng: Random | None = None, **fields: Any) -> Self:
        """An unsaved thread with ids of its own, of this moment or of `at`; `rng` makes them repeatable."""
        return cls(**identity("thread", at, rng), **fields)

    def digests(self) -> Iterable[str]:
        """What stands for the pairs of its metadata."""
        return (digest_of_pair(self.tenant, key, value) for key, value in self.metadata.items())

    def new_pairs(self) -> Iterable["ThreadPair"]:
        """Unsaved rows by which a thread of this metadata is found."""
        return (ThreadPair(thread_id=self.id, digest=digest, created_at=self.created_at) for digest in self.digests())


def digest_of_pair(tenant: str, key: str, value: str) -> str:
    """128 bits that stand for a pair of a tenant's: short, and of one length, which indexes like."""
    return hashlib.blake2b(json.dumps([tenant, key, value]).encode(), digest_size=16).hexdigest()


class ThreadPairQuerySet(RowQuerySet["ThreadPair"]):
    place = ("created_at", "thread_id")

    def matching(self, tenant: str, pairs: Mapping[str, str]) -> Self:
        """Those of the tenant's threads whose metadata has all of these pairs (1 to 16)."""
        digests = [digest_of_pair(tenant, key, value) for key, value in pairs.items()]
        rarest = min(digests, key=self.frequency) if len(digests) > 1 else digests[0]
        rows = self.filter(digest=rarest, thread__deleted_at=None).select_related("thread")
        if len(digests) == 1:
            return rows
        # A number instead of one EXISTS a pair, which PostgreSQL would take long to plan.
        of_thread = ThreadPair.objects.filter(thread=OuterRef("thread"), digest__in=digests).order_by()
        found = of_thread.values("thread").annotate(number=Count("*")).values("number")
        return rows.alias(found=Subquery(found)).filter(found=len(digests))

    def frequency(self, digest: str) -> int:
        """How many threads have a pair, counted no further than tells a rare one from a common one. One query."""
        return self.filter(digest=digest)[:COUNTED_PAIRS].count()

    def between(self, low: Any, high: Any, *, descending: bool, limit: int) -> list[Any]:
        return [pair.thread for pair in super().between(low, high, descending=descending, limit=limit)]


class ThreadPair(models.Model):
    """One pair of a thread's metadata, by which the thread is found: what an index of the engine's own would be.

    No SQL engine can index any key of a JSON value in the order of a list. Kept up in the thread's own transactions:
    an engine without them has no such rows, and an index of documents instead.
    """

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, db_index=False, related_name="pairs")
    digest = models.CharField(max_length=32)
    created_at = models.DateTimeField()  # the thread's

    objects = ThreadPairQuerySet.as_manager()

    class Meta:
        required_db_features = ["supports_transactions"]
        constraints = [models.UniqueConstraint(fields=["thread", "digest"], name="thread_pair")]
        indexes = [models.Index(fields=["digest", "created_at", "thread"], name="thread_by_pair")]

    def __str__(self) -> str:
        return f"{self.thread_id} {self.digest}"


class MessageQuerySet(RowQuerySet["Message"]):
    place: ClassVar[tuple[str, ...]] = ("position",)

    def visible_in(self, thread_id: str) -> Self:
        """The messages of a thread that are not deleted; whether the thread is there is for the caller to ask."""
        return self.named(thread_id=thread_id).filter(deleted_at=None)

    def last_position(self, thread_id: str) -> int | None:
        """The highest position that was given in a thread, also to a message that is deleted by now."""
        of_thread = Message.objects.filter(thread_id=thread_id)
        return of_thread.order_by("-position").values_list("position", flat=True).first()

    def activity(self, thread_ids: Iterable[str]) -> dict[str, Activity]:
        """What there is in these threads; those without messages are left out. One query, in an index alone."""
        visible = self.filter(thread__in=thread_ids, deleted_at=None).order_by()
        counted = visible.values_list("thread").annotate(Count("position"), Min("position"), Max("position"))
        return {thread_id: Activity(*numbers) for thread_id, *numbers in counted}

    def at(self, places: Iterable[tuple[str, int]]) -> Self:
        """The messages at these positions of threads."""
        either = Q()
        for thread_id, position in places:
            either |= Q(thread=thread_id, position=position)
        return self.filter(either) if either else self.none()

    def erase(self, message_id: str) -> None:
        """Deletes a message: by one write it is invisible, and all of it gone but its ids, its times and its position.

        What is left is a place in the thread, which cursors may name. Raises Message.DoesNotExist.
        """
        with transaction.atomic(using=self.db):  # on SQLite, what is not in a transaction does not queue
            left: dict[str, Any] = {
                "role": "",
                "content": [],
                "attachments": [],
                "assistant_id": "",
                "run_id": None,
                "metadata": {},
            }
            if not self.named(id=message_id).update(deleted_at=timezone.now(), **left):
                raise Message.DoesNotExist
            IdempotencyRecord.objects.forget_message(message_id)

    def remove_some(self) -> int | None:
        """Removes the first rows of this query in one short transaction; returns how many, None where it has none."""
        with transaction.atomic(using=self.db):
            ids = list(self.values_list("id", flat=True)[:REMOVED_AT_ONCE])
            return Message.objects.filter(id__in=ids).delete()[0] if ids else None


class MessageByTimeQuerySet(MessageQuerySet):
    """Messages of all threads, in the order of their times."""

    place = ("created_at", "id")


class Message(QuickModel):
    """One contribution to a thread. `position` orders the thread: unique in it, never reused, gapless as written."""

    class Role(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"
        TOOL_CALL = "tool_call"
        TOOL_OUTPUT = "tool_output"

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # No index of its own: the unique constraint's leads with it.
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, db_index=False, related_name="messages")
    position = models.PositiveBigIntegerField(editable=False)
    role = models.CharField(max_length=16, choices=Role.choices)
    # The parts as the API shows them: [{"type": "text", "text": {"value": "...", "annotations": []}}, ...].
    content = DocumentField()
    # [{"file_id": "...", "tools": [...]}, ...] in order; what the API calls file_ids is read from here.
    attachments = DocumentField(default=list, blank=True)
    assistant_id = models.CharField(max_length=256, default="", blank=True)
    # null where there is none, so that its index holds only what a run wrote.
    run_id = models.CharField(max_length=256, null=True, blank=True)  # noqa: DJ001
    metadata = PairsField(default=dict, blank=True)
    created_at = models.DateTimeField("created", editable=False)
    deleted_at = models.DateTimeField("deleted", null=True, editable=False)

    objects = MessageQuerySet.as_manager()
    by_time = MessageByTimeQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["thread", "position"], name="message_position")]
        indexes = [
            models.Index(fields=["thread", "position"], condition=Q(deleted_at=None), name="message_list"),
            models.Index(
                fields=["thread", "run_id", "position"], condition=Q(run_id__isnull=False), name="message_run"
            ),
            models.Index(fields=["deleted_at", "id"], condition=Q(deleted_at__isnull=False), name="message_deleted"),
            models.Index(fields=["created_at", "id"], condition=Q(deleted_at=None), name="message_by_time"),
            models.Index(
                fields=["run_id", "created_at", "id"], condition=Q(run_id__isnull=False), name="message_by_run"
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @classmethod
    def new(cls, at: datetime | None = None, rng: Random | None = None, **fields: Any) -> Self:
        """An unsaved message with ids of its own, of this moment or of `at`; `rng` makes them repeatable."""
        return cls(**identity("msg", at, rng), **fields)

    @property
    def file_ids(self) -> list[str]:
        return [attachment["file_id"] for attachment in self.attachments]

    @property
    def files(self) -> list["MessageFile"]:
        """The files in order, each id once."""
        return [MessageFile(file_id, self.id, self.created_at) for file_id in dict.fromkeys(self.file_ids)]

    @property
    def text(self) -> str:
        """The parts one after the other, for people: texts as they are, a line that names it for what is not text."""
        lines = []
        for part in self.content:
            kind = part["type"]
            value = part[kind]
            lines.append(value["value"] if kind == "text" else f"[{kind}: {value.get('url') or value.get('file_id')}]")
        return "\n".join(lines)


class MessageRow(NamedTuple):
    """A message that is not stored yet: the values of its columns, in their order.

    What makes millions of them makes these: an instance takes ten times as long.
    """

    id: str
    object_id: str
    thread_id: str
    position: int
    role: str
    content: list[dict[str, Any]]
    attachments: list[dict[str, Any]]
    assistant_id: str
    run_id: str | None
    metadata: dict[str, str]
    created_at: datetime
    deleted_at: datetime | None = None

    @property
    def message(self) -> Message:
        return Message(**self._asdict())


class MessageFile(NamedTuple):
    """A file of a message: no more is known of it than that."""

    id: str
    message_id: str
    created_at: datetime


def identity(prefix: str, at: datetime | None, rng: Random | None) -> dict[str, Any]:
    """The fields that say which row this is and when it came to be, from one look at the clock."""
    at = at or timezone.now()
    take = rng.randbytes if rng else system_bytes.take
    return {
        "id": new_id(prefix, at, take(10)),
        "object_id": new_object_id(at, take(8)),
        "created_at": at.replace(microsecond=0),
    }


def seeded(seed: str | None) -> Random | None:
    """What makes ids that follow from a seed; the seed itself is no weaker than ids are."""
    return Random(seed) if seed else None  # noqa: S311


def id_of_seed(prefix: str, at: datetime, seed: str) -> str:
    """The first id that a time and a seed make."""
    public_id: str = identity(prefix, at, seeded(seed))["id"]
    return public_id


def text_part(value: str) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": []}}
