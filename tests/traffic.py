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

# A generous timeout. Only a failed test takes this long.
SECONDS_TO_WAIT = 60

LIMITS = (1, 2, 5, 20, 100)
VICTIM = "to be deleted"


class Written(NamedTuple):
    message_id: str
    answered_at: float  # time.monotonic(), a clock that all processes share


class Walk(NamedTuple):
    started_at: float
    seen: list[str]


class Client:
    """A client that uses some of the service's threads. A barrier makes all clients begin at the same time."""

    barrier: Barrier
    writers_are_done: Event

    @classmethod
    def prepare(cls, barrier: Barrier, writers_are_done: Event) -> None:
        """Store the objects that all processes share. Each new process calls this method before it runs a client."""
        cls.barrier, cls.writers_are_done = barrier, writers_are_done

    def __init__(self, port: int, threads: list[str], seed: int) -> None:
        self.port, self.threads, self.rng = port, threads, Random(seed)
        self.deadline = time.monotonic() + SECONDS_TO_WAIT

    def begin(self) -> None:
        self.barrier.wait(SECONDS_TO_WAIT)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        assert time.monotonic() < self.deadline, "the client did not finish in time"
        # Open a connection per request. Otherwise the same worker would handle all requests of this client.
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
        """Create messages in each thread, as fast as possible. With `victims`, mark every second message."""
        written: dict[str, list[Written]] = {thread: [] for thread in self.threads}
        self.begin()
        for number in range(count):
            body = {"role": "user", "content": VICTIM if victims and number % 2 else "hello"}
            for thread in self.threads:
                message = self.call("POST", f"/threads/{thread}/messages", body)
                written[thread].append(Written(message["id"], time.monotonic()))
        return written

    def new_messages(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield pages from all threads in turn, oldest messages first. End when all written messages have been read.

        The first pages are read before any writer starts, so all writes happen during these reads.
        """
        last = dict.fromkeys(self.threads, "")
        for thread in self.threads:
            data = self.page(thread, "asc", "")["data"]
            last[thread] = data[-1]["id"]
            yield thread, data
        self.begin()
        while True:
            # Check this before the reads. If the writers are done now, these reads see every write.
            is_last_round = self.writers_are_done.is_set()
            found = False
            for thread in self.threads:
                if data := self.page(thread, "asc", last[thread])["data"]:
                    found, last[thread] = True, data[-1]["id"]
                    yield thread, data
            if is_last_round and not found:
                return

    def follow(self) -> dict[str, list[str]]:
        """Read all threads until the writers are done. Return each thread's message ids in the order received."""
        seen: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            seen[thread] += [message["id"] for message in data]
        return seen

    def delete_victims(self) -> dict[str, list[str]]:
        """Read all threads and delete the marked messages. Return their ids.

        A deleted message can be the last of its page, and is then the cursor of the next page.
        """
        deleted: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            for message in data:
                if message["content"][0]["text"]["value"] == VICTIM:
                    self.call("DELETE", f"/threads/{thread}/messages/{message['id']}")
                    deleted[thread].append(message["id"])
        return deleted

    def walk_back(self) -> dict[str, list[Walk]]:
        """Page through each thread from newest to oldest, repeatedly, until the writers are done."""
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
