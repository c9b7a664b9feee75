"""Records of idempotency keys."""

from django.db import models


class IdempotencyRecord(models.Model):
    """A request with an Idempotency-Key: the row that the request created, and its response."""

    # A hash of the tenant, path and key.
    digest = models.CharField(primary_key=True, max_length=64)
    # A hash of the request's shape and body. A retry must have the same hash.
    request = models.CharField(max_length=64)
    # The created row. `message_id` is "" if the request created a thread.
    thread_id = models.CharField(max_length=64)
    message_id = models.CharField(max_length=64)
    # Distinguishes this record from earlier and later records with the same digest. On an engine without
    # transactions, the ids of the created rows are derived from `seed` and `created_at`.
    seed = models.CharField(max_length=32)
    created_at = models.DateTimeField()
    # The body of the response. On an engine without transactions, it is "" until the request is completed.
    answer = models.TextField(default="")

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="idempotency_expires"),
            models.Index(fields=["thread_id"], name="idempotency_thread"),
            models.Index(fields=["message_id"], name="idempotency_message"),
        ]

    def __str__(self) -> str:
        return self.digest
