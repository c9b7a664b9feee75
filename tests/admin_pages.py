"""Helpers for admin tests: URLs, a logged-in client, and stored threads."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from messages_app.models import Thread
from messages_app.models.content import text_part
from tests.rows import new_message, new_thread, store_rows

THREADS, MESSAGES = "/admin/messages_app/thread/", "/admin/messages_app/message/"


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, path: str, **query: Any) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def store_thread(number: int, **fields: Any) -> Thread:
    """Store a thread with `number` messages. Their texts are "number 1.", "number 2." and so on."""
    thread = new_thread(**fields)
    messages = [
        new_message(thread=thread, position=i, role="user", content=[text_part(f"number {i}.")])
        for i in range(1, number + 1)
    ]
    store_rows([thread], messages)
    return thread
