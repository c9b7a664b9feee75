"""Threads, and the index rows that find threads by metadata."""

import hashlib
import json
from collections.abc import Iterable
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from messages_app.models.base import FastModel, OrderedQuerySet
from messages_app.models.fields import PairsField

DEFAULT_TENANT: str = settings.DEFAULT_TENANT
MAX_TENANT_CHARACTERS: int = settings.MAX_TENANT_CHARACTERS
MAX_METADATA_PAIRS = 16
# MongoDB keeps the row of a removed thread for a while, to reserve its id. The row then has this tenant.
NO_TENANT = ""


class ThreadQuerySet(OrderedQuerySet["Thread"]):
    order = ("created_at", "id")

    def visible(self, tenant: str | None) -> Self:
        """Return the threads that are not deleted, of one tenant or (None) of all tenants.

        Every lookup of the API starts with this query.
        """
        rows = self.filter(deleted_at=None)
        return rows if tenant is None else rows.filter(tenant=tenant)

    def being_deleted(self) -> Self:
        """Return the deleted threads whose messages may still be stored.

        They are few, because the purge soon removes them.
        """
        return self.filter(deleted_at__isnull=False).exclude(tenant=NO_TENANT)


class Thread(FastModel):
    """A conversation of one tenant. `id` and `object_id` are unique across all tenants."""

    id = models.CharField(primary_key=True, max_length=64, editable=False)
    object_id = models.CharField("_id", db_column="_id", max_length=24, editable=False)
    # Not a foreign key: tenants have no table. API keys also contain tenant names, but may be in another database.
    tenant = models.CharField(max_length=MAX_TENANT_CHARACTERS, default=DEFAULT_TENANT, editable=False)
    metadata = PairsField(default=dict, blank=True)
    # In whole seconds, as in the API. Lists are sorted by (created_at, id). The id contains the milliseconds, so lists
    # also sort threads of the same second by time.
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

    def new_pairs(self) -> Iterable["ThreadPair"]:
        """Yield the unsaved index rows for the metadata of this thread."""
        for key, value in self.metadata.items():
            digest = digest_of_pair(self.tenant, key, value)
            yield ThreadPair(thread_id=self.id, digest=digest, created_at=self.created_at)


def digest_of_pair(tenant: str, key: str, value: str) -> str:
    """Return a 128-bit hash, as 32 hex digits, of a tenant and a metadata pair.

    The index stores this hash instead of the pair, which keeps the index small.
    """
    return hashlib.blake2b(json.dumps([tenant, key, value]).encode(), digest_size=16).hexdigest()


class ThreadPairQuerySet(OrderedQuerySet["ThreadPair"]):
    order = ("created_at", "thread_id")


class ThreadPair(models.Model):
    """One pair of a thread's metadata. These rows are the index that finds threads by metadata.

    No SQL engine can index arbitrary keys of a JSON value in the order of a list. A transaction that changes a thread's
    metadata also changes these rows. Engines without transactions have no such table, because they index the documents.
    """

    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, db_index=False, related_name="pairs")
    digest = models.CharField(max_length=32)
    created_at = models.DateTimeField()  # copied from the thread, so that the index can sort by it

    objects = ThreadPairQuerySet.as_manager()

    class Meta:
        required_db_features = ["supports_transactions"]
        constraints = [models.UniqueConstraint(fields=["thread", "digest"], name="thread_pair")]
        indexes = [models.Index(fields=["digest", "created_at", "thread"], name="thread_by_pair")]

    def __str__(self) -> str:
        return f"{self.thread_id} {self.digest}"
