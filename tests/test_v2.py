"""The v2 shape (`OpenAI-Beta: assistants=v2`): requests, responses, errors, and messages read in both shapes."""

from typing import Any

import pytest
from django.test import Client, override_settings

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from tests.conftest import ROOT, Answer, Api, detail_of
from tests.rows import new_message

V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}
GOOD = {"role": "user", "content": "hello"}


def post(api: Api, thread_id: str, body: Any) -> Answer:
    return api.post(f"/threads/{thread_id}/messages", body, **V2)


def written(text: str) -> dict[str, Any]:
    return {"type": "text", "text": {"value": text, "annotations": []}}


@pytest.mark.parametrize(
    ("header", "is_v2"),
    [
        (None, False),
        ("", False),
        ("assistants=v1", False),
        ("assistants=v3", False),
        ("v2", False),
        ("assistants=v22", False),
        ("assistants = v2", False),
        ("assistants=v2;q=1", False),
        ("assistants=v2", True),
        ("Assistants=V2", True),
        (" \tassistants=v2 ", True),
        ("assistants=v1,assistants=v2", True),
        ("assistants=v2, realtime=v1", True),
        (",,assistants=v2", True),
    ],
)
def test_header_chooses_the_shape_of_answers_and_errors(
    api: Api, thread_id: str, header: str | None, is_v2: bool
) -> None:
    meta = {} if header is None else {"HTTP_OPENAI_BETA": header}
    assert ("tool_resources" in api.get(f"/threads/{thread_id}", **meta).body) == is_v2
    assert ("error" in api.get("/threads/none", **meta).body) == is_v2
    assert ("error" in api.get("/nowhere", **meta).body) == is_v2


@pytest.mark.stateless
def test_several_header_lines_are_joined(served: Any) -> None:
    request = b"GET /threads/none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    lines = b"OpenAI-Beta: assistants=v1\r\nOpenAI-Beta: assistants=v2\r\n\r\n"
    assert b'"error":' in served.send(request + lines)


def test_message_is_answered_in_full_and_reads_in_both_shapes(api: Api, thread_id: str) -> None:
    sent = {
        "role": "assistant",
        "content": "Nobody knows.",
        "attachments": [{"file_id": "f1", "tools": [{"type": "file_search"}, {"type": "code_interpreter"}]}],
        "metadata": {"k": "v"},
        "assistant_id": "asst_1",
        "run_id": "run_1",
    }
    made = post(api, thread_id, sent)
    row = Message.objects.get(id=made.body["id"])
    created_at = int(row.created_at.timestamp())
    default = {
        "_id": row.object_id,
        "id": row.id,
        "object": "thread.message",
        "created_at": created_at,
        "thread_id": thread_id,
        "role": "assistant",
        "content": [written("Nobody knows.")],
        "assistant_id": "asst_1",
        "run_id": "run_1",
        "file_ids": ["f1"],
        "metadata": {"k": "v"},
    }
    v2 = {
        **default,
        "status": "completed",
        "completed_at": created_at,
        "incomplete_at": None,
        "incomplete_details": None,
        "attachments": sent["attachments"],
    }
    path = f"/threads/{thread_id}/messages"
    assert (made.status, made.body) == (200, v2)
    assert list(made.body) == list(v2)
    assert api.get(f"{path}/{row.id}", **V2).body == v2
    assert api.get(f"{path}/{row.id}").body == default
    assert api.get(path, **V2).body["data"] == [v2]
    assert api.get(path).body["data"] == [default]


def test_missing_author_is_null_in_v2_and_empty_by_default(api: Api, thread_id: str) -> None:
    for body in (GOOD, {**GOOD, "assistant_id": "", "run_id": ""}, {**GOOD, "assistant_id": None, "run_id": None}):
        message = post(api, thread_id, body).body
        assert (message["assistant_id"], message["run_id"], message["attachments"]) == (None, None, [])
        message = api.get(f"/threads/{thread_id}/messages/{message['id']}").body
        assert (message["assistant_id"], message["run_id"]) == ("", "")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("x" * 256_000, [written("x" * 256_000)]),
        ("😀" * 32_769, [written("😀" * 32_769)]),
        ([{"type": "text", "text": " a "}], [written(" a ")]),
        (
            [{"type": "text", "text": "x" * 128_000}, {"text": "y" * 128_000, "type": "text"}],
            [written("x" * 128_000), written("y" * 128_000)],
        ),
        (
            [
                {"type": "image_file", "image_file": {"file_id": "file-1"}},
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": None}},
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "not a url", "detail": "auto"}},
                {"type": "image_url", "image_url": {"url": "https://x.example/é.png"}},
            ],
            [
                {"type": "image_file", "image_file": {"file_id": "file-1"}},
                {"type": "image_file", "image_file": {"file_id": "file-1"}},
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "not a url", "detail": "auto"}},
                {"type": "image_url", "image_url": {"url": "https://x.example/é.png"}},
            ],
        ),
        ([{"type": "text", "text": "x"}] * 100, [written("x")] * 100),
        (
            # The limit of 256,000 characters is for texts. Long URLs do not count.
            [{"type": "image_url", "image_url": {"url": "x" * 300_000}}],
            [{"type": "image_url", "image_url": {"url": "x" * 300_000}}],
        ),
    ],
)
def test_parts_read_as_parts_in_both_shapes(api: Api, thread_id: str, content: Any, shown: Any) -> None:
    made = post(api, thread_id, {**GOOD, "content": content})
    assert (made.status, made.body["content"]) == (200, shown)
    assert api.get(f"/threads/{thread_id}/messages/{made.body['id']}").body["content"] == shown


TOOL = {"type": "file_search"}


@pytest.mark.parametrize(
    ("sent", "file_ids", "attachments"),
    [
        ({"attachments": None}, [], []),
        ({"attachments": []}, [], []),
        ({"file_ids": ["b", "a", "b"]}, ["b", "a", "b"], [("b", []), ("a", []), ("b", [])]),
        ({"attachments": [{"file_id": "a"}]}, ["a"], [("a", [])]),
        ({"attachments": [{"file_id": "", "tools": None}]}, [""], [("", [])]),
        (
            {"attachments": [{"file_id": "a", "tools": [TOOL]}], "file_ids": ["c", "a", "b"]},
            ["a", "c", "b"],
            [("a", [TOOL]), ("c", []), ("b", [])],
        ),
        (
            {"attachments": [{"file_id": "a", "tools": [TOOL]}, {"file_id": "a", "tools": [TOOL] * 10}]},
            ["a", "a"],
            [("a", [TOOL]), ("a", [TOOL] * 10)],
        ),
        (
            {"attachments": [{"file_id": str(i)} for i in range(10)], "file_ids": [str(i) for i in range(10)]},
            [str(i) for i in range(10)],
            [(str(i), []) for i in range(10)],
        ),
    ],
)
def test_files_are_the_attachments_then_what_they_do_not_name(
    api: Api, thread_id: str, sent: Any, file_ids: list[str], attachments: list[tuple[str, list[Any]]]
) -> None:
    made = post(api, thread_id, {**GOOD, **sent})
    assert made.status == 200
    assert made.body["file_ids"] == file_ids
    assert made.body["attachments"] == [{"file_id": file_id, "tools": tools} for file_id, tools in attachments]


ROLES = ["user", "assistant"]
PARTS = ["text", "image_file", "image_url"]
NOT_TEXT: list[Any] = [5, 1.5, True, [], {}]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(**image_url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": image_url}


LONG = detail_of("long", "content", limit_value=256_000)
TOO_MANY_FILES = detail_of("many", "attachments", limit_value=10)

REFUSALS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    *[({"role": role}, [detail_of("enum", "role", enum_values=ROLES)]) for role in ["tool_call", "User", "", 5]],
    *[({"content": value}, [detail_of("str", "content")]) for value in [5, True, {}, {"type": "text"}]],
    ({"content": None}, [detail_of("null", "content")]),
    ({"content": ""}, [detail_of("short", "content", limit_value=1)]),
    ({"content": "x" * 256_001}, [LONG]),
    ({"content": "a\0"}, [detail_of("nul", "content")]),
    ({"content": []}, [detail_of("few", "content", limit_value=1)]),
    ({"content": [None] * 101}, [detail_of("many", "content", limit_value=100)]),
    (
        {"content": [None, 5, "text", [], {}, {"type": None}, {"type": "x", "y": 1}, {"type": ["text"]}, text("")]},
        [
            detail_of("null", "content", 0),
            *[detail_of("dict", "content", i) for i in (1, 2, 3)],
            detail_of("missing", "content", 4, "type"),
            detail_of("null", "content", 5, "type"),
            *[detail_of("enum", "content", i, "type", enum_values=PARTS) for i in (6, 7)],
            detail_of("short", "content", 8, "text", limit_value=1),
        ],
    ),
    (
        {"content": [{"type": "text"}, text("x") | {"text": None}, text("x") | {"text": {"value": "x"}}, text("\0")]},
        [
            detail_of("missing", "content", 0, "text"),
            detail_of("null", "content", 1, "text"),
            detail_of("str", "content", 2, "text"),
            detail_of("nul", "content", 3, "text"),
        ],
    ),
    (
        {"content": [text("x") | {"image_url": {}, "annotations": []}, text("\ud800") | {"b": 1, "a": 1}]},
        [
            detail_of("extra", "content", 0, "annotations"),
            detail_of("extra", "content", 0, "image_url"),
            detail_of("surrogate", "content", 1, "text"),
            detail_of("extra", "content", 1, "a"),
            detail_of("extra", "content", 1, "b"),
        ],
    ),
    (
        {
            "content": [
                {"type": "image_url"},
                {"type": "image_url", "image_url": None},
                {"type": "image_url", "image_url": "https://x.example"},
                image(),
                image(url=None, detail="medium"),
                image(url="", detail=1, z=1, file_id="f") | {"a": 1},
                image(url=5),
                image(url="a\0"),
                {"type": "image_file", "image_file": {"url": "x"}},
            ]
        },
        [
            detail_of("missing", "content", 0, "image_url"),
            detail_of("null", "content", 1, "image_url"),
            detail_of("dict", "content", 2, "image_url"),
            detail_of("missing", "content", 3, "image_url", "url"),
            detail_of("null", "content", 4, "image_url", "url"),
            detail_of("enum", "content", 4, "image_url", "detail", enum_values=["auto", "low", "high"]),
            detail_of("short", "content", 5, "image_url", "url", limit_value=1),
            detail_of("enum", "content", 5, "image_url", "detail", enum_values=["auto", "low", "high"]),
            detail_of("extra", "content", 5, "image_url", "file_id"),
            detail_of("extra", "content", 5, "image_url", "z"),
            detail_of("extra", "content", 5, "a"),
            detail_of("str", "content", 6, "image_url", "url"),
            detail_of("nul", "content", 7, "image_url", "url"),
            detail_of("missing", "content", 8, "image_file", "file_id"),
            detail_of("extra", "content", 8, "image_file", "url"),
        ],
    ),
    ({"content": [text("x" * 256_001)]}, [LONG]),
    ({"content": [text("x" * 128_000), image(url="u"), text("x" * 128_001)]}, [LONG]),
    ({"content": [text("x" * 256_001), 5]}, [detail_of("dict", "content", 1)]),
    *[({"attachments": value}, [detail_of("list", "attachments")]) for value in ["a", 5, True, {}]],
    ({"attachments": [None] * 11}, [TOO_MANY_FILES]),
    (
        {"attachments": [None, "f", {}, {"file_id": None, "tools": 1}, {"file_id": 5, "tools": [], "b": 1, "a": 1}]},
        [
            detail_of("null", "attachments", 0),
            detail_of("dict", "attachments", 1),
            detail_of("missing", "attachments", 2, "file_id"),
            detail_of("null", "attachments", 3, "file_id"),
            detail_of("list", "attachments", 3, "tools"),
            detail_of("str", "attachments", 4, "file_id"),
            detail_of("extra", "attachments", 4, "a"),
            detail_of("extra", "attachments", 4, "b"),
        ],
    ),
    (
        {"attachments": [{"file_id": "f", "tools": [TOOL] * 11}]},
        [detail_of("many", "attachments", 0, "tools", limit_value=10)],
    ),
    (
        {"attachments": [{"file_id": "f", "tools": [None, 5, {}, {"type": "x"}, {"type": "file_search", "x": {}}]}]},
        [
            detail_of("null", "attachments", 0, "tools", 0),
            detail_of("dict", "attachments", 0, "tools", 1),
            detail_of("missing", "attachments", 0, "tools", 2, "type"),
            detail_of("enum", "attachments", 0, "tools", 3, "type", enum_values=["code_interpreter", "file_search"]),
            detail_of("extra", "attachments", 0, "tools", 4, "x"),
        ],
    ),
    ({"attachments": [{"file_id": "a"}], "file_ids": [str(i) for i in range(10)]}, [TOO_MANY_FILES]),
    # The total number of files is checked only if there is no other error.
    (
        {"attachments": [{"file_id": "a"}], "file_ids": [str(i) for i in range(10)], "x": 1},
        [detail_of("extra", "x")],
    ),
    *[({name: value}, [detail_of("str", name)]) for name in ("assistant_id", "run_id") for value in NOT_TEXT],
    *[({name: "x" * 257}, [detail_of("long", name, limit_value=256)]) for name in ("assistant_id", "run_id")],
    ({"assistant_id": "\0", "run_id": "\ud800"}, [detail_of("nul", "assistant_id"), detail_of("surrogate", "run_id")]),
    (
        {"status": "completed", "tool_resources": None},
        [detail_of("extra", "status"), detail_of("extra", "tool_resources")],
    ),
]


@pytest.mark.stateless
@pytest.mark.parametrize(("fields", "detail"), REFUSALS)
def test_bad_message_is_refused_with_every_error_in_order(
    api: Api, fields: dict[str, Any], detail: list[dict[str, Any]]
) -> None:
    answer = post(api, "thread_none", {**GOOD, **fields})
    assert (answer.status, answer.body["detail"]) == (422, detail)


def test_errors_of_all_fields_come_in_the_order_of_the_fields(api: Api, thread_id: str) -> None:
    answer = post(
        api, thread_id, {"zz": 1, "run_id": 1, "assistant_id": 1, "attachments": 1, "metadata": 1, "file_ids": 1}
    )
    assert answer.body["detail"] == [
        detail_of("missing", "role"),
        detail_of("missing", "content"),
        detail_of("list", "file_ids"),
        detail_of("dict", "metadata"),
        detail_of("list", "attachments"),
        detail_of("str", "assistant_id"),
        detail_of("str", "run_id"),
        detail_of("extra", "zz"),
    ]
    assert not Message.objects.filter(thread_id=thread_id).exists()


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({**GOOD, "role": None}, 422, ("role: none is not an allowed value", "role", "type_error.none.not_allowed")),
        (
            {**GOOD, "content": [text("x"), image(url="")]},
            422,
            (
                "content.1.image_url.url: ensure this value has at least 1 characters",
                "content.1.image_url.url",
                "value_error.any_str.min_length",
            ),
        ),
        ({**GOOD, "": 1}, 422, (": extra fields not permitted", "", "value_error.extra")),
        (b"", 422, ("field required", None, "value_error.missing")),
        (b"[]", 422, ("value is not a valid dict", None, "type_error.dict")),
        (
            b'{"a":1,}',
            422,
            ("JSON decode error: Expecting property name enclosed in double quotes", None, "json_invalid"),
        ),
        (b"\xff", 400, ("There was an error parsing the body", None, None)),
        (b" " * (4 * 2**20 + 1), 413, ("Request body too large", None, None)),
        (GOOD, 404, ("Thread with ID 'thread_none' not found", None, None)),
    ],
)
def test_error_stands_beside_the_detail_and_is_its_first(
    api: Api, body: Any, status: int, error: tuple[str, str | None, str | None]
) -> None:
    answer = post(api, "thread_none", body)
    message, param, code = error
    assert answer.status == status
    assert set(answer.body) == {"detail", "error"}
    assert answer.body["error"] == {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    default = api.post("/threads/thread_none/messages", body).body
    # These bodies are not JSON objects, or are too large. The `detail` of such errors is the same in both shapes.
    if isinstance(body, bytes):
        assert answer.body["detail"] == default["detail"]
    assert set(default) == {"detail"}


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("POST", "/v1/threads//runs", 404, "Not Found"),
        ("GET", "/v1/assistantsx", 404, "Not Found"),
        ("GET", "/v1/v1/assistants", 404, "Not Found"),
        ("PUT", "/threads", 405, "Method Not Allowed"),
        ("POST", "/healthz", 405, "Method Not Allowed"),
        ("GET", "/threads?" + "&".join(f"k{i}=" for i in range(1100)), 400, "Bad Request"),
        ("GET", "/static/none.js", 404, "Not Found"),
    ],
)
def test_errors_of_the_framework_have_an_error_too(api: Api, method: str, path: str, status: int, message: str) -> None:
    answer = api.call(method, path, b"{", **V2)
    assert answer.status == status
    assert answer.body == {
        "detail": message,
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None},
    }
    assert api.call(method, path, b"{").body == {"detail": message}


@pytest.mark.stateless
@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("method", "path", "resource"),
    [
        ("POST", "/threads/runs", "runs"),
        ("GET", "/threads/thread_1/runs", "runs"),
        ("POST", "/threads/thread_1/runs/run_1/cancel", "runs"),
        ("GET", "/threads/é%0A/runs/%0A", "runs"),
        ("GET", "/assistants", "assistants"),
        ("DELETE", "/assistants/asst_1", "assistants"),
        ("PUT", "/assistants/", "assistants"),
        ("POST", "/vector_stores/vs_1/files", "vector_stores"),
        ("POST", "/files", "files"),
        ("GET", "/files/file-1/content", "files"),
        ("POST", "/responses", "responses"),
        ("POST", "/chat/completions", "chat"),
        ("GET", "/models", "models"),
        ("FOO", "/embeddings", "embeddings"),
    ],
)
def test_path_of_openai_that_is_not_served_says_so(
    api: Api, method: str, prefix: str, path: str, resource: str
) -> None:
    answer = api.call(method, f"{prefix}{path}", b"{", **V2)
    message = (
        f"Not Found: '{resource}' is not part of this service, which stores threads and messages. See /docs on this "
        "service for its API, and docs/from-openai.md in the threadsvc repository for the differences from OpenAI's "
        "API."
    )
    assert (answer.status, answer.body) == (
        404,
        {
            "detail": "Not Found",
            "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None},
        },
    )
    assert api.call(method, f"{prefix}{path}", b"{").body == {"detail": "Not Found"}
    with override_settings(ALLOW_ANONYMOUS=False):
        assert api.call(method, f"{prefix}{path}", b"{", **V2).body["error"]["message"] == "Invalid API key"


@pytest.mark.stateless
def test_pages_that_the_404_names_exist(api: Api, client: Client) -> None:
    message = api.get("/v1/assistants", **V2).body["error"]["message"]
    assert "/docs " in message
    assert client.get("/docs").status_code == 200
    assert "docs/from-openai.md" in message
    assert (ROOT / "docs/from-openai.md").exists()


@pytest.mark.stateless
def test_foreign_host_and_origin_have_an_error_too(api: Api) -> None:
    assert api.get("/threads", HTTP_HOST="evil.example", **V2).body["error"]["message"] == "Invalid Host header"
    refused = api.post("/threads", HTTP_ORIGIN="https://evil.example", **V2)
    assert (refused.status, refused.body["error"]["message"]) == (403, "Origin not allowed")


@pytest.mark.stateless
def test_first_error_of_a_list_query_is_named_by_its_key(api: Api) -> None:
    answer = api.get("/threads?limit=0&order=up", **V2)
    assert answer.body["error"] == {
        "message": "limit: ensure this value is greater than or equal to 1",
        "type": "invalid_request_error",
        "param": "limit",
        "code": "value_error.number.not_ge",
    }


@pytest.mark.parametrize("tool_resources", [None, {"file_search": {"vector_store_ids": ["vs_1"]}}, 5, "x", []])
def test_tool_resources_are_taken_and_shown_as_null(api: Api, tool_resources: Any) -> None:
    made = api.post("/threads", {"tool_resources": tool_resources, "metadata": {"k": "v"}}, **V2)
    assert (made.status, made.body["tool_resources"]) == (200, None)
    changed = api.post(f"/threads/{made.body['id']}", {"tool_resources": tool_resources, "metadata": {"l": "w"}}, **V2)
    assert (changed.status, changed.body["tool_resources"]) == (200, None)
    assert changed.body["metadata"] == {"k": "v", "l": "w"}
    read = api.get(f"/threads/{made.body['id']}").body
    assert set(read) == {"_id", "id", "object", "created_at", "metadata"}
    # In the default shape, `tool_resources` is an unknown key, so a body must not contain it.
    extra = {"detail": [detail_of("extra", "tool_resources")]}
    for path in ("/threads", f"/threads/{made.body['id']}"):
        assert api.post(path, {"tool_resources": tool_resources}).body == extra


def test_imported_roles_are_read_and_cannot_be_created(api: Api, thread_id: str) -> None:
    thread = Thread.objects.get(id=thread_id)
    for position, role in enumerate(["tool_call", "tool_output"], start=1):
        new_message(thread=thread, position=position, role=role, content=[text_part("x")]).save()
        assert post(api, thread_id, {**GOOD, "role": role}).status == 422
    for meta in ({}, V2):
        roles = [message["role"] for message in api.get(f"/threads/{thread_id}/messages", **meta).body["data"]]
        assert roles == ["tool_output", "tool_call"]
