"""Lists: random queries are compared with a model of the contract, and clients page through changing threads."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, product, repeat
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from messages_app.models import Thread
from messages_app.store.backend import backend
from tests import engines
from tests.conftest import Api, detail_of
from tests.rows import new_thread, store_rows

Query = dict[str, Any]

# Hypothesis generates the same examples in every run and remembers no earlier failures, so a failure can be reproduced
# on every machine. SQLite runs all examples. The other engines are slower and run a quarter of them, except in a long
# run.
SHARE = 1 if engines.chosen == "sqlite" or engines.is_long else 4
PROPERTY = settings(max_examples=20 // SHARE, derandomize=True, database=None, deadline=None)
QUERIES = 20  # number of queries per example
RNG = st.integers(0, 2**32).map(Random)
V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}
ODD = "ü ]+&=%"  # these characters must be escaped in a query string
RUNS = ["", "run", ODD]
SECOND = datetime(2026, 1, 1, tzinfo=UTC)
Item = TypeVar("Item")


def some(item: st.SearchStrategy[Item], most: int = 16) -> st.SearchStrategy[list[Item]]:
    """Return a strategy for lists. Most lists are long enough for several pages. Some have at most two items."""
    several = st.lists(item, min_size=8, max_size=most)
    return several | several | st.lists(item, max_size=2)


def expected(known: list[str], shown: Mapping[str, Any], query: Query, unknown: str) -> tuple[int, Any]:
    """Return the status and body that the contract requires.

    `known` contains the valid cursors, oldest first. `shown` contains the items that pass the filters.
    """
    after, before, limit = query.get("after"), query.get("before"), query.get("limit", 20)
    faults = [name for name in ("after", "before") if query.get(name) and query[name] not in known]
    if faults:
        return 422, {"detail": [detail_of(unknown, name, root="query") for name in faults]}
    line = known if query.get("order") == "asc" else known[::-1]
    start = line.index(after) + 1 if after else 0
    stop = line.index(before) if before else len(line)
    rest = [public_id for public_id in line[start:stop] if public_id in shown]
    page = rest[-limit:] if before and not after else rest[:limit]
    first_id, last_id = (page[0], page[-1]) if page else (None, None)
    data = [shown[public_id] for public_id in page]
    has_more = len(rest) > len(page)
    return 200, {"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more}


def any_query(rng: Random, cursors: list[str]) -> Query:
    """Return a random query for a list.

    All cursors are equally likely. If a query has two cursors, the range between them is often longer than a page.
    """
    keys: dict[str, list[Any]] = {
        "limit": [None, 1, 1, 2, 2, 3, 5, 100],
        "order": [None, "asc", "desc"],
        "after": [*cursors, "", "none"] if rng.random() < 0.6 else [None],  # an empty cursor is treated as absent
        "before": [*cursors, "", "none"] if rng.random() < 0.6 else [None],
    }
    chosen = {key: rng.choice(values) for key, values in keys.items()}
    return {key: value for key, value in chosen.items() if value is not None}


class Conversation:
    """A changing thread and its expected messages. The expected messages are never read from a list."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.path = f"/threads/{api.post('/threads').body['id']}/messages"
        self.known: list[str] = []  # ids in order of creation, including deleted messages
        self.shown: dict[str, Any] = {}

    def write(self, run_id: str = "") -> None:
        number = len(self.known)
        body = {"role": "user", "content": str(number), "run_id": run_id}
        # The clock shows 0, 0, 2, 2, 4, 4, 1, 1, ... seconds. It stops and goes back, because the order of messages
        # must not depend on it.
        with patch.object(timezone, "now", return_value=SECOND + timedelta(seconds=number // 2 * 2 % 5)):
            message_id = self.api.post(self.path, body, **V2).body["id"]
        self.known.append(message_id)
        self.shown[message_id] = self.api.get(f"{self.path}/{message_id}").body

    def delete(self, message_id: str) -> None:
        assert self.api.delete(f"{self.path}/{message_id}").status == 200
        del self.shown[message_id]

    def in_run(self, run_id: str) -> dict[str, Any]:
        return {key: message for key, message in self.shown.items() if run_id in ("", message["run_id"])}

    def page(self, query: Query) -> Any:
        """Request a page, check it against the contract, and return its body."""
        answer = self.api.get(f"{self.path}?{urlencode(query)}")
        shown = self.in_run(query.get("run_id", ""))
        assert (answer.status, answer.body) == expected(self.known, shown, query, "message")
        return answer.body


def test_every_query_of_a_small_thread_follows_the_contract(api: Api) -> None:
    conversation = Conversation(api)
    for run_id in ("", "run", "", "run", "run", "run"):
        conversation.write(run_id)
    for number in (2, 4):
        conversation.delete(conversation.known[number])
    cursors = ["", *conversation.known]
    for order, limit, after, before, run_id in product(("asc", "desc"), (1, 2, 4), cursors, cursors, ("", "run")):
        conversation.page({"order": order, "limit": limit, "after": after, "before": before, "run_id": run_id})


@PROPERTY
@given(messages=some(st.tuples(st.sampled_from(RUNS), st.sampled_from([False, False, True]))), rng=RNG)
def test_random_pages_of_messages_follow_the_contract(api: Api, messages: list[tuple[str, bool]], rng: Random) -> None:
    conversation, elsewhere = Conversation(api), Conversation(api)
    elsewhere.write()
    for run_id, _ in messages:
        conversation.write(run_id)
    for message_id, (_, is_deleted) in zip(conversation.known, messages, strict=True):
        if is_deleted:
            conversation.delete(message_id)
    for _ in range(QUERIES):
        run_id = rng.choice([""] * 4 + [*RUNS, "another", "\0"])
        conversation.page({**any_query(rng, conversation.known + elsewhere.known), "run_id": run_id})


KEYS, VALUES = ["", "k", ODD], ["", ODD]
THREADS = some(
    st.fixed_dictionaries(
        {
            "seconds": st.integers(0, 2),
            "metadata": st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)),
            "changes": st.dictionaries(st.sampled_from(KEYS), st.sampled_from([None, *VALUES]), max_size=1),
            "is_marked": st.sampled_from([True, True, False]),
            "tenant": st.sampled_from(["default"] * 9 + ["another"]),
            "is_deleted": st.sampled_from([False] * 5 + [True]),
        }
    )
)


@PROPERTY
@given(threads=THREADS, rng=RNG)
def test_random_pages_of_threads_follow_the_contract(api: Api, threads: list[dict[str, Any]], rng: Random) -> None:
    mark = uuid.uuid4().hex
    ids = []
    for number, thread in enumerate(threads):
        # The ids ascend, but `created_at` is random. Lists are sorted by `created_at` first, then by id.
        row = new_thread(at=SECOND + timedelta(milliseconds=number), tenant=thread["tenant"])
        row.created_at = SECOND + timedelta(seconds=thread["seconds"])
        row.metadata = {**thread["metadata"], **({"mark": mark} if thread["is_marked"] else {})}
        store_rows([row])
        if thread["tenant"] == "default":
            assert api.post(f"/threads/{row.id}", {"metadata": thread["changes"]}).status == 200
        # A deletion over HTTP would start the purge, which removes the row. Here the deleted row has to stay.
        if thread["is_deleted"]:
            backend().mark_deleted(Thread.objects.filter(id=row.id), [row.id])
        ids.append(row.id)
    # Other tests have stored threads in the same tenant, and the list contains them too. Therefore read the expected
    # threads from the database.
    visible = Thread.objects.filter(tenant="default", deleted_at=None)
    rows = sorted(visible, key=lambda row: (row.created_at, row.id))
    bodies = {
        row.id: {
            "_id": row.object_id,
            "id": row.id,
            "object": "thread",
            "created_at": int(row.created_at.timestamp()),
            "metadata": row.metadata,
        }
        for row in rows
    }
    all_pairs = list(product(KEYS, VALUES))
    for _ in range(QUERIES):
        pairs = dict(rng.sample(all_pairs, rng.choice([0, 0, 1, 1, 2])))
        if rng.random() < 0.8:
            pairs["mark"] = mark
        shown = {row.id: bodies[row.id] for row in rows if pairs.items() <= row.metadata.items()}
        query = any_query(rng, ids)
        filters = {f"metadata[{key}]": value for key, value in pairs.items()}
        answer = api.get(f"/threads?{urlencode({**query, **filters})}")
        assert (answer.status, answer.body) == expected(list(bodies), shown, query, "thread")


@PROPERTY
@given(file_ids=some(st.sampled_from(["a", "b", "c", "d", "e", "f", ODD, "g/h?"]), most=10), rng=RNG)
def test_random_pages_of_files_follow_the_contract(api: Api, file_ids: list[str], rng: Random) -> None:
    thread_id = api.post("/threads").body["id"]
    body = {"role": "user", "content": "x", "file_ids": file_ids}
    message = api.post(f"/threads/{thread_id}/messages", body).body
    known: list[str] = []
    for file_id in file_ids:
        if file_id not in known:
            known.append(file_id)
    about = {"object": "thread.message.file", "created_at": message["created_at"], "message_id": message["id"]}
    shown = {file_id: {"id": file_id, **about} for file_id in known}
    for _ in range(QUERIES):
        query = any_query(rng, known)
        answer = api.get(f"/threads/{thread_id}/messages/{message['id']}/files?{urlencode(query)}")
        assert (answer.status, answer.body) == expected(known, shown, query, "file")


# Changes between two pages of a run. "write" creates a message in this run, and "write elsewhere" in another run.
# "delete cursor" deletes the message that is the cursor. A number deletes one of the remaining messages.
CHANGES = st.lists(st.sampled_from(["write", "write elsewhere", "delete cursor"]) | st.integers(0, 20), max_size=4)


def change(conversation: Conversation, changes: Iterable[str | int], run_id: str, cursor: str) -> None:
    for what in changes:
        remaining = list(conversation.shown)
        if what == "write":
            conversation.write(run_id)
        elif what == "write elsewhere":
            conversation.write("elsewhere")
        elif what == "delete cursor" and cursor in remaining:
            conversation.delete(cursor)
        elif isinstance(what, int) and remaining:
            conversation.delete(remaining[what % len(remaining)])


def new_conversation(api: Api, run_id: str, changes: Iterable[str | int]) -> Conversation:
    """Create a conversation with one message, apply `changes`, and return the conversation."""
    conversation = Conversation(api)
    conversation.write(run_id)
    change(conversation, changes, run_id, "")
    return conversation


HISTORY = st.lists(st.sampled_from(["write"] * 8 + ["write elsewhere", 3]), min_size=8, max_size=16)
WALKED_RUNS = st.sampled_from(["", "run"])


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("cursor_is", ["after", "before"])
@settings(PROPERTY, max_examples=12 // SHARE)
@given(run_id=WALKED_RUNS, history=HISTORY, steps=st.lists(st.tuples(st.integers(1, 4), CHANGES), max_size=6), rng=RNG)
def test_walk_returns_each_remaining_message_once(
    api: Api,
    order: str,
    cursor_is: str,
    run_id: str,
    history: list[str | int],
    steps: list[tuple[int, list[str | int]]],
    rng: Random,
) -> None:
    conversation = new_conversation(api, run_id, history)
    to_newer = (order == "asc") == (cursor_is == "after")
    begin = rng.choice(conversation.known[:4] if to_newer else conversation.known[-4:])
    if cursor_is == "after" and rng.random() < 0.5:
        begin = ""
    initial = set(conversation.shown)
    seen: list[str] = []
    cursor = begin
    for number, (limit, changes) in enumerate(chain(steps, repeat((3, ())))):
        change(conversation, changes, run_id, cursor)
        page = conversation.page({"order": order, "limit": limit, cursor_is: cursor, "run_id": run_id})
        ids = [message["id"] for message in page["data"]]
        seen += ids if cursor_is == "after" else ids[::-1]
        cursor = seen[-1] if seen else begin
        if number >= len(steps) and not page["has_more"]:
            break
    line = conversation.known if to_newer else conversation.known[::-1]
    line = line[line.index(begin) + 1 if begin else 0 :]
    assert seen == [message_id for message_id in line if message_id in seen]  # `seen` is in order and has no duplicates
    still_there = [message_id for message_id in line if message_id in conversation.in_run(run_id)]
    assert set(seen) >= {message_id for message_id in still_there if to_newer or message_id in initial}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("bounds", [(), ("after",), ("before",), ("after", "before")])
@settings(PROPERTY, max_examples=6 // SHARE)
@given(limit=st.integers(1, 4), run_id=WALKED_RUNS, history=HISTORY, steps=st.lists(CHANGES, max_size=6), rng=RNG)
def test_client_that_ignores_has_more_gets_each_message_once(
    api: Api,
    order: str,
    bounds: tuple[str, ...],
    limit: int,
    run_id: str,
    history: list[str | int],
    steps: list[list[str | int]],
    rng: Random,
) -> None:
    """Page like openai-python 1.6.1, which sets `after` to the last received id until a page is empty."""
    conversation = new_conversation(api, run_id, history)
    line = conversation.known if order == "asc" else conversation.known[::-1]
    chosen = {"after": rng.choice(line[:4]), "before": rng.choice(line[-4:])}
    cursors = {name: chosen[name] for name in bounds}
    query: Query = {"order": order, "limit": limit, **cursors, "run_id": run_id}
    initial = set(conversation.shown)
    pages: list[list[str]] = []
    for changes in chain(steps, repeat(())):
        change(conversation, changes, run_id, query.get("after", ""))
        page = [message["id"] for message in conversation.page(query)["data"]]
        if not page:
            break
        pages.append(page)
        query["after"] = page[-1]
    seen = [message_id for page in pages for message_id in page]
    line = conversation.known if order == "asc" else conversation.known[::-1]
    assert seen == [message_id for message_id in line if message_id in seen]  # `seen` is in order and has no duplicates
    if bounds == ("before",):
        # The first page ends just before the cursor `before`. The next request adds `after`, so its page is empty.
        assert len(pages) <= 1
        return
    start = line.index(cursors["after"]) + 1 if "after" in cursors else 0
    stop = line.index(cursors["before"]) if "before" in cursors else len(line)
    still_there = [message_id for message_id in line[start:stop] if message_id in conversation.in_run(run_id)]
    assert set(seen) >= {message_id for message_id in still_there if order == "asc" or message_id in initial}
