"""Pages of lists, held against an oracle for any query, and walks through threads that change between the pages."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, product, repeat
from typing import Any, TypeVar
from unittest.mock import patch
from urllib.parse import urlencode

from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from messages_app.models import Thread
from tests.conftest import Api, detail_of

Query = dict[str, Any]

# The same examples in every run, and none remembered in files: what fails here fails everywhere.
PROPERTY = settings(max_examples=60, derandomize=True, database=None, deadline=None)
V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}
ODD = "ü ]+&=%"  # what a query has to escape
RUNS = ["", "run", ODD]
SECOND = datetime(2026, 1, 1, tzinfo=UTC)
Item = TypeVar("Item")


def some(item: st.SearchStrategy[Item], most: int = 16) -> st.SearchStrategy[list[Item]]:
    """Enough for several pages, or next to nothing."""
    return st.lists(item, min_size=6, max_size=most) | st.lists(item, max_size=2)


def expected(known: list[str], shown: Mapping[str, Any], query: Query, unknown: str) -> tuple[int, Any]:
    """The answer by the contract's rules. `known` may be cursors, oldest first; `shown` is what filters let through."""
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


def queries(cursors: Iterable[str], **filters: st.SearchStrategy[str]) -> st.SearchStrategy[list[Query]]:
    """Some queries, of any of these keys; "" is a cursor that counts as absent."""
    cursor = st.sampled_from(["", "none", *cursors])
    keys = {
        "limit": st.integers(1, 4) | st.integers(1, 100),
        "order": st.sampled_from(["asc", "desc"]),
        "after": cursor,
        "before": cursor,
    }
    return st.lists(st.fixed_dictionaries({}, optional={**keys, **filters}), min_size=4, max_size=12)


class Conversation:
    """A thread that changes, and what is known of it without asking for a list."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.path = f"/threads/{api.post('/threads').body['id']}/messages"
        self.known: list[str] = []  # ids in the order of their messages' creation, also of those that are deleted
        self.shown: dict[str, Any] = {}

    def write(self, run_id: str = "") -> None:
        number = len(self.known)
        body = {"role": "user", "content": str(number), "run_id": run_id}
        # The clock stands still and goes back, as clocks do: the order of messages has nothing to do with it.
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
        """The answer's body, which is what the rules say."""
        answer = self.api.get(f"{self.path}?{urlencode(query)}")
        shown = self.in_run(query.get("run_id", ""))
        assert (answer.status, answer.body) == expected(self.known, shown, query, "message")
        return answer.body


def test_every_query_of_a_small_thread_is_answered_by_the_rules(api: Api) -> None:
    conversation = Conversation(api)
    for run_id in ("", "run", "", "run", "run", "run"):
        conversation.write(run_id)
    for number in (2, 4):
        conversation.delete(conversation.known[number])
    cursors = ["", *conversation.known]
    for order, limit, after, before, run_id in product(("asc", "desc"), (1, 2, 4), cursors, cursors, ("", "run")):
        conversation.page({"order": order, "limit": limit, "after": after, "before": before, "run_id": run_id})


@PROPERTY
@given(messages=some(st.tuples(st.sampled_from(RUNS), st.sampled_from([False, False, True]))), data=st.data())
def test_page_of_messages_is_what_the_rules_say(
    api: Api, messages: list[tuple[str, bool]], data: st.DataObject
) -> None:
    conversation, elsewhere = Conversation(api), Conversation(api)
    elsewhere.write()
    for run_id, _ in messages:
        conversation.write(run_id)
    for message_id, (_, is_deleted) in zip(conversation.known, messages, strict=True):
        if is_deleted:
            conversation.delete(message_id)
    run_ids = st.sampled_from([*RUNS, "another", "\0"])
    for query in data.draw(queries([*conversation.known, *elsewhere.known], run_id=run_ids)):
        conversation.page(query)


WORDS = st.sampled_from(["", "k", ODD])
THREADS = some(
    st.fixed_dictionaries(
        {
            "seconds": st.integers(0, 2),
            "metadata": st.dictionaries(WORDS, WORDS),
            "changes": st.dictionaries(WORDS, st.none() | WORDS),
            "is_marked": st.booleans() | st.just(True),
            "tenant": st.sampled_from(["default"] * 9 + ["another"]),
            "is_deleted": st.sampled_from([False] * 5 + [True]),
        }
    )
)


@PROPERTY
@given(threads=THREADS, data=st.data())
def test_page_of_threads_is_what_the_rules_say(api: Api, threads: list[dict[str, Any]], data: st.DataObject) -> None:
    mark = uuid.uuid4().hex
    ids = []
    for number, thread in enumerate(threads):
        # Ids in one order, seconds in any other: lists are in the order of both.
        row = Thread.new(at=SECOND + timedelta(milliseconds=number), tenant=thread["tenant"])
        row.created_at = SECOND + timedelta(seconds=thread["seconds"])
        row.metadata = {**thread["metadata"], **({"mark": mark} if thread["is_marked"] else {})}
        Thread.objects.store([row])
        api.post(f"/threads/{row.id}", {"metadata": thread["changes"]})
        if thread["is_deleted"]:
            api.delete(f"/threads/{row.id}")
        ids.append(row.id)
    # Threads of other tests are listed, too: the rows say which there are.
    there = Thread.objects.filter(tenant="default", deleted_at=None)
    rows = sorted(there, key=lambda row: (row.created_at, row.id))
    filters = {f"metadata[{key}]": WORDS for key in ("", "k", ODD)}
    for query in data.draw(queries(ids, **{"metadata[mark]": st.just(mark)}, **filters)):
        pairs = {key[9:-1]: value for key, value in query.items() if key.startswith("metadata[")}
        shown = {
            row.id: {
                "_id": row.object_id,
                "id": row.id,
                "object": "thread",
                "created_at": int(row.created_at.timestamp()),
                "metadata": row.metadata,
            }
            for row in rows
            if pairs.items() <= row.metadata.items()
        }
        answer = api.get(f"/threads?{urlencode(query)}")
        assert (answer.status, answer.body) == expected([row.id for row in rows], shown, query, "thread")


@PROPERTY
@given(file_ids=some(st.sampled_from(["a", "b", "c", "d", "e", "f", ODD, "g/h?"]), most=10), data=st.data())
def test_page_of_files_is_what_the_rules_say(api: Api, file_ids: list[str], data: st.DataObject) -> None:
    thread_id = api.post("/threads").body["id"]
    body = {"role": "user", "content": "x", "file_ids": file_ids}
    message = api.post(f"/threads/{thread_id}/messages", body).body
    known: list[str] = []
    for file_id in file_ids:
        if file_id not in known:
            known.append(file_id)
    about = {"object": "thread.message.file", "created_at": message["created_at"], "message_id": message["id"]}
    shown = {file_id: {"id": file_id, **about} for file_id in known}
    for query in data.draw(queries(known)):
        answer = api.get(f"/threads/{thread_id}/messages/{message['id']}/files?{urlencode(query)}")
        assert (answer.status, answer.body) == expected(known, shown, query, "file")


# What happens between two pages: messages are written, in the run that is walked or in another, or one is deleted (the
# cursor, or the one of that number).
CHANGES = st.lists(st.sampled_from(["write", "write elsewhere", "delete cursor"]) | st.integers(0, 20), max_size=4)


def change(conversation: Conversation, changes: Iterable[str | int], run_id: str, cursor: str) -> None:
    for what in changes:
        there = list(conversation.shown)
        if what == "write":
            conversation.write(run_id)
        elif what == "write elsewhere":
            conversation.write("elsewhere")
        elif what == "delete cursor" and cursor in there:
            conversation.delete(cursor)
        elif isinstance(what, int) and there:
            conversation.delete(there[what % len(there)])


def started(api: Api, run_id: str, changes: Iterable[str | int]) -> Conversation:
    """A conversation of one message at least, which has a history."""
    conversation = Conversation(api)
    conversation.write(run_id)
    change(conversation, changes, run_id, "")
    return conversation


HISTORY = some(st.sampled_from(["write"] * 6 + ["write elsewhere", 3, 10]))
WALKED_RUNS = st.sampled_from(["", "run"])


@PROPERTY
@given(
    order=st.sampled_from(["asc", "desc"]),
    cursor_is=st.sampled_from(["after", "before"]),
    run_id=WALKED_RUNS,
    history=HISTORY,
    steps=st.lists(st.tuples(st.integers(1, 5), CHANGES), max_size=8),
    data=st.data(),
)
def test_walk_gives_each_message_that_stays_once_and_misses_none_that_comes_ahead_of_it(
    api: Api,
    order: str,
    cursor_is: str,
    run_id: str,
    history: list[str | int],
    steps: list[tuple[int, list[str | int]]],
    data: st.DataObject,
) -> None:
    conversation = started(api, run_id, history)
    # A walk by `before` begins at some message; one by `after` may begin at the beginning.
    begin = data.draw(st.sampled_from([*conversation.known, *([""] if cursor_is == "after" else [])]))
    to_newer = (order == "asc") == (cursor_is == "after")
    at_first = set(conversation.shown)
    met: list[str] = []
    cursor = begin
    for number, (limit, changes) in enumerate(chain(steps, repeat((3, ())))):
        change(conversation, changes, run_id, cursor)
        page = conversation.page({"order": order, "limit": limit, cursor_is: cursor, "run_id": run_id})
        ids = [message["id"] for message in page["data"]]
        met += ids if cursor_is == "after" else ids[::-1]
        cursor = met[-1] if met else begin
        if number >= len(steps) and not page["has_more"]:
            break
    way = conversation.known if to_newer else conversation.known[::-1]
    way = way[way.index(begin) + 1 if begin else 0 :]
    assert met == [message_id for message_id in way if message_id in met]  # in order, none twice
    stayed = [message_id for message_id in way if message_id in conversation.in_run(run_id)]
    assert set(met) >= {message_id for message_id in stayed if to_newer or message_id in at_first}


@PROPERTY
@given(
    order=st.sampled_from(["asc", "desc"]),
    limit=st.integers(1, 5),
    run_id=WALKED_RUNS,
    history=HISTORY,
    steps=st.lists(CHANGES, max_size=8),
    data=st.data(),
)
def test_client_that_ignores_has_more_and_keeps_before_ends_and_gives_each_message_once(
    api: Api,
    order: str,
    limit: int,
    run_id: str,
    history: list[str | int],
    steps: list[list[str | int]],
    data: st.DataObject,
) -> None:
    """openai-python 1.6.1: asks with the same query and `after` the last that it got, until it gets nothing."""
    conversation = started(api, run_id, history)
    cursor = st.sampled_from(conversation.known)
    given_cursors = data.draw(st.fixed_dictionaries({}, optional={"after": cursor, "before": cursor}))
    query: Query = {"order": order, "limit": limit, **given_cursors, "run_id": run_id}
    at_first = set(conversation.shown)
    pages: list[list[str]] = []
    for changes in chain(steps, repeat(())):
        change(conversation, changes, run_id, query.get("after", ""))
        page = [message["id"] for message in conversation.page(query)["data"]]
        if not page:
            break
        pages.append(page)
        query["after"] = page[-1]
    met = [message_id for page in pages for message_id in page]
    line = conversation.known if order == "asc" else conversation.known[::-1]
    assert met == [message_id for message_id in line if message_id in met]  # in order, none twice
    if "before" in given_cursors and "after" not in given_cursors:
        assert len(pages) <= 1  # what is nearest to `before`: there is nothing between the two
        return
    start = line.index(given_cursors["after"]) + 1 if "after" in given_cursors else 0
    stop = line.index(given_cursors["before"]) if "before" in given_cursors else len(line)
    stayed = [message_id for message_id in line[start:stop] if message_id in conversation.in_run(run_id)]
    assert set(met) >= {message_id for message_id in stayed if order == "asc" or message_id in at_first}
