"""Adds the indexes for lists, deletion and metadata filters, and stores the metadata pairs of existing threads."""

from itertools import islice

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

from messages_app.models.thread import digest_of_pair


def fill(apps, schema_editor):
    alias = schema_editor.connection.alias
    if not schema_editor.connection.features.supports_transactions:
        return  # this engine has no table of metadata pairs
    thread_model, pair_model = (apps.get_model("messages_app", name) for name in ("Thread", "ThreadPair"))
    apps.get_model("messages_app", "Message").objects.using(alias).filter(run_id="").update(run_id=None)
    pairs = (
        pair_model(thread_id=thread.id, digest=digest_of_pair(thread.tenant, key, value), created_at=thread.created_at)
        for thread in thread_model.objects.using(alias).exclude(metadata={}).iterator()
        for key, value in thread.metadata.items()
    )
    while batch := list(islice(pairs, 1000)):  # bulk_create would load all pairs into one list
        pair_model.objects.using(alias).bulk_create(batch)


class Migration(migrations.Migration):
    dependencies = [("messages_app", "0001_initial")]
    operations = [
        migrations.AlterField("message", "run_id", models.CharField(blank=True, max_length=256, null=True)),
        migrations.CreateModel(
            name="ThreadPair",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "thread",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pairs",
                        to="messages_app.thread",
                    ),
                ),
                ("digest", models.CharField(max_length=32)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "required_db_features": ["supports_transactions"],
                "indexes": [models.Index(fields=["digest", "created_at", "thread"], name="thread_by_pair")],
                "constraints": [models.UniqueConstraint(fields=["thread", "digest"], name="thread_pair")],
            },
        ),
        migrations.RemoveIndex("thread", "thread_list"),
        migrations.AddIndex(
            "thread",
            models.Index(fields=["tenant", "created_at", "id"], condition=Q(deleted_at=None), name="thread_list"),
        ),
        migrations.AddIndex(
            "thread", models.Index(fields=["deleted_at"], condition=Q(deleted_at__isnull=False), name="thread_deleted")
        ),
        migrations.AddIndex(
            "message", models.Index(fields=["thread", "position"], condition=Q(deleted_at=None), name="message_list")
        ),
        migrations.AddIndex(
            "message",
            models.Index(
                fields=["thread", "run_id", "position"], condition=Q(run_id__isnull=False), name="message_run"
            ),
        ),
        migrations.AddIndex(
            "message",
            models.Index(fields=["deleted_at", "id"], condition=Q(deleted_at__isnull=False), name="message_deleted"),
        ),
        # The last operation, because PostgreSQL cannot alter a table after rows were written in the same transaction.
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
