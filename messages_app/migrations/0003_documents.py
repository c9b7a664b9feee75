"""Stores JSON columns as documents, and indexes metadata, if the engine stores documents. Changes nothing in SQL."""

from django.db import migrations, models

from messages_app.models.fields import DocumentField, PairsField

THREAD_BY_PAIR = models.Index(fields=["tenant", "metadata", "created_at", "id"], name="thread_by_metadata")


def add_index(apps, schema_editor):
    if getattr(schema_editor.connection.features, "stores_documents", False):
        schema_editor.add_index(apps.get_model("messages_app", "Thread"), THREAD_BY_PAIR)


class Migration(migrations.Migration):
    dependencies = [("messages_app", "0002_whole_api")]
    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("thread", "metadata", PairsField(blank=True, default=dict)),
                migrations.AlterField("message", "metadata", PairsField(blank=True, default=dict)),
                migrations.AlterField("message", "content", DocumentField()),
                migrations.AlterField("message", "attachments", DocumentField(blank=True, default=list)),
            ]
        ),
        migrations.RunPython(add_index, migrations.RunPython.noop),
    ]
