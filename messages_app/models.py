"""Threads and their messages: the rows, and every write of more than one of them."""

import json
import os
from datetime import datetime
from random import Random
from typing import Any, Self

from django.db import IntegrityError, connections, models, transaction
from django.utils import timezone

from messages_app.ids import new_id, new_object_id

DEFAULT_TENANT = "default"
MAX_TENANT_CHARACTERS = 64

# How often a position that another writer took first is asked for anew. Engines that lock rows never need it.
POSITION_ATTEMPTS = 50


class UnicodeJSONEncoder(json.JSONEncoder):
    """JSON text as people wrote it: an e with an accent is stored as two bytes, not as six, and can be searched for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "ensure_ascii": False, "separators": (",", ":")})


class ThreadQuerySet(models.QuerySet["Thread"]):
    def of_tenant(self, tenant: str) -> Self:
        """What this tenant may know of: its own threads that are not deleted. Every look-up starts here."""
        return self.filter(tenant=tenant, deleted_at=None)

    def by_id(self, thread_id: str) -> "Thread":
        """The thread of that id. Raises Thread.DoesNotExist, for any text."""
        if "\0" in thread_id:  # no id has it, and PostgreSQL refuses a query with it
            raise Thread.DoesNotExist
        return self.get(id=thread_id)

    def store(self, threads: list["Thread"], messages: list["Message"]) -> int:
        """Stores new threads with their messages, all or none; returns the number of messages.

        Raises IntegrityError where one of them is there already.
        """
        with transaction.atomic(using=self.db):
            self.bulk_create(threads)
            return len(Message.objects.bulk_create(messages))


class Thread(models.Model):
    """A conversation. Belongs to one tenant; `id` and `object_id` are unique over all of them."""

    object = "thread"

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # Text, no foreign key: what knows tenants may live in another database.
    tenant = models.CharField(max_length=MAX_TENANT_CHARACTERS, default=DEFAULT_TENANT, editable=False)
    metadata = models.JSONField(default=dict, blank=True, encoder=UnicodeJSONEncoder)
    # To the second, as the API tells it: lists are in the order of (created_at, id), and the id has the milliseconds.
    created_at = models.DateTimeField("created", editable=False)
    deleted_at = models.DateTimeField("deleted", null=True, editable=False)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["tenant", "created_at", "id"], name="thread_list")]

    def __str__(self) -> str:
        return self.id

    @classmethod
    def new(cls, at: datetime | None = None, rng: Random | None = None, **fields: Any) -> Self:
        """An unsaved thread with ids of its own, of this moment or of `at`; `rng` makes them repeatable."""
        return cls(**identity("thread", at, rng), **fields)


class MessageQuerySet(models.QuerySet["Message"]):
    def append(self, tenant: str, thread_id: str, **fields: Any) -> "Message":
        """Stores a message at the end of a thread and returns it. Raises Thread.DoesNotExist, also for other tenants.

        The order of a thread's positions is the order of its commits: the thread's row is locked first (or, on SQLite,
        the database), so that the next writer sees this position before it takes its own. Where an engine has no such
        lock, the unique constraint refuses the second of two writers, which then asks again.

        Three queries in one transaction.
        """
        for _ in range(POSITION_ATTEMPTS - 1):
            try:
                return self._append(tenant, thread_id, fields)
            except IntegrityError:  # somebody was faster
                continue
        return self._append(tenant, thread_id, fields)

    def _append(self, tenant: str, thread_id: str, fields: dict[str, Any]) -> "Message":
        database = Message.objects.db
        threads = Thread.objects.of_tenant(tenant)
        if connections[database].features.has_select_for_no_key_update:
            threads = threads.select_for_update(no_key=True)
        with transaction.atomic(using=database):
            thread = threads.only("id").by_id(thread_id)
            last = self.filter(thread=thread).order_by("-position").values_list("position", flat=True).first()
            message = Message.new(thread=thread, position=(last or 0) + 1, **fields)
            message.save(force_insert=True, using=database)
            return message


class Message(models.Model):
    """One contribution to a thread. `position` orders the thread: unique in it, never reused, gapless as written."""

    class Role(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"
        TOOL_CALL = "tool_call"
        TOOL_OUTPUT = "tool_output"

    object = "thread.message"

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # No index of its own: the unique constraint's leads with it.
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, db_index=False, related_name="messages")
    position = models.PositiveBigIntegerField(editable=False)
    role = models.CharField(max_length=16, choices=Role.choices)
    # The parts as the API shows them: [{"type": "text", "text": {"value": "...", "annotations": []}}, ...].
    content = models.JSONField(encoder=UnicodeJSONEncoder)
    # [{"file_id": "...", "tools": [...]}, ...] in order; what the API calls file_ids is read from here.
    attachments = models.JSONField(default=list, blank=True, encoder=UnicodeJSONEncoder)
    assistant_id = models.CharField(max_length=256, default="", blank=True)
    run_id = models.CharField(max_length=256, default="", blank=True)
    metadata = models.JSONField(default=dict, blank=True, encoder=UnicodeJSONEncoder)
    created_at = models.DateTimeField("created", editable=False)
    deleted_at = models.DateTimeField("deleted", null=True, editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["thread", "position"], name="message_position")]

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
    def text(self) -> str:
        """The text parts, one after the other; what is not text is left out."""
        return "\n".join(part["text"]["value"] for part in self.content if part["type"] == "text")


def identity(prefix: str, at: datetime | None, rng: Random | None) -> dict[str, Any]:
    """The fields that say which row this is and when it came to be, from one look at the clock."""
    at = at or timezone.now()
    random_bytes = rng.randbytes if rng else os.urandom
    return {
        "id": new_id(prefix, at, random_bytes(10)),
        "object_id": new_object_id(at, random_bytes(8)),
        "created_at": at.replace(microsecond=0),
    }


def text_part(value: str) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": []}}
