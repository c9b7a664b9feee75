"""Idempotency keys: a retried request creates nothing and gets the first response.

Source: threads-api contract, "A retried POST must not store twice".
"""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from django.utils import timezone

from messages_app.ids import Origin
from messages_app.models import IdempotencyRecord, Message
from messages_app.store.backend import backend
from messages_app.store.errors import InvalidKey, KeyReused

# How long a key stays valid on a path.
KEYS_LAST = timedelta(hours=24)

_VALID_KEY = re.compile(r"[!-~]{1,255}")


class IdempotencyKey(NamedTuple):
    """A key, its path, and the request that a retry must repeat."""

    tenant: str
    path: str
    key: str
    request: bytes  # shape and body

    @property
    def is_valid(self) -> bool:
        return _VALID_KEY.fullmatch(self.key) is not None

    @property
    def digest(self) -> str:
        return digest_of(json.dumps([self.tenant, self.path, self.key]).encode())


class Create(Protocol):
    """A verb that stores a row and returns it. With the same `origin`, it makes the same row."""

    def __call__(self, *, origin: Origin | None = None) -> Any: ...


class KeyedRequest(NamedTuple):
    """A request with a key, as the backends need it."""

    tenant: str
    digest: str
    fingerprint: str
    thread_id: str  # of the thread to append to; "" if the request creates a thread
    create: Create
    render: Callable[[Any], bytes]


class KeyedResponse(NamedTuple):
    """The body of a response, and whether it is a replay."""

    body: bytes
    is_replay: bool = False


def once(key: IdempotencyKey, create: Create, render: Callable[[Any], bytes], thread_id: str = "") -> KeyedResponse:
    """Run a request once, however often and concurrently it is sent, and return its response.

    `create` stores the row, in the thread with `thread_id` if that is not empty. `render` makes the response body from
    the row. Raises what `create` raises, then InvalidKey, KeyReused and KeyInUse.
    """
    if not key.is_valid:
        if thread_id:
            backend().require_thread(key.tenant, thread_id)
        raise InvalidKey
    fingerprint = digest_of(key.request)
    return backend().once(KeyedRequest(key.tenant, key.digest, fingerprint, thread_id, create, render))


def digest_of(text: bytes) -> str:
    """Return 256 bits as 64 hex digits."""
    return hashlib.blake2b(text, digest_size=32).hexdigest()


def is_current(record: IdempotencyRecord, request: KeyedRequest) -> bool:
    """Return whether a record is younger than KEYS_LAST and its row, if it has one, still exists.

    Raises Thread.DoesNotExist if the thread to append to does not exist.
    """
    if record.created_at < timezone.now() - KEYS_LAST:
        return False
    if not record.answer:
        return True
    if request.thread_id:
        backend().require_thread(request.tenant, request.thread_id)
        return Message.objects.visible_in(request.thread_id).filter(id=record.message_id).exists()
    return backend().has_thread(request.tenant, record.thread_id)


def replay(record: IdempotencyRecord, request: KeyedRequest) -> KeyedResponse:
    """Return the response that a record holds. Raises KeyReused if the record belongs to a different request."""
    if record.request != request.fingerprint:
        raise KeyReused
    return KeyedResponse(record.answer.encode(), is_replay=True)


def forget_message(message_id: str) -> None:
    """Delete the record of a deleted message. The purge deletes a thread's record with the thread."""
    IdempotencyRecord.objects.filter(message_id=message_id).delete()
