"""Readers in other processes miss no message while writers create and delete messages."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.conftest import Served
from tests.traffic import SECONDS_TO_WAIT, Client, Walk, Written

WRITERS, READERS, PER_WRITER, INITIAL = 3, 2, 80, 30


class History(NamedTuple):
    """The reports of all client processes about one thread."""

    initial: list[str]
    written: list[list[Written]]  # one list per writer
    deleted: list[str]
    followed: list[list[str]]  # one list per reader
    walked_back: list[Walk]
    # The ids from a walk in each direction, after all clients have ended.
    final: list[str]
    final_reversed: list[str]

    @property
    def acknowledged(self) -> list[str]:
        return [message.message_id for writer in self.written for message in writer]


@pytest.fixture(scope="module")
def histories(served: Served) -> list[History]:
    """The histories of two threads that all clients use at the same time."""
    threads = [served.new_thread() for _ in range(2)]
    initial = {
        thread: [
            served.call("POST", f"/threads/{thread}/messages", {"role": "user", "content": "first"}).body["id"]
            for _ in range(INITIAL)
        ]
        for thread in threads
    }
    spawn = multiprocessing.get_context("spawn")
    clients = WRITERS + READERS + 2
    writers_are_done = spawn.Event()
    # Each client waits for all others to start, so each gets its own process.
    shared = (spawn.Barrier(clients), writers_are_done)
    with ProcessPoolExecutor(clients, spawn, initializer=Client.prepare, initargs=shared) as pool:

        def start(seed: int, act: Callable[..., Any], *arguments: Any) -> Future[Any]:
            return pool.submit(act, Client(served.port, threads, seed), *arguments)

        followed = [start(reader, Client.follow) for reader in range(READERS)]
        deleted = start(READERS, Client.delete_victims)
        walked_back = start(READERS + 1, Client.walk_back)
        written = [start(0, Client.write, PER_WRITER, writer == 0) for writer in range(WRITERS)]
        try:
            for writer in written:
                writer.result(SECONDS_TO_WAIT)
        finally:
            writers_are_done.set()
    last = Client(served.port, threads, seed=0)
    return [
        History(
            initial[thread],
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
    """Return the ids that are also in `among`, in the same order."""
    chosen = set(among)
    return [message_id for message_id in message_ids if message_id in chosen]


def test_acknowledged_messages_stay_in_each_writers_order(histories: list[History]) -> None:
    for thread in histories:
        acknowledged = thread.acknowledged
        assert len(set(acknowledged)) == WRITERS * PER_WRITER
        victims = [message.message_id for message in thread.written[0]][1::2]
        # Also checks that the deleter read each victim only once. Otherwise, an id would be in `deleted` twice.
        assert thread.deleted == victims
        remaining = set(thread.initial) | set(acknowledged) - set(thread.deleted)
        assert sorted(thread.final) == sorted(remaining)
        assert thread.final_reversed == thread.final[::-1]
        assert thread.final[:INITIAL] == thread.initial
        for writer in thread.written:
            own = [message.message_id for message in writer]
            assert only(thread.final, own) == only(own, thread.final)


def test_readers_see_each_message_once_and_in_one_order(histories: list[History]) -> None:
    for thread in histories:
        for seen in thread.followed:
            assert len(set(seen)) == len(seen)
            assert only(seen, thread.final) == thread.final
            assert set(seen) <= {*thread.final, *thread.deleted}
            # A reader sees the messages of each writer in order, even those that were deleted later.
            for writer in thread.written:
                own = [message.message_id for message in writer]
                assert only(seen, own) == only(own, seen)
            for other in thread.followed:
                assert only(seen, other) == only(other, seen)


def test_backward_walk_has_each_earlier_message_once(histories: list[History]) -> None:
    for thread in histories:
        newest_first = thread.final[::-1]
        for started_at, seen in thread.walked_back:
            assert len(set(seen)) == len(seen)
            kept = only(seen, thread.final)
            # Between its newest message and the first message of the thread, the walk misses none.
            assert kept == newest_first[-len(kept) :]
            earlier = [
                message.message_id
                for writer in thread.written
                for message in writer
                if message.answered_at < started_at
            ]
            assert set(seen) >= {*thread.initial, *earlier} - set(thread.deleted)
            # The messages that the walk and a reader both saw are in opposite orders, even if they were deleted later.
            for reader in thread.followed:
                assert only(seen, reader) == only(reader, seen)[::-1]
