"""The documentation that the service serves matches the reference page and the committed schema."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from django.db import OperationalError
from django.test import Client, override_settings
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework.views import APIView

from messages_app.api.errors import wire_error
from messages_app.store.errors import KeyInUse
from tests.conftest import ROOT, Answer, Api
from threadsvc.access.models import APIKey
from threadsvc.access.throttle import RateLimit
from threadsvc.api.errors import answer_of_database, exception_handler
from threadsvc.api.middleware import openai_error
from threadsvc.engines.base import DiskFull

PAGES = ["/docs", "/redoc"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    generated: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return generated


@pytest.mark.stateless
def test_schema_is_valid_and_made_without_warnings() -> None:
    GENERATOR_STATS.reset()
    validate_schema(SchemaGenerator().get_schema(request=None, public=True))
    assert not GENERATOR_STATS


@pytest.mark.stateless
def test_committed_schema_is_the_generated_one(schema: dict[str, Any]) -> None:
    committed = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text(encoding="utf-8"))
    assert committed == yaml.safe_load(yaml.safe_dump(to_plain(schema))), "run `make schema`"


@pytest.mark.stateless
def test_served_schema_is_the_generated_one(client: Client, schema: dict[str, Any]) -> None:
    assert client.get("/openapi.json").json() == to_plain(schema)
    assert yaml.safe_load(client.get("/openapi.yaml").content) == to_plain(schema)


@pytest.mark.stateless
@pytest.mark.parametrize("query", ["version=%00", "version=%0d%0aX:y", "version=2", "lang=de", "format=html"])
def test_served_schema_does_not_depend_on_the_query(client: Client, query: str) -> None:
    answer = client.get(f"/openapi.json?{query}")
    assert (answer.status_code, answer.content) == (200, client.get("/openapi.json").content)


def to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def reference_lines(schema: dict[str, Any]) -> list[str]:
    """Generate the reference page of Create Message from the schema, and return its lines."""
    schemas = schema["components"]["schemas"]
    operation = schema["paths"]["/threads/{thread_id}/messages"]["post"]
    (thread_id,) = (parameter for parameter in operation["parameters"] if parameter["in"] == "path")
    body = operation["requestBody"]
    assert thread_id["required"]
    assert body["required"]

    def resolved(content: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of the default shape. If the schema has alternatives, this shape is the first."""
        found: dict[str, Any] = content["content"]["application/json"]["schema"]
        while "properties" not in found:
            found = found["anyOf"][0] if "anyOf" in found else schemas[found["$ref"].rpartition("/")[2]]
        return found

    def properties(of: dict[str, Any], mark_required: str, mark_optional: str) -> list[str]:
        lines = []
        for name, value in of["properties"].items():
            items = value.get("items", {})
            (type_name,) = {value["type"]} if isinstance(value["type"], str) else {*value["type"]} - {"null"}
            kind = {
                "array": f"{'object' if '$ref' in items else items.get('type', 'undefined')}[]",
                "object": "object",
            }.get(type_name, value.get("title"))
            mark = mark_required if name in of.get("required", []) else mark_optional
            lines.append(f"{name} {kind} {mark}".strip())
            if "enum" in value:
                lines.append(f"Possible values: [{', '.join(value['enum'])}]")
            if "maxLength" in value:
                lines.append(f"Possible values: {value['minLength']} ≤ length ≤ {value['maxLength']}")
            if "description" in value:
                lines.append(value["description"])
            if "$ref" in items:
                lines += properties(schemas[items["$ref"].rpartition("/")[2]], "", mark_optional)
        return lines

    lines = ["Skip to main content", operation["summary"], operation["description"], "Path Parameters"]
    lines += [f"thread_id {thread_id['schema']['title']} REQUIRED", "Request Body REQUIRED"]
    lines += properties(resolved(body), "REQUIRED", "")
    lines.append("Responses")
    for status in ("200", "422"):
        answer = operation["responses"][status]
        lines += [status, answer["description"], "Schema OPTIONAL", *properties(resolved(answer), "", "OPTIONAL")]
    return lines


@pytest.mark.stateless
def test_create_message_reads_as_the_reference_page(schema: dict[str, Any]) -> None:
    page = (ROOT / "docs/contract/reference-page.txt").read_text(encoding="utf-8")
    assert reference_lines(schema) == [line.strip() for line in page.splitlines() if line.strip()]


@pytest.mark.stateless
def test_limits_and_answers_of_create_message_are_in_the_schema(schema: dict[str, Any]) -> None:
    request = schema["components"]["schemas"]["CreateMessageRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["file_ids"]["maxItems"] == 10
    metadata = request["properties"]["metadata"]
    no_nul = {"pattern": r"^[^\u0000]*$"}
    assert (metadata["maxProperties"], metadata["propertyNames"]) == (16, {"maxLength": 64, **no_nul})
    assert metadata["additionalProperties"] == {"type": "string", "maxLength": 512, **no_nul}
    answers = schema["paths"]["/threads/{thread_id}/messages"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "503", "507"}
    assert all("x-request-id" in answer["headers"] for answer in answers.values())
    assert {"CreateMessageRequest", "MessageObject", "HTTPValidationError", "ValidationError"} <= set(
        schema["components"]["schemas"]
    )


@pytest.mark.stateless
@pytest.mark.parametrize("page", PAGES)
def test_page_loads_everything_from_here(client: Client, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in answer["Content-Security-Policy"]
    assets = re.findall(r'(?:src|href)="([^"]+)"', answer.content.decode())
    assert len(assets) >= 4
    for asset in assets:
        assert asset.startswith("/")
        assert not asset.startswith("//")
        loaded = client.get(asset)
        assert loaded.status_code == 200, asset
        loaded.close()
    assert "<script>" not in answer.content.decode()


@pytest.mark.stateless
def test_bundle_of_redoc_asks_nobody_for_a_logo(client: Client) -> None:
    bundle = client.get("/redoc.js").content.decode()
    assert len(bundle) > 500_000
    assert "cdn.redoc.ly" not in bundle
    assert "fonts.googleapis.com" not in bundle


@pytest.mark.parametrize(("shape", "beta"), [("", "assistants=v1"), ("V2", "assistants=v2")])
def test_answers_of_both_shapes_are_what_the_schema_says(
    api: Api, schema: dict[str, Any], shape: str, beta: str
) -> None:
    meta = {"HTTP_OPENAI_BETA": beta}

    def assert_described(answer: Answer, component: str) -> None:
        components = schema["components"]
        reference = {"$ref": f"#/components/schemas/{component}", "components": components}
        jsonschema.Draft202012Validator(reference).validate(answer.body)
        assert set(answer.body) == set(components["schemas"][component]["properties"])

    thread = api.post("/threads", {"metadata": {"k": "v"}}, **meta)
    assert_described(thread, f"ThreadObject{shape}")
    path = f"/threads/{thread.body['id']}"
    message = api.post(f"{path}/messages", {"role": "user", "content": "x", "file_ids": ["f"]}, **meta)
    assert_described(message, f"MessageObject{shape}")
    files = f"{path}/messages/{message.body['id']}/files"
    assert_described(api.get("/threads?limit=1", **meta), f"ThreadList{shape}")
    assert_described(api.get(f"{path}/messages", **meta), f"MessageList{shape}")
    assert_described(api.get(f"{path}/messages?run_id=none", **meta), f"MessageList{shape}")
    assert_described(api.get(files, **meta), "MessageFileList")
    assert_described(api.get(f"{files}/f", **meta), "MessageFileObject")
    assert_described(api.post(f"{path}/messages", b"\xff", **meta), f"HTTPError{shape}")
    assert_described(api.get("/threads?limit=x", **meta), f"HTTPValidationError{shape}")
    assert_described(api.delete(f"{path}/messages/{message.body['id']}", **meta), "MessageDeleted")
    assert_described(api.delete(path, **meta), "ThreadDeleted")


def test_examples_of_bodies_are_what_the_service_takes(api: Api, schema: dict[str, Any]) -> None:
    """The v2 shape accepts each example of a request body.

    /docs fills in the first example, so the default shape must accept this example too.
    """
    thread_id = api.post("/threads").body["id"]
    message_id = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": "x"}).body["id"]
    for path, operations in schema["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        if body is None:
            continue
        first, *more = (example["value"] for example in body["content"]["application/json"]["examples"].values())
        url = path.format(thread_id=thread_id, message_id=message_id)
        assert api.post(url, first).status == 200, (path, first)
        for example in (first, *more):
            assert api.post(url, example, HTTP_OPENAI_BETA="assistants=v2").status == 200, (path, example)


# Response examples

OPERATIONS = [
    "create_thread",
    "list_threads",
    "retrieve_thread",
    "modify_thread",
    "delete_thread",
    "create_message",
    "list_messages",
    "retrieve_message",
    "modify_message",
    "delete_message",
    "list_message_files",
    "retrieve_message_file",
]
QUESTION = {"role": "user", "content": "How does AI work?", "metadata": {"topic": "ai"}}
INVALID_BODIES = {
    "create_thread": {"messages": [{"role": "user"}]},
    "create_message": {"role": "user", "text": "How does AI work?"},
    "modify_thread": {"metadata": {"topic": 5}},
    "modify_message": {"metadata": {"topic": 5}},
}
ABSENT = {"thread_id": "thread_" + "0" * 26, "message_id": "msg_" + "0" * 26, "file_id": "file-manual"}


def described(schema: dict[str, Any], operation_id: str) -> tuple[str, str, dict[str, Any]]:
    """Return the method and path of an operation, and its object in the schema."""
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if operation["operationId"] == operation_id:
                return method.upper(), path, operation
    raise LookupError(operation_id)


def examples_of(schema: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return a response's examples as a mapping from name to value."""
    examples = answer["content"]["application/json"]["examples"]
    shared = schema["components"]["examples"]
    return {name: (shared[name] if "$ref" in each else each)["value"] for name, each in examples.items()}


def masked(body: Any) -> str:
    """Return the body as JSON, with ids and times replaced by fixed texts. The order of keys is unchanged."""
    text = re.sub(r"\b(thread|msg)_[0-9a-z]{26}\b", r"\1", json.dumps(body))
    return re.sub(r'(_at": )[0-9]+', r"\g<1>0", re.sub(r'"[0-9a-f]{24}"', '"object id"', text))


@pytest.mark.once
@pytest.mark.parametrize("shape", ["", "V2"])
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_examples_of_responses_are_what_the_service_answers(
    api: Api,
    schema: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    operation_id: str,
    shape: str,
) -> None:
    method, path, operation = described(schema, operation_id)
    shape_meta = {"HTTP_OPENAI_BETA": "assistants=v2"} if shape else {}

    def key(**fields: Any) -> dict[str, str]:
        token = APIKey(name="examples", tenant=f"examples-{operation_id}{shape}", **fields).issue()
        return {"HTTP_AUTHORIZATION": f"Bearer {token}", **shape_meta}

    mine = key()
    thread_id = api.post("/threads", {"metadata": {"customer": "customer-17"}}, **mine).body["id"]
    message = QUESTION | ({"file_ids": ["file-manual"]} if "file" in operation_id else {})
    message_id = api.post(f"/threads/{thread_id}/messages", message, **mine).body["id"]
    ids = {"thread_id": thread_id, "message_id": message_id, "file_id": "file-manual"}
    body: Any = b""
    if "requestBody" in operation:
        first, *_ = operation["requestBody"]["content"]["application/json"]["examples"].values()
        body = first["value"]

    def ask(sent: Any = body, ids: dict[str, str] = ids, query: str = "", **meta: str) -> Answer:
        return api.call(method, path.format(**ids) + query, sent, **{**mine, **meta})

    def not_found() -> Answer:
        names = re.findall(r"{(\w+)}", path)
        if names[-1] != "file_id":
            return ask(ids=ids | {names[-1]: ABSENT[names[-1]]})
        without_file = api.post(f"/threads/{thread_id}/messages", QUESTION, **mine).body["id"]
        return ask(ids=ids | {"message_id": without_file})

    def reuse_key() -> Answer:
        ask(HTTP_IDEMPOTENCY_KEY="once")
        return ask({**body, "metadata": {}}, HTTP_IDEMPOTENCY_KEY="once")

    def exceed_rate() -> Answer:
        limit = override_settings(RATE_LIMIT=(1, 3600), RATE_FILE=tmp_path / "rates")
        with monkeypatch.context() as patch, limit:
            patch.setattr(APIView, "throttle_classes", [RateLimit])
            api.get("/threads/x", **mine)
            return ask()

    requests: dict[str, Callable[[], Answer]] = {
        "NotUTF8": lambda: ask(b"\xff"),
        "InvalidAPIKey": lambda: ask(HTTP_AUTHORIZATION="Bearer tsk_unknown"),
        "ReadOnlyKey": lambda: ask(HTTP_AUTHORIZATION=key(read_only=True)["HTTP_AUTHORIZATION"]),
        "OriginNotAllowed": lambda: ask(HTTP_AUTHORIZATION="", HTTP_ORIGIN="https://shop.example"),
        "NotFound": not_found,
        "RequestBodyTooLarge": lambda: ask(CONTENT_LENGTH=str(10**9)),
        "UnsupportedEncoding": lambda: ask(HTTP_CONTENT_ENCODING="gzip"),
        "Invalid": lambda: ask(INVALID_BODIES[operation_id]) if body else ask(query="?limit=500"),
        "KeyReused": reuse_key,
        "TooManyRequests": exceed_rate,
    }
    # A single request cannot cause these errors. The test therefore calls the error handlers directly and compares
    # their responses.
    in_code: dict[str, Callable[[], Any]] = {
        "RequestInProgress": lambda: exception_handler(wire_error(KeyInUse(), {}), {}),
        "ServiceUnavailable": lambda: answer_of_database(OperationalError()),
        "InsufficientStorage": lambda: answer_of_database(DiskFull()),
    }
    statuses = list(operation["responses"])
    # The 200 comes first in the schema but is tested last, because its request may delete the thread that others need.
    for status in [*statuses[1:], statuses[0]]:
        examples = examples_of(schema, operation["responses"][status])
        names = [name for name in examples if name.endswith("V2") == bool(shape)] or ["Default"]
        for name in names:
            cause = name.removesuffix("V2")
            if cause in in_code:
                answer = in_code[cause]()
                detail = json.loads(answer.content)["detail"]
                error = {"error": openai_error(answer.status_code, detail)} if shape else {}
                expected = {"detail": detail, **error}
                assert (str(answer.status_code), examples[name]) == (status, expected)
            else:
                answered = ask() if status == "200" else requests[cause]()
                assert (str(answered.status), masked(answered.body)) == (status, masked(examples[name]))


@pytest.mark.stateless
def test_examples_are_valid_in_the_schema(schema: dict[str, Any]) -> None:
    for operations in schema["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                content = answer["content"]["application/json"]["schema"]
                validator = jsonschema.Draft202012Validator({**content, "components": schema["components"]})
                examples = examples_of(schema, answer).values()
                assert examples
                for value in examples:
                    validator.validate(value)


@pytest.mark.stateless
def test_numbered_titles_are_only_in_the_default_shape(schema: dict[str, Any]) -> None:
    titles = re.findall(r'"title": "([A-Z][a-z]+\d+)"', json.dumps(to_plain(schema["components"]["schemas"])))
    assert sorted(titles) == ["Object25", "Role7", "Role8"]


@pytest.mark.stateless
def test_v1_is_the_first_server(schema: dict[str, Any]) -> None:
    assert [server["url"] for server in schema["servers"]] == ["/v1", "/"]


PICTURE = {"type": "image_url", "image_url": {"url": "https://x.example", "detail": "low"}}


@pytest.mark.parametrize(
    ("component", "beta", "body"),
    [
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x"}),
        ("CreateMessageRequest", "assistants=v1", {"role": "assistant", "content": "x"}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x" * 32769}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "\0"}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x", "file_ids": ["\0"]}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x", "metadata": {"k": "\0"}}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x", "metadata": {"\0": "v"}}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": [PICTURE]}),
        ("CreateMessageRequest", "assistants=v1", {"role": "user", "content": "x", "attachments": []}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "assistant", "content": "x" * 32769}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": [PICTURE]}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": [{**PICTURE, "text": "x"}]}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": []}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": "x", "attachments": [{"tools": []}]}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": "x", "run_id": "r" * 257}),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "tool_call", "content": "x"}),
        ("CreateThreadRequest", "assistants=v1", {"messages": [{"role": "user", "content": "x"}]}),
        ("CreateThreadRequest", "assistants=v1", {"tool_resources": {}}),
        ("CreateThreadRequestV2", "assistants=v2", {"tool_resources": {}}),
        ("CreateThreadRequestV2", "assistants=v2", {"messages": [{"role": "user"}]}),
        *[
            (f"CreateMessageRequest{shape}", f"assistants=v{version}", {"role": "user", "content": "x", name: None})
            for shape, version in (("", 1), ("V2", 2))
            for name in ("file_ids", "metadata", "attachments", "assistant_id", "run_id", "role", "content", "x")
        ],
        (
            "CreateMessageRequestV2",
            "assistants=v2",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": None}}]},
        ),
        (
            "CreateMessageRequestV2",
            "assistants=v2",
            {"role": "user", "content": "x", "attachments": [{"file_id": "f", "tools": None}]},
        ),
        ("CreateMessageRequestV2", "assistants=v2", {"role": "user", "content": [{"type": "text", "text": None}]}),
        ("CreateThreadRequest", "assistants=v1", {"messages": None, "metadata": None}),
        ("CreateThreadRequestV2", "assistants=v2", {"messages": None, "tool_resources": None}),
        ("CreateThreadRequest", "assistants=v1", {"messages": [None]}),
        ("ModifyRequest", "assistants=v1", {"metadata": None}),
        ("ModifyRequest", "assistants=v1", {"metadata": {"k": None}}),
        ("ModifyRequest", "assistants=v1", {"metadata": {"k": 5}}),
        ("ModifyRequest", "assistants=v1", {"tool_resources": None}),
        ("ModifyThreadRequestV2", "assistants=v2", {"tool_resources": None}),
    ],
)
def test_schema_takes_and_refuses_what_the_service_does(
    api: Api, thread_id: str, schema: dict[str, Any], component: str, beta: str, body: Any
) -> None:
    path = "/threads"
    if "CreateThread" not in component:
        path = f"/threads/{thread_id}/messages" if "Message" in component else f"/threads/{thread_id}"
    reference = {"$ref": f"#/components/schemas/{component}", "components": schema["components"]}
    is_taken = api.post(path, body, HTTP_OPENAI_BETA=beta).status == 200
    assert jsonschema.Draft202012Validator(reference).is_valid(body) == is_taken
