"""The router that keeps threads and messages in their own database."""

from typing import Any

from django.conf import settings
from django.db.models import Model


class ThreadsRouter:
    """Sends messages_app to the `threads` database if there is one, and everything else to `default`."""

    def database_of(self, app_label: str) -> str:
        return "threads" if app_label == "messages_app" and "threads" in settings.DATABASES else "default"

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return self.database_of(model._meta.app_label)

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == self.database_of(app_label)
