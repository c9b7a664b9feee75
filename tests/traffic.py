"""Clients of a running service, each in its own operating system process (tests/test_following.py).

This module does not import Django, so clients start fast and use the service only over HTTP.
"""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier, Event
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode

# A generous timeout: only a failure takes this long.
SECONDS_TO_WAIT = 60

LIMITS = (1, 2, 5, 20, 100)
VICTIM = "to be deleted"


class Written(NamedTuple):
    message_id: str
    answered_at: float  # time.monotonic(), which all processes share


class Walk(NamedTuple):
    started_at: float
    seen: list[str]


class Client:
    """A client that uses some threads of the service at a port. All clients begin together."""

    barrier: Barrier
    writers_are_done: Event

    @classmethod
    def prepare(cls, barrier: Barrier, writers_are_done: Event) -> None:
        """Initialize a new process, before its first client."""
        cls.barrier, cls.writers_are_done = barrier, writers_are_done

    def __init__(self, port: int, threads: list[str], seed: int) -> None:
        self.port, self.threads, self.rng = port, threads, Random(seed)
        self.deadline = time.monotonic() + SECONDS_TO_WAIT

    def begin(self) -> None:
        self.barrier.wait(SECONDS_TO_WAIT)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        assert time.monotonic() < self.deadline, "the walk does not end"
        # One connection per request, so that any worker may respond.
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_TO_WAIT)) as connection:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            return json.loads(content)

    def page(self, thread: str, order: str, after: str) -> Any:
        query = {"order": order, "limit": self.rng.choice(LIMITS), "after": after}
        return self.call("GET", f"/threads/{thread}/messages?{urlencode(query)}")

    def write(self, count: int, victims: bool) -> dict[str, list[Written]]:
        """Create messages in each thread, as fast as possible. With `victims`, mark every second one for deletion."""
        written: dict[str, list[Written]] = {thread: [] for thread in self.threads}
        self.begin()
        for number in range(count):
            body = {"role": "user", "content": VICTIM if victims and number % 2 else "hello"}
            for thread in self.threads:
                message = self.call("POST", f"/threads/{thread}/messages", body)
                written[thread].append(Written(message["id"], time.monotonic()))
        return written

    def new_messages(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield pages of each thread in turn, oldest first, until all writers are done and no message is left.

        The first pages are read before any writer starts, so all writes happen while the threads are followed.
        """
        last = dict.fromkeys(self.threads, "")
        for thread in self.threads:
            data = self.page(thread, "asc", "")["data"]
            last[thread] = data[-1]["id"]
            yield thread, data
        self.begin()
        while True:
            is_last_round = self.writers_are_done.is_set()  # checked before the reads, so they miss no write
            found = False
            for thread in self.threads:
                if data := self.page(thread, "asc", last[thread])["data"]:
                    found, last[thread] = True, data[-1]["id"]
                    yield thread, data
            if is_last_round and not found:
                return

    def follow(self) -> dict[str, list[str]]:
        """Return the ids that a reader sees while it follows the threads."""
        seen: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            seen[thread] += [message["id"] for message in data]
        return seen

    def delete_victims(self) -> dict[str, list[str]]:
        """Follow the threads and delete the marked messages, also those that are the cursor."""
        deleted: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            for message in data:
                if message["content"][0]["text"]["value"] == VICTIM:
                    self.call("DELETE", f"/threads/{thread}/messages/{message['id']}")
                    deleted[thread].append(message["id"])
        return deleted

    def walk_back(self) -> dict[str, list[Walk]]:
        """Walk each thread from its newest to its oldest message, repeatedly until the writers are done."""
        walks: dict[str, list[Walk]] = {thread: [] for thread in self.threads}
        self.begin()
        is_last_round = False
        while not is_last_round:
            is_last_round = self.writers_are_done.is_set()
            for thread in self.threads:
                walks[thread].append(Walk(time.monotonic(), self.walk(thread, "desc")))
        return walks

    def walk(self, thread: str, order: str) -> list[str]:
        seen: list[str] = []
        has_more = True
        while has_more:
            page = self.page(thread, order, seen[-1] if seen else "")
            seen += [message["id"] for message in page["data"]]
            has_more = page["has_more"]
        return seen
