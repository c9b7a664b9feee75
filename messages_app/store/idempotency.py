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
    """A key, its tenant and path, and the request that a retry must repeat."""

    tenant: str
    path: str
    key: str
    request: bytes  # the shape and the body

    @property
    def is_valid(self) -> bool:
        return _VALID_KEY.fullmatch(self.key) is not None

    @property
    def digest(self) -> str:
        return digest_of(json.dumps([self.tenant, self.path, self.key]).encode())


class Create(Protocol):
    """A function that stores a row and returns it. With the same `origin`, it creates the same row."""

    def __call__(self, *, origin: Origin | None = None) -> Any: ...


class KeyedRequest(NamedTuple):
    """A request with an idempotency key, in the form that the backends need."""

    tenant: str
    digest: str
    fingerprint: str
    thread_id: str  # the thread of the new message; "" if the request creates a thread
    create: Create
    render: Callable[[Any], bytes]


class KeyedResponse(NamedTuple):
    """The body of a response, and whether it is a replay."""

    body: bytes
    is_replay: bool = False


def once(key: IdempotencyKey, create: Create, render: Callable[[Any], bytes], thread_id: str = "") -> KeyedResponse:
    """Run a request once, even if clients send it several times or concurrently, and return its response.

    `create` stores the row. If `thread_id` is not empty, the row is a message in that thread. `render` makes the
    response body from the row. Raises the exceptions of `create`, and InvalidKey, KeyReused and KeyInUse.
    """
    if not key.is_valid:
        if thread_id:
            backend().require_thread(key.tenant, thread_id)
        raise InvalidKey
    fingerprint = digest_of(key.request)
    return backend().once(KeyedRequest(key.tenant, key.digest, fingerprint, thread_id, create, render))


def digest_of(text: bytes) -> str:
    """Return a 256-bit hash of a text as 64 hex digits."""
    return hashlib.blake2b(text, digest_size=32).hexdigest()


def is_current(record: IdempotencyRecord, request: KeyedRequest) -> bool:
    """Return whether a record is still valid.

    It is valid if it is younger than KEYS_LAST and, if it has a response, its row still exists. Raises
    Thread.DoesNotExist if the request appends to a thread that does not exist.
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
    """Return the stored response of a record. Raises KeyReused if the record belongs to a different request."""
    if record.request != request.fingerprint:
        raise KeyReused
    return KeyedResponse(record.answer.encode(), is_replay=True)


def forget_message(message_id: str) -> None:
    """Delete the idempotency record of a deleted message. For a deleted thread, the purge deletes the records."""
    IdempotencyRecord.objects.filter(message_id=message_id).delete()
