"""Rows, columns and indexes of threads, messages and idempotency keys."""

from messages_app.models.idempotency import IdempotencyRecord
from messages_app.models.message import Message, MessageFile, MessageQuerySet
from messages_app.models.thread import (
    DEFAULT_TENANT,
    MAX_METADATA_PAIRS,
    MAX_TENANT_CHARACTERS,
    NO_TENANT,
    Thread,
    ThreadPair,
    ThreadQuerySet,
)

__all__ = [
    "DEFAULT_TENANT",
    "MAX_METADATA_PAIRS",
    "MAX_TENANT_CHARACTERS",
    "NO_TENANT",
    "IdempotencyRecord",
    "Message",
    "MessageFile",
    "MessageQuerySet",
    "Thread",
    "ThreadPair",
    "ThreadQuerySet",
]
