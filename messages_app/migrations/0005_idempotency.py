"""Adds the table for requests with an idempotency key."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("messages_app", "0004_by_time")]
    operations = [
        migrations.CreateModel(
            name="IdempotencyRecord",
            fields=[
                ("digest", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("request", models.CharField(max_length=64)),
                ("thread_id", models.CharField(max_length=64)),
                ("message_id", models.CharField(max_length=64)),
                ("seed", models.CharField(max_length=32)),
                ("created_at", models.DateTimeField()),
                ("answer", models.TextField(default="")),
            ],
            options={
                "indexes": [
                    models.Index(fields=["created_at"], name="idempotency_expires"),
                    models.Index(fields=["thread_id"], name="idempotency_thread"),
                    models.Index(fields=["message_id"], name="idempotency_message"),
                ],
            },
        ),
    ]
