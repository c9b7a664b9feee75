"""API keys: their tenants and rights. Only the hash of a key is stored."""

import re
from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework_api_key import crypto

KEY_MARK = "tsk_"
PREFIX_CHARACTERS = 8
SECRET_CHARACTERS = 40  # each is one of 62 characters, so the secret has 238 random bits

MAX_NAME_CHARACTERS = 50

_KEY = re.compile(rf"{KEY_MARK}([0-9A-Za-z]{{{PREFIX_CHARACTERS}}})_[0-9A-Za-z]{{{SECRET_CHARACTERS}}}")


class KeyGenerator(crypto.KeyGenerator):
    """Generates keys that a double click selects completely, and that scanners for leaked secrets recognize."""

    def __init__(self) -> None:
        super().__init__(prefix_length=PREFIX_CHARACTERS, secret_key_length=SECRET_CHARACTERS)

    def generate(self) -> tuple[str, str, str]:
        prefix = self.get_prefix()
        key = f"{KEY_MARK}{prefix}_{self.get_secret_key()}"
        return key, prefix, self.hash(key)


def validate_text(text: str) -> None:
    """Raise ValidationError for text that not every engine can store."""
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError("Null and surrogate characters are not allowed.")


class APIKeyQuerySet(models.QuerySet["APIKey"]):
    def usable(self, key: str) -> "APIKey":
        """Return the row of an active key. Raises DoesNotExist for any other string. One query, by primary key.

        Each request with a key calls this method. It uses raw SQL, because compiling the query with the ORM takes
        longer than running it on SQLite.
        """
        form = _KEY.fullmatch(key)
        if form:
            sql = f"SELECT * FROM {APIKey._meta.db_table} WHERE prefix = %s"  # noqa: S608  # a constant name
            for row in self.raw(sql, [form[1]]):
                if APIKey.generator.verify(key, row.hashed_key) and row.state == "active":
                    return row
        raise APIKey.DoesNotExist

    def used(self, prefix: str, at: datetime) -> None:
        """Record a use of a key, unless a later use is already recorded."""
        with transaction.atomic():
            self.filter(prefix=prefix).exclude(last_used_at__gte=at).update(last_used_at=at)

    def in_state(self, state: str) -> Self:
        """Return the keys with the state "active", "expired" or "revoked"."""
        expired = Q(revoked_at=None, expires_at__lte=timezone.now())
        match state:
            case "revoked":
                return self.filter(revoked_at__isnull=False)
            case "expired":
                return self.filter(expired)
        return self.filter(revoked_at=None).exclude(expired)


class APIKey(models.Model):
    """An API key of one tenant. It can be revoked, but not changed or deleted, because its row is a record."""

    prefix = models.CharField(primary_key=True, max_length=PREFIX_CHARACTERS, editable=False)
    hashed_key = models.CharField(max_length=150, editable=False)
    name = models.CharField(
        max_length=MAX_NAME_CHARACTERS, validators=[validate_text], help_text="Who or what uses it."
    )
    tenant = models.CharField(
        max_length=settings.MAX_TENANT_CHARACTERS,
        default=settings.DEFAULT_TENANT,
        validators=[validate_text],
        help_text="Whose threads it opens. A name that no thread has yet is a new tenant.",
    )
    read_only = models.BooleanField("read-only", default=False, help_text="It reads, and changes nothing.")
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    expires_at = models.DateTimeField("expires", null=True, blank=True, help_text="UTC. Empty: never.")
    revoked_at = models.DateTimeField("revoked", null=True, editable=False)
    last_used_at = models.DateTimeField("last used", null=True, editable=False)

    generator: ClassVar = KeyGenerator()
    objects = APIKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at", "prefix"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    def clean(self) -> None:
        if self.expires_at is not None and self.expires_at <= timezone.now():
            raise ValidationError({"expires_at": "This time is in the past."})

    def issue(self) -> str:
        """Store this new row and return its key, which cannot be shown again."""
        key, self.prefix, self.hashed_key = self.generator.generate()
        with transaction.atomic():  # on SQLite, only a write in a transaction waits in the write queue
            self.save(force_insert=True)  # if the prefix exists, fail instead of overwriting that key
        return key

    def revoke(self) -> bool:
        """Revoke the key permanently, from the next request on. Return False if it was already revoked."""
        with transaction.atomic():
            return bool(APIKey.objects.filter(prefix=self.prefix, revoked_at=None).update(revoked_at=timezone.now()))

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= timezone.now() else "active"

    @property
    def rights(self) -> str:
        return "read" if self.read_only else "read and write"
