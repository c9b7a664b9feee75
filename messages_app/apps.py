"""The app, and what it sets up beside its tables."""

from typing import Any

from django.apps import AppConfig
from django.db import router
from django.db.models.signals import post_migrate

# Members may look at everything in the admin and change nothing.
VIEWERS = "Conversation viewers"


class MessagesAppConfig(AppConfig):
    name = "messages_app"
    verbose_name = "Conversations"

    def ready(self) -> None:
        post_migrate.connect(make_viewers, sender=self)


def make_viewers(using: str, apps: Any, **kwargs: Any) -> None:
    """Makes the group of viewers where it is missing, on the database of Django's own tables.

    One that is there stays as it is: what its members may do is the operator's by then.
    """
    try:
        group_model, permission_model = (apps.get_model("auth", name) for name in ("Group", "Permission"))
    except LookupError:  # migrated to before there were any
        return
    if router.db_for_write(group_model) != using or group_model.objects.using(using).filter(name=VIEWERS).exists():
        return
    may_view = permission_model.objects.using(using).filter(
        content_type__app_label="messages_app", codename__in=["view_thread", "view_message"]
    )
    if may_view.count() == 2:  # auth makes them just before, where its tables are there
        group_model.objects.using(using).create(name=VIEWERS).permissions.set(may_view)
