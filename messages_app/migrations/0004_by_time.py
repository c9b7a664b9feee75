"""Adds indexes for the admin's lists: threads and messages of all tenants by time, and messages of a run."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("messages_app", "0003_documents")]
    operations = [
        migrations.AddIndex(
            "thread", models.Index(fields=["created_at", "id"], condition=Q(deleted_at=None), name="thread_by_time")
        ),
        migrations.AddIndex(
            "message", models.Index(fields=["created_at", "id"], condition=Q(deleted_at=None), name="message_by_time")
        ),
        migrations.AddIndex(
            "message",
            models.Index(
                fields=["run_id", "created_at", "id"], condition=Q(run_id__isnull=False), name="message_by_run"
            ),
        ),
    ]
