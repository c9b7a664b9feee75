"""The admin's pages for threads and messages: search, read, export and delete. Nothing can be added or changed."""

from messages_app.admin import messages, threads  # noqa: F401  # the imports register the model admins
