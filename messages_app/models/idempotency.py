"""Records of idempotency keys."""

from django.db import models


class IdempotencyRecord(models.Model):
    """The row that a request with an Idempotency-Key created, and the response to that request."""

    # Of tenant, path and key.
    digest = models.CharField(primary_key=True, max_length=64)
    # Of the body and the shape of the request: a retry must have the same.
    request = models.CharField(max_length=64)
    # The thread, and the message in it; "" where the thread itself was created.
    thread_id = models.CharField(max_length=64)
    message_id = models.CharField(max_length=64)
    # Identifies this record among all records with its digest. Without transactions, the ids of the rows are derived
    # from it and from created_at.
    seed = models.CharField(max_length=32)
    created_at = models.DateTimeField()
    # The body of the response. Without transactions, it is "" until the response is known.
    answer = models.TextField(default="")

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="idempotency_expires"),
            models.Index(fields=["thread_id"], name="idempotency_thread"),
            models.Index(fields=["message_id"], name="idempotency_message"),
        ]

    def __str__(self) -> str:
        return self.digest
