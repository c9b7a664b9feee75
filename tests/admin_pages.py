"""Helpers for tests of the admin: addresses, a client that is logged in, threads."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from messages_app.models import Message, Thread
from messages_app.models.thread import text_part

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
    """Store a thread with this many messages: "number 1.", "number 2." and so on."""
    thread = Thread.new(**fields)
    messages = [
        Message.new(thread=thread, position=i, role="user", content=[text_part(f"number {i}.")])
        for i in range(1, number + 1)
    ]
    Thread.objects.store([thread], messages)
    return thread
