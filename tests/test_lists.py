"""Valid and invalid queries for lists of threads, messages and files.

tests/test_paging.py tests the order and the pages.
"""

from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from tests import engines
from tests.conftest import Api, connection, detail_of
from tests.rows import new_message, new_thread, store_rows

GOOD = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def full(api: Api) -> tuple[str, list[str]]:
    """A thread, and the ids of its 25 messages, oldest first. The last message has three files."""
    thread: str = api.post("/threads", {"messages": [GOOD] * 24}).body["id"]
    api.post(f"/threads/{thread}/messages", {**GOOD, "file_ids": ["f1", "f2", "f1", "f3"]})
    ids = Message.objects.filter(thread_id=thread).order_by("position").values_list("id", flat=True)
    return thread, list(ids)


def in_query(code: str, key: str, **ctx: Any) -> dict[str, Any]:
    return detail_of(code, key, root="query", **ctx)


def test_default_page_is_the_newest_twenty(api: Api, full: tuple[str, list[str]]) -> None:
    thread, ids = full
    for path in (f"/threads/{thread}/messages", f"/v1/threads/{thread}/messages"):
        page = api.get(path)
        newest = ids[::-1][:20]
        assert page.status == 200
        assert [message["id"] for message in page.body.pop("data")] == newest
        assert page.body == {"object": "list", "first_id": newest[0], "last_id": newest[-1], "has_more": True}


def test_page_has_ordered_keys_and_rows_as_retrieved(api: Api, full: tuple[str, list[str]]) -> None:
    thread, ids = full
    page = api.get(f"/threads/{thread}/messages?limit=1").body
    assert list(page) == ["object", "data", "first_id", "last_id", "has_more"]
    assert page["data"] == [api.get(f"/threads/{thread}/messages/{ids[-1]}").body]
    created = api.post("/threads", {"metadata": {"only": thread}}).body
    assert api.get(f"/threads?metadata[only]={thread}").body["data"] == [created]


def test_empty_list_has_null_ids_and_no_more(api: Api, thread_id: str) -> None:
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    message = api.post(f"/threads/{thread_id}/messages", GOOD).body["id"]
    for path in (
        f"/threads/{api.post('/threads').body['id']}/messages",
        f"/threads/{thread_id}/messages/{message}/files",
        f"/threads/{thread_id}/messages?run_id=run_none",
        f"/threads/{thread_id}/messages?run_id=%00",
        "/threads?metadata[no]=such",
        "/threads?metadata[%00]=%00",
        "/threads?" + "&".join(f"metadata[{i}]=v" for i in range(990)),
        f"/threads/{thread_id}/messages?after={message}&before={message}",
    ):
        assert (api.get(path).status, api.get(path).body) == (200, empty)


@pytest.mark.parametrize(
    ("query", "shown", "has_more"),
    [
        ("limit=1", 1, True),
        ("limit=24", 24, True),
        ("limit=25", 25, False),
        ("limit=100", 25, False),
        ("limit=007", 7, True),
        ("limit=%2B3", 3, True),
        # If a key is repeated, its last value is used.
        ("limit=3&limit=4", 4, True),
        ("limit=x&limit=4", 4, True),
        # Parameters with an empty value are ignored.
        ("after=&before=&run_id=", 20, True),
        ("after=nonsense&after=", 20, True),
        ("nonsense=1&Limit=1&limit%00=2&=", 20, True),
        ("%ff=%ff&;&&=&", 20, True),
    ],
)
def test_limit_and_unusual_queries(
    api: Api, full: tuple[str, list[str]], query: str, shown: int, has_more: bool
) -> None:
    page = api.get(f"/threads/{full[0]}/messages?{query}")
    assert (page.status, len(page.body["data"]), page.body["has_more"]) == (200, shown, has_more)


INTEGER = in_query("integer", "limit")
LEAST, MOST = in_query("least", "limit", limit_value=1), in_query("most", "limit", limit_value=100)
ORDER = in_query("enum", "order", enum_values=["asc", "desc"])


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("query", "detail"),
    [
        *[
            (f"limit={text}", [INTEGER])
            for text in [
                "",
                "x",
                "1.0",
                "1e1",
                "+3",
                " 3",
                "3 ",
                "0x1",
                "1_0",
                "--1",
                "%2B",
                "-",
                "%D9%A3",
                "null",
                "%00",
                "%0A1",
            ]
        ],
        *[(f"limit={text}", [LEAST]) for text in ["0", "-1", "-0", "%2B0", "000", "-" + "9" * 5000]],
        *[(f"limit={text}", [MOST]) for text in ["101", "%2B101", "9" * 5000, "0101"]],
        *[(f"order={text}", [ORDER]) for text in ["", "ASC", "up", "asc ", "asc,desc", "%00"]],
        ("order=asc&order=up&limit=5&limit=x", [INTEGER, ORDER]),
        ("limit=0&order=up&after=nonsense&before=nonsense", [LEAST, ORDER]),
    ],
)
def test_bad_limit_and_order_are_reported_before_any_query(api: Api, query: str, detail: list[dict[str, Any]]) -> None:
    for path in ("/threads", "/threads/none/messages", "/threads/none/messages/none/files"):
        with CaptureQueriesContext(connection) as queries:
            answer = api.get(f"{path}?{query}")
        assert (answer.status, answer.body, len(queries)) == (422, {"detail": detail}, 0)


UNKNOWN = ["nonsense", "%00", "%F0%9F%98%80", "x" * 5000, "{thread}", "{elsewhere}"]


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_unknown_and_foreign_cursors_are_refused(api: Api, full: tuple[str, list[str]], unknown: str) -> None:
    thread, ids = full
    other = api.post("/threads", {"messages": [GOOD]}).body["id"]
    elsewhere = api.get(f"/threads/{other}/messages").body["first_id"]
    unknown = unknown.format(thread=thread, elsewhere=elsewhere)
    messages = f"/threads/{thread}/messages"
    for code, path, known in (
        ("message", messages, ids[3]),
        ("file", f"{messages}/{ids[-1]}/files", "f1"),
        *([("thread", "/threads", other)] if unknown != thread else []),
    ):
        after, before = in_query(code, "after"), in_query(code, "before")
        for query, detail in (
            (f"after={unknown}", [after]),
            (f"before={unknown}", [before]),
            (f"before={unknown}&after={unknown}", [after, before]),
            (f"after={known}&before={unknown}", [before]),
            (f"before={known}&after={unknown}", [after]),
        ):
            answer = api.get(f"{path}?{query}")
            assert (answer.status, answer.body) == (422, {"detail": detail})


def test_missing_thread_or_message_precedes_a_bad_cursor(api: Api, thread_id: str) -> None:
    missing = {"detail": "Thread with ID 'none' not found"}
    for path in ("messages", "messages/none/files", "messages/none", "messages/none/files/f"):
        answer = api.get(f"/threads/none/{path}?after=nonsense")
        assert (answer.status, answer.body) == (404, missing)
    answer = api.get(f"/threads/{thread_id}/messages/none/files?after=nonsense")
    assert (answer.status, answer.body) == (
        404,
        {"detail": f"Message with ID 'none' in thread '{thread_id}' not found"},
    )


def test_other_tenants_threads_are_neither_listed_nor_cursors(api: Api) -> None:
    other = new_thread(tenant="another", metadata={"whose": "another's"})
    store_rows([other])
    assert other.id not in {thread["id"] for thread in api.get("/threads?limit=100").body["data"]}
    assert api.get("/threads?metadata[whose]=another's").body["data"] == []
    for key in ("after", "before"):
        assert api.get(f"/threads?{key}={other.id}").body == {"detail": [in_query("thread", key)]}


METADATA: list[dict[str, str]] = [
    {"user": "zoë", "n": "1"},
    {"user": "zoë", "n": "2"},
    {"user": "Zoë"},
    {"a.b": "$x", "$where": "1", "": "", "0": "zero", 'q"u\\o': "😀 &=%", "a]b[": "[]"},
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata[user]=zo%C3%AB", [1, 0]),
        ("metadata[user]=zoë&order=asc", [0, 1]),
        ("metadata[user]=zo%C3%AB&metadata[n]=2", [1]),
        ("metadata%5Buser%5D=zo%C3%AB&metadata[n]=3", []),
        ("metadata[user]=x&metadata[user]=Zo%C3%AB", [2]),  # the last value of a repeated key is used
        ("metadata[user]=zo", []),
        ("metadata[USER]=zo%C3%AB", []),
        ("metadata[a.b]=$x", [3]),
        ("metadata[a][b]=$x", []),
        ("metadata[$where]=1", [3]),
        ("metadata[]=", [3]),
        ("metadata[0]=zero", [3]),
        ("metadata[q%22u\\o]=%F0%9F%98%80+%26%3D%25", [3]),
        ("metadata[a]b[]=[]", [3]),
        ("metadata[a.b]=%25", []),
        ("metadata[a.b]=$x&metadata[]=&metadata[0]=zero&metadata[n]=1", []),
    ],
)
def test_metadata_filter_finds_threads_by_exact_pairs(api: Api, query: str, found: list[int]) -> None:
    mark = f"found by {query}"
    created = [api.post("/threads", {"metadata": {**pairs, "mark": mark}}).body["id"] for pairs in METADATA]
    # Changed threads match only by their new metadata. Deleted threads never match.
    changed = api.post("/threads", {"metadata": {**METADATA[0], **METADATA[3], "mark": mark}}).body["id"]
    api.post(f"/threads/{changed}", {"metadata": {**dict.fromkeys(METADATA[3]), "user": "nobody", "n": "4"}})
    deleted = api.post("/threads", {"metadata": {**METADATA[0], **METADATA[3], "mark": mark}}).body["id"]
    api.delete(f"/threads/{deleted}")
    page = api.get(f"/threads?{query}").body
    assert [created.index(thread["id"]) for thread in page["data"] if thread["metadata"].get("mark") == mark] == found
    assert api.get("/threads?metadata[user]=nobody&metadata[n]=4").body["first_id"] == changed


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("query", "unknown"),
    [
        ("metdata[user]=x", ["metdata[user]"]),
        ("user=x", ["user"]),
        ('metadata={"user":"x"}', ["metadata"]),
        ("metadata.user=x", ["metadata.user"]),
        ("metadata[user=x", ["metadata[user"]),
        ("Metadata[user]=x&metadata[user]=x", ["Metadata[user]"]),
        ("run_id=run_1&b=1&a=2&b=3", ["run_id", "b", "a"]),
        ("=x", [""]),
        ("%00=x&%FF=x", ["\0", "\ufffd"]),
    ],
)
def test_unknown_key_does_not_list_all_threads(api: Api, query: str, unknown: list[str]) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = api.get(f"/threads?{query}")
    assert (answer.status, answer.body, len(queries)) == (
        422,
        {"detail": [in_query("extra", key) for key in unknown]},
        0,
    )
    answer = api.get(f"/threads?{query}&limit=0&order=up")
    assert answer.body == {"detail": [LEAST, ORDER, *(in_query("extra", key) for key in unknown)]}


def test_cursor_does_not_have_to_match_the_filter(api: Api) -> None:
    first, second, third = (
        api.post("/threads", {"metadata": {"cursor": cursor}}).body["id"] for cursor in ("a", "b", "a")
    )
    page = api.get(f"/threads?metadata[cursor]=a&order=asc&after={second}").body
    assert [thread["id"] for thread in page["data"]] == [third]
    page = api.get(f"/threads?metadata[cursor]=a&order=desc&after={second}").body
    assert page["first_id"] == first


def test_each_file_is_listed_once_and_can_be_retrieved(api: Api, full: tuple[str, list[str]]) -> None:
    thread, ids = full
    path = f"/threads/{thread}/messages/{ids[-1]}/files"
    message = api.get(f"/threads/{thread}/messages/{ids[-1]}").body
    files = [
        {
            "id": file_id,
            "object": "thread.message.file",
            "created_at": message["created_at"],
            "message_id": ids[-1],
        }
        for file_id in ("f1", "f2", "f3")
    ]
    assert api.get(f"{path}?order=asc").body == {
        "object": "list",
        "data": files,
        "first_id": "f1",
        "last_id": "f3",
        "has_more": False,
    }
    assert [file["id"] for file in api.get(path).body["data"]] == ["f3", "f2", "f1"]
    assert api.get(f"{path}/f2", HTTP_OPENAI_BETA="assistants=v2").body == files[1]
    for unknown in ("f4", "F1", "%00", "f1%20"):
        decoded = unknown.replace("%00", "\0").replace("%20", " ")
        answer = api.get(f"{path}/{unknown}")
        assert (answer.status, answer.body) == (
            404,
            {"detail": f"File with ID '{decoded}' in message '{ids[-1]}' not found"},
        )


def test_page_costs_one_query_and_two_with_a_cursor(api: Api, full: tuple[str, list[str]]) -> None:
    def queries(path: str) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(path).status == 200
        return [query["sql"].split()[0] for query in captured]

    thread, ids = full
    for limit in (1, 20, 100):
        # SQL engines check the thread and read its messages in one query with a join. MongoDB needs a separate query
        # for the thread.
        joined = 0 if engines.chosen == "mongodb" else 1
        bounds = f"after={ids[9]}&before={ids[2]}"
        assert queries(f"/threads/{thread}/messages?limit={limit}") == ["SELECT"] * (2 - joined)
        assert queries(f"/threads/{thread}/messages?limit={limit}&{bounds}") == ["SELECT"] * (3 - joined)
        assert queries(f"/threads?limit={limit}") == ["SELECT"]
        assert queries(f"/threads?limit={limit}&metadata[a]=b&after={thread}") == ["SELECT"] * 2
        # For a filter with several pairs, SQL engines use additional queries to find the rarest pair. MongoDB does not
        # need them, because one index contains all pairs.
        several = 1 if engines.chosen == "mongodb" else 3
        assert queries(f"/threads?limit={limit}&metadata[a]=b&metadata[c]=d") == ["SELECT"] * several
        files = f"/threads/{thread}/messages/{ids[-1]}/files?limit={limit}&after=f1"
        assert queries(files) == ["SELECT"] * (2 - joined)


def test_run_filter_returns_the_messages_of_a_run(api: Api, thread_id: str) -> None:
    thread = Thread.objects.get(id=thread_id)
    runs = ["r1", None, "r2", "r1", "R1", "r1"]
    messages = [
        new_message(thread=thread, position=i, role="assistant", content=[text_part("x")], run_id=run)
        for i, run in enumerate(runs, start=1)
    ]
    Message.objects.bulk_create(messages)
    page = api.get(f"/threads/{thread_id}/messages?run_id=r1&limit=2").body
    assert [message["id"] for message in page["data"]] == [messages[5].id, messages[3].id]
    assert page["has_more"]
    page = api.get(f"/threads/{thread_id}/messages?run_id=r1&limit=2&after={messages[2].id}").body
    assert [message["id"] for message in page["data"]] == [messages[0].id]
    assert not page["has_more"]
