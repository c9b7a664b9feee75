"""A POST to a thread or a message sets or removes individual metadata keys."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from tests import engines
from tests.conftest import Api, Served, connection, detail_of, in_transaction

GOOD = {"role": "user", "content": "hello"}
FULL = {f"k{i:02}": "v" for i in range(16)}


@pytest.fixture(params=["thread", "message"])
def path(request: pytest.FixtureRequest, api: Api, thread_id: str) -> str:
    """The path of a thread or a message with the metadata {"a": "1", "b": "2"}."""
    start = {"metadata": {"a": "1", "b": "2"}}
    if request.param == "thread":
        return f"/threads/{api.post('/threads', start).body['id']}"
    messages = f"/threads/{thread_id}/messages"
    return f"{messages}/{api.post(messages, {**GOOD, **start}).body['id']}"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {"a": "1", "b": "2"}),
        ({"metadata": None}, {"a": "1", "b": "2"}),
        ({"metadata": {}}, {"a": "1", "b": "2"}),
        ({"metadata": {"c": "3"}}, {"a": "1", "b": "2", "c": "3"}),
        ({"metadata": {"b": "", "a": "0"}}, {"a": "0", "b": ""}),
        ({"metadata": {"a": None}}, {"b": "2"}),
        ({"metadata": {"none": None}}, {"a": "1", "b": "2"}),
        ({"metadata": {"a": None, "b": None}}, {}),
        ({"metadata": {"": "é", "a.b": "$", "a": None}}, {"b": "2", "": "é", "a.b": "$"}),
        ({"metadata": {f"k{i}": "v" for i in range(14)}}, {"a": "1", "b": "2", **{f"k{i}": "v" for i in range(14)}}),
        ({"metadata": {"a": None, "b": None, **FULL}}, FULL),
        ({"metadata": {**{f"no{i}": None for i in range(500)}, "a": "3"}}, {"a": "3", "b": "2"}),
    ],
)
def test_metadata_keys_are_set_removed_by_null_or_kept(
    api: Api, path: str, sent: dict[str, Any], expected: dict[str, str]
) -> None:
    before = api.get(path).body
    answer = api.post(f"/v1{path}", sent)
    assert (answer.status, answer.body) == (200, {**before, "metadata": expected})
    assert api.get(path).body == answer.body


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", [detail_of("missing")]),
        (b"null", [detail_of("missing")]),
        (b"[]", [detail_of("dict")]),
        (b'"x"', [detail_of("dict")]),
        (
            {"metadata": [], "role": "user", "content": "x"},
            [detail_of("dict", "metadata"), detail_of("extra", "content"), detail_of("extra", "role")],
        ),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, [detail_of("pairs", "metadata", limit_value=16)]),
        # A null value removes its key. The key is checked nevertheless.
        (
            {"metadata": {"k" * 65: None, "\0": None, "a": 1, "b": None, "c": "v" * 513}},
            [
                detail_of("long", "metadata", "__key__", limit_value=64),
                detail_of("nul", "metadata", "__key__"),
                detail_of("str", "metadata", "a"),
                detail_of("long", "metadata", "c", limit_value=512),
            ],
        ),
        # These bodies are valid by themselves, but the stored metadata would then have more than 16 pairs.
        ({"metadata": {f"k{i}": "v" for i in range(15)}}, [detail_of("pairs", "metadata", limit_value=16)]),
        ({"metadata": {**FULL, "a": None}}, [detail_of("pairs", "metadata", limit_value=16)]),
    ],
)
def test_invalid_change_reports_every_error_and_changes_nothing(
    api: Api, path: str, body: Any, detail: list[dict[str, Any]]
) -> None:
    answer = api.post(path, body)
    assert (answer.status, answer.body) == (422, {"detail": detail})
    assert api.get(path).body["metadata"] == {"a": "1", "b": "2"}


def test_body_errors_precede_404_and_404_precedes_merge_errors(api: Api, path: str) -> None:
    missing = f"{path}x"
    assert api.post(missing, {"metadata": 1}).status == 422
    for body in ({}, {"metadata": {"a": "1"}}, {"metadata": FULL}):
        answer = api.post(missing, body)
        assert answer.status == 404
        assert answer.body["detail"].endswith("not found")


def test_message_is_found_only_in_its_own_thread(api: Api, thread_id: str) -> None:
    message = api.post(f"/threads/{thread_id}/messages", GOOD).body["id"]
    other = api.post("/threads").body["id"]
    missing = {"detail": f"Message with ID '{message}' in thread '{other}' not found"}
    for answer in (
        api.post(f"/threads/{other}/messages/{message}", {"metadata": {"a": "b"}}),
        api.get(f"/threads/{other}/messages/{message}"),
        api.delete(f"/threads/{other}/messages/{message}"),
    ):
        assert (answer.status, answer.body) == (404, missing)
    assert api.get(f"/threads/{thread_id}/messages/{message}").body["metadata"] == {}


def test_concurrent_changes_are_all_kept(served: Served) -> None:
    thread = served.new_thread()
    message = served.call("POST", f"/threads/{thread}/messages", GOOD, Content_Type="application/json").body["id"]
    for path in (f"/threads/{thread}", f"/threads/{thread}/messages/{message}"):

        def change(key: str, path: str = path) -> int:
            body = {"metadata": {key: "set"}}
            return served.call("POST", path, body, Content_Type="application/json").status

        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(change, FULL)) == {200}
        assert served.call("GET", path).body["metadata"] == dict.fromkeys(sorted(FULL), "set")


def test_change_costs_a_fixed_number_of_queries(api: Api, path: str) -> None:
    def queries(body: Any) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert api.post(path, body).status == 200
        return [query["sql"].split()[0] for query in captured]

    is_message = "messages" in path
    lookup = ["SELECT"] * (1 + is_message)
    assert queries({}) == lookup
    # The stored value of this key is already "1", so there is no UPDATE.
    assert queries({"metadata": {"a": "1"}}) == [*lookup[1:], *in_transaction("SELECT")]
    # SQL engines also store each metadata pair of a thread as a separate row.
    pairs = [] if is_message or engines.chosen == "mongodb" else ["DELETE", "INSERT"]
    assert queries({"metadata": {"a": "2", "b": None}}) == [*lookup[1:], *in_transaction("SELECT", "UPDATE", *pairs)]
