"""What clients of a served process do, each in an operating system process of its own (tests/test_following.py).

Knows nothing of Django, so that a client starts fast and meets the service over HTTP alone.
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

# Generous: what takes as long as this will never come.
SECONDS_TO_WAIT = 60

LIMITS = (1, 2, 5, 20, 100)
VICTIM = "to be deleted"


class Written(NamedTuple):
    message_id: str
    answered_at: float  # by the clock that all processes share


class Walk(NamedTuple):
    started_at: float
    met: list[str]


class Client:
    """One client of the service at that port, of some threads in it. All clients begin together."""

    together: Barrier
    writers_are_done: Event

    @classmethod
    def prepare(cls, together: Barrier, writers_are_done: Event) -> None:
        """What is run in each new process, before any client."""
        cls.together, cls.writers_are_done = together, writers_are_done

    def __init__(self, port: int, threads: list[str], seed: int) -> None:
        self.port, self.threads, self.rng = port, threads, Random(seed)
        self.deadline = time.monotonic() + SECONDS_TO_WAIT

    def begin(self) -> None:
        self.together.wait(SECONDS_TO_WAIT)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        assert time.monotonic() < self.deadline, "a walk that goes round in circles"
        # A connection for each request: any process of the service may answer.
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
        """Writes messages to each thread, as fast as it can; where `victims`, each other one is to be deleted."""
        written: dict[str, list[Written]] = {thread: [] for thread in self.threads}
        self.begin()
        for number in range(count):
            body = {"role": "user", "content": VICTIM if victims and number % 2 else "hello"}
            for thread in self.threads:
                message = self.call("POST", f"/threads/{thread}/messages", body)
                written[thread].append(Written(message["id"], time.monotonic()))
        return written

    def new_messages(self) -> Iterator[tuple[str, list[Any]]]:
        """Pages of each thread in turn, in the order of writing, until all writers are done and nothing is left.

        The first page is read before anybody writes: all that is written comes while the threads are followed.
        """
        last = dict.fromkeys(self.threads, "")
        for thread in self.threads:
            data = self.page(thread, "asc", "")["data"]
            last[thread] = data[-1]["id"]
            yield thread, data
        self.begin()
        while True:
            is_last_round = self.writers_are_done.is_set()  # known before it is asked: nothing comes after the answers
            found = False
            for thread in self.threads:
                if data := self.page(thread, "asc", last[thread])["data"]:
                    found, last[thread] = True, data[-1]["id"]
                    yield thread, data
            if is_last_round and not found:
                return

    def follow(self) -> dict[str, list[str]]:
        """The ids that a reader meets who follows the threads."""
        met: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            met[thread] += [message["id"] for message in data]
        return met

    def delete_victims(self) -> dict[str, list[str]]:
        """Follows the threads and deletes what is meant to be, also what is its own cursor."""
        deleted: dict[str, list[str]] = {thread: [] for thread in self.threads}
        for thread, data in self.new_messages():
            for message in data:
                if message["content"][0]["text"]["value"] == VICTIM:
                    self.call("DELETE", f"/threads/{thread}/messages/{message['id']}")
                    deleted[thread].append(message["id"])
        return deleted

    def walk_back(self) -> dict[str, list[Walk]]:
        """Walks each thread from its newest message to its oldest, again and again while there are writers."""
        walks: dict[str, list[Walk]] = {thread: [] for thread in self.threads}
        self.begin()
        is_last_round = False
        while not is_last_round:
            is_last_round = self.writers_are_done.is_set()
            for thread in self.threads:
                walks[thread].append(Walk(time.monotonic(), self.walk(thread, "desc")))
        return walks

    def walk(self, thread: str, order: str) -> list[str]:
        met: list[str] = []
        has_more = True
        while has_more:
            page = self.page(thread, order, met[-1] if met else "")
            met += [message["id"] for message in page["data"]]
            has_more = page["has_more"]
        return met
