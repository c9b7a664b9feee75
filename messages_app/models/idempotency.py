"""The record of an answered idempotency key, and what replays it: a request that is sent again stores nothing again.

Source: threads-api contract, "A retried POST must not store twice". What is made, and how it is stored and shown, is
told by the caller; a record is only found by the tenant, the path and the key.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self

from django.core.exceptions import ObjectDoesNotExist
from django.db import DataError, IntegrityError, OperationalError, models, transaction
from django.utils import timezone

from messages_app.store.engine import can_roll_back, pauses

# How long the same key on the same path gives the first answer again.
KEYS_LAST = timedelta(hours=24)

# Where nothing is rolled back: how long a record without an answer is taken for a request that is still under way.
# After that, whoever sends it again completes what its writer left.
UNDER_WAY_LASTS = timedelta(seconds=10)

_GOOD_KEY = re.compile(r"[!-~]{1,255}")


class BadKey(ValueError):
    """The key is not 1 to 255 visible ASCII characters."""


class KeyReused(ValueError):
    """The key was used on this path with another body."""


class InProgress(Exception):
    """A request with this key is under way."""


class Attempt(NamedTuple):
    """A request with a key: what its record is found by, and what it must be the same in."""

    is_good: bool
    digest: str
    request: str

    @classmethod
    def of(cls, tenant: str, path: str, key: str, shape: str, body: bytes) -> Self:
        where = json.dumps([tenant, path, key]).encode()
        return cls(_GOOD_KEY.fullmatch(key) is not None, _digest(where), _digest(shape.encode() + b"\n" + body))


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=32).hexdigest()


@dataclass(frozen=True)
class Creation:
    """How that is made which a request asks for: a thread, or a message in one.

    `identify` tells the ids of thread and message (`""`: none) that a time and a seed stand for; `require` raises what
    the request is refused with because of what is stored; `store` makes the row of that time and seed, or finds it
    where it was made before; `show` tells the bytes of its answer; `is_there` whether what a record made still is.
    """

    identify: Callable[[datetime, str], tuple[str, str]]
    require: Callable[[], None]
    store: Callable[[datetime, str], Any]
    show: Callable[[Any], bytes]
    is_there: Callable[["IdempotencyRecord"], bool]


class Answer(NamedTuple):
    body: bytes
    is_replay: bool = False


class IdempotencyRecordQuerySet(models.QuerySet["IdempotencyRecord"]):
    def forget_message(self, message_id: str) -> None:
        """Deletes what is kept for the key that made a message. That of a thread goes when the thread is purged."""
        self.filter(message_id=message_id).delete()

    def answer(self, attempt: Attempt, creation: Creation) -> Answer:
        """The answer to this request: it is made once, however many send it, one after the other or all at once.

        Raises what `creation` raises, then BadKey, KeyReused and InProgress.
        """
        if not attempt.is_good:
            creation.require()
            raise BadKey
        make = self._in_one_transaction if can_roll_back(self.db) else self._record_first
        for pause in pauses():
            try:
                answer = make(attempt, creation)
            except IntegrityError:  # somebody else with this key was faster
                answer = None
            if answer:
                return answer
            time.sleep(pause)
        raise OperationalError("too many requests with this key at once")

    def _in_one_transaction(self, attempt: Attempt, creation: Creation) -> Answer | None:
        """Record and row are there both, or neither."""
        with transaction.atomic(using=self.db):
            found = self.filter(digest=attempt.digest).first()
            if found and found.counts(creation):
                return found.replay(attempt)
            record = self._new(attempt, creation)
            answer = creation.show(creation.store(record.created_at, record.seed))
            record.answer = answer.decode()
            if found:  # not before: a purge, too, locks the thread first and then what its keys kept
                self._drop(found)
            record.save(force_insert=True, using=self.db)
        return Answer(answer)

    def _record_first(self, attempt: Attempt, creation: Creation) -> Answer | None:
        """The record says which ids the row will have, before there is one: who comes after a crash completes that."""
        record = self.filter(digest=attempt.digest).first()
        if record and not record.counts(creation):
            self._drop(record)
            record = None
        if record and record.answer:
            return record.replay(attempt)
        creation.require()
        if record is None:
            record = self._new(attempt, creation)
            record.save(force_insert=True, using=self.db)
        elif record.request != attempt.request:
            raise KeyReused
        elif record.created_at > timezone.now() - UNDER_WAY_LASTS:
            raise InProgress
        try:
            row = creation.store(record.created_at, record.seed)
        except (ObjectDoesNotExist, DataError):  # refused
            self._drop(record)
            raise
        if row.deleted_at is not None:
            self._drop(record)
            return None
        answer = creation.show(row)
        mine = self.filter(digest=record.digest, seed=record.seed)
        with suppress(DataError):  # an answer can be too large though the row is not: the next one shows the row again
            if not mine.filter(answer="").update(answer=answer.decode()) and (answered := mine.first()):
                return Answer(answered.answer.encode())  # somebody else has completed it
        return Answer(answer)

    def _new(self, attempt: Attempt, creation: Creation) -> "IdempotencyRecord":
        at, seed = _to_milliseconds(timezone.now()), os.urandom(16).hex()
        thread_id, message_id = creation.identify(at, seed)
        return IdempotencyRecord(
            digest=attempt.digest,
            request=attempt.request,
            thread_id=thread_id,
            message_id=message_id,
            seed=seed,
            created_at=at,
        )

    def _drop(self, record: "IdempotencyRecord") -> None:
        self.filter(digest=record.digest, seed=record.seed).delete()


class IdempotencyRecord(models.Model):
    """What a request with a key made, and the answer that it got."""

    # Of tenant, path and key.
    digest = models.CharField(primary_key=True, max_length=64)
    # Of the body and of the shape that was asked for.
    request = models.CharField(max_length=64)
    # The thread, and the message in it; "" where the thread itself was made.
    thread_id = models.CharField(max_length=64)
    message_id = models.CharField(max_length=64)
    # With the time, all ids follow from it.
    seed = models.CharField(max_length=32)
    created_at = models.DateTimeField()
    # "" for as long as there is none, which only those see that cannot roll back.
    answer = models.TextField(default="")

    objects = IdempotencyRecordQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="idempotency_expires"),
            models.Index(fields=["thread_id"], name="idempotency_thread"),
            models.Index(fields=["message_id"], name="idempotency_message"),
        ]

    def __str__(self) -> str:
        return self.digest

    def counts(self, creation: Creation) -> bool:
        """Whether it is of today, and what it made is still there, if it is known to be made."""
        is_of_today = self.created_at >= timezone.now() - KEYS_LAST
        return is_of_today and (not self.answer or creation.is_there(self))

    def replay(self, attempt: Attempt) -> Answer:
        if self.request != attempt.request:
            raise KeyReused
        return Answer(self.answer.encode(), is_replay=True)


def _to_milliseconds(at: datetime) -> datetime:
    """As much of a time as every engine keeps."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
