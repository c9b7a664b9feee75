"""Messages and their files."""

from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Self

from django.db import models
from django.db.models import Q

from messages_app.models.base import FastModel, OrderedQuerySet
from messages_app.models.content import text_of
from messages_app.models.fields import DocumentField, PairsField
from messages_app.models.thread import Thread


class MessageQuerySet(OrderedQuerySet["Message"]):
    order: ClassVar[tuple[str, ...]] = ("position",)

    def visible_in(self, thread_id: str) -> Self:
        """Return the messages of a thread that are not deleted. Does not check whether the thread is deleted."""
        return self.named(thread_id=thread_id).filter(deleted_at=None)


class MessageByTimeQuerySet(MessageQuerySet):
    """Messages of all threads, ordered by time."""

    order = ("created_at", "id")


class Message(FastModel):
    """A message in a thread.

    `position` orders a thread's messages. Positions are unique, have no gaps, and are never reused.
    """

    class Role(models.TextChoices):
        USER = "user"
        ASSISTANT = "assistant"
        TOOL_CALL = "tool_call"
        TOOL_OUTPUT = "tool_output"

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # Needs no index of its own, because the index of the unique constraint starts with this column.
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, db_index=False, related_name="messages")
    position = models.PositiveBigIntegerField(editable=False)
    role = models.CharField(max_length=16, choices=Role.choices)
    # The parts in the form of the API: [{"type": "text", "text": {"value": "...", "annotations": []}}, ...].
    content = DocumentField()
    # [{"file_id": "...", "tools": [...]}, ...], in order. The API's `file_ids` is derived from this column.
    attachments = DocumentField(default=list, blank=True)
    assistant_id = models.CharField(max_length=256, default="", blank=True)
    # NULL instead of "" if there is no run, so that the index of runs contains only messages with a run.
    run_id = models.CharField(max_length=256, null=True, blank=True)  # noqa: DJ001
    metadata = PairsField(default=dict, blank=True)
    created_at = models.DateTimeField("created", editable=False)
    deleted_at = models.DateTimeField("deleted", null=True, editable=False)

    objects = MessageQuerySet.as_manager()
    by_time = MessageByTimeQuerySet.as_manager()

    # The ids, positions and times of a message. All other columns are its content. Code that stores, compares, exports
    # or erases messages derives its columns from these lists, so a new column needs no other change.
    PLACE_FIELDS: ClassVar = ("id", "object_id", "thread_id", "position", "created_at", "deleted_at")
    CONTENT_FIELDS: ClassVar[tuple[str, ...]]  # set below, after the model is complete

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
    def empty_content(cls) -> dict[str, Any]:
        """Return the empty values that replace a message's content when the message is deleted."""
        return {name: cls.DEFAULTS[name]() for name in cls.CONTENT_FIELDS}

    @property
    def file_ids(self) -> list[str]:
        return [attachment["file_id"] for attachment in self.attachments]

    @property
    def files(self) -> list["MessageFile"]:
        """The message's files in order, without repeated ids."""
        return [MessageFile(file_id, self.id, self.created_at) for file_id in dict.fromkeys(self.file_ids)]

    @property
    def text(self) -> str:
        """The content as plain text for display."""
        return text_of(self.content)


_CONTENT = [field for field in Message._meta.concrete_fields if field.attname not in Message.PLACE_FIELDS]
Message.CONTENT_FIELDS = tuple(field.attname for field in _CONTENT)
Message.DEFAULTS = {**Message.DEFAULTS, **{field.attname: field.get_default for field in _CONTENT}}


class MessageFile(NamedTuple):
    """A file that a message refers to. The service does not store files, so it knows only these attributes."""

    id: str
    message_id: str
    created_at: datetime
