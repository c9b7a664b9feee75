"""The app configuration, which also creates a group of admin users."""

from typing import Any

from django.apps import AppConfig
from django.db import router
from django.db.models.signals import post_migrate

# Members can read every conversation in the admin, but cannot delete anything.
VIEWERS = "Conversation viewers"


class MessagesAppConfig(AppConfig):
    name = "messages_app"
    verbose_name = "Conversations"

    def ready(self) -> None:
        post_migrate.connect(create_viewers_group, sender=self)


def create_viewers_group(using: str, apps: Any, **kwargs: Any) -> None:
    """Create the viewers group in the database of Django's own tables, if the group is missing.

    An existing group stays unchanged, because the operator may have changed its permissions.
    """
    try:
        group_model, permission_model = (apps.get_model("auth", name) for name in ("Group", "Permission"))
    except LookupError:  # the models of django.contrib.auth do not exist at this migration state
        return
    if router.db_for_write(group_model) != using or group_model.objects.using(using).filter(name=VIEWERS).exists():
        return
    view_permissions = permission_model.objects.using(using).filter(
        content_type__app_label="messages_app", codename__in=["view_thread", "view_message"]
    )
    # The handler of django.contrib.auth runs before this one. It creates both permissions in this database.
    if view_permissions.count() == 2:
        group_model.objects.using(using).create(name=VIEWERS).permissions.set(view_permissions)
