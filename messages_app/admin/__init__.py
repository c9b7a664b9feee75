"""The admin's pages of threads and messages."""

from messages_app.admin import threads  # noqa: F401  # registers them
