"""The rows of threads, messages and idempotency keys."""

from messages_app.models.idempotency import IdempotencyRecord
from messages_app.models.thread import Message, MessageQuerySet, Thread, ThreadPair, ThreadQuerySet

__all__ = ["IdempotencyRecord", "Message", "MessageQuerySet", "Thread", "ThreadPair", "ThreadQuerySet"]
