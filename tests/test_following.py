"""The order of messages as other processes see it: a reader misses nothing while others write and delete."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.conftest import Served
from tests.traffic import SECONDS_TO_WAIT, Client, Walk, Written

WRITERS, READERS, EACH, AT_FIRST = 3, 2, 80, 30


class Told(NamedTuple):
    """What the processes tell of one thread."""

    at_first: list[str]
    written: list[list[Written]]  # by each writer
    deleted: list[str]
    followed: list[list[str]]  # by each reader
    walked_back: list[Walk]
    at_last: list[str]  # a walk when all is over
    at_last_back: list[str]

    @property
    def acknowledged(self) -> list[str]:
        return [message.message_id for writer in self.written for message in writer]


@pytest.fixture(scope="module")
def told(served: Served) -> list[Told]:
    """What came of it in two threads that all clients use at once."""
    threads = [served.new_thread() for _ in range(2)]
    at_first = {
        thread: [
            served.call("POST", f"/threads/{thread}/messages", {"role": "user", "content": "first"}).body["id"]
            for _ in range(AT_FIRST)
        ]
        for thread in threads
    }
    spawn = multiprocessing.get_context("spawn")
    clients = WRITERS + READERS + 2
    writers_are_done = spawn.Event()
    # Each client waits for all others, so that each has a process of its own.
    shared = (spawn.Barrier(clients), writers_are_done)
    with ProcessPoolExecutor(clients, spawn, initializer=Client.prepare, initargs=shared) as pool:

        def start(seed: int, act: Callable[..., Any], *arguments: Any) -> Future[Any]:
            return pool.submit(act, Client(served.port, threads, seed), *arguments)

        followed = [start(reader, Client.follow) for reader in range(READERS)]
        deleted = start(READERS, Client.delete_victims)
        walked_back = start(READERS + 1, Client.walk_back)
        written = [start(0, Client.write, EACH, writer == 0) for writer in range(WRITERS)]
        try:
            for writer in written:
                writer.result(SECONDS_TO_WAIT)
        finally:
            writers_are_done.set()
    last = Client(served.port, threads, seed=0)
    return [
        Told(
            at_first[thread],
            [writer.result()[thread] for writer in written],
            deleted.result()[thread],
            [reader.result()[thread] for reader in followed],
            walked_back.result()[thread],
            last.walk(thread, "asc"),
            last.walk(thread, "desc"),
        )
        for thread in threads
    ]


def only(message_ids: list[str], among: list[str]) -> list[str]:
    """Those of the messages that are among these, in their order."""
    chosen = set(among)
    return [message_id for message_id in message_ids if message_id in chosen]


def test_all_that_was_acknowledged_and_not_deleted_is_there_in_the_order_of_each_writer(told: list[Told]) -> None:
    for thread in told:
        acknowledged = thread.acknowledged
        assert len(set(acknowledged)) == WRITERS * EACH
        victims = [message.message_id for message in thread.written[0]][1::2]
        assert thread.deleted == victims  # each once: the deleter followed, too
        left = set(thread.at_first) | set(acknowledged) - set(thread.deleted)
        assert sorted(thread.at_last) == sorted(left)
        assert thread.at_last_back == thread.at_last[::-1]
        assert thread.at_last[:AT_FIRST] == thread.at_first
        for writer in thread.written:
            own = [message.message_id for message in writer]
            assert only(thread.at_last, own) == only(own, thread.at_last)


def test_each_reader_that_follows_meets_each_message_once_and_all_in_one_order(told: list[Told]) -> None:
    for thread in told:
        for met in thread.followed:
            assert len(set(met)) == len(met)
            assert only(met, thread.at_last) == thread.at_last
            assert set(met) <= {*thread.at_last, *thread.deleted}
            for writer in thread.written:  # also those that were deleted later
                own = [message.message_id for message in writer]
                assert only(met, own) == only(own, met)
            for other in thread.followed:
                assert only(met, other) == only(other, met)


def test_walk_back_gives_all_that_was_there_when_it_began_once(told: list[Told]) -> None:
    for thread in told:
        newest_first = thread.at_last[::-1]
        for started_at, met in thread.walked_back:
            assert len(set(met)) == len(met)
            stayed = only(met, thread.at_last)
            assert stayed == newest_first[-len(stayed) :]  # without a gap down to the first message
            answered = [
                message.message_id
                for writer in thread.written
                for message in writer
                if message.answered_at < started_at
            ]
            assert set(met) >= {*thread.at_first, *answered} - set(thread.deleted)
            for reader in thread.followed:  # what was deleted later stood where others saw it
                assert only(met, reader) == only(reader, met)[::-1]
