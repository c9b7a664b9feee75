"""Requests that schemathesis generates from the OpenAPI description. All schemathesis checks are enabled."""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine import events, from_schema
from schemathesis.hooks import unregister_all

from messages_app.api.fields import NO_NUL
from tests.fuzz.target import SECONDS_TO_WAIT, Answer, Target

# The path prefix and the OpenAI-Beta header that the test requests use for each shape of the API.
SHAPES = {"default": ("", "assistants=v1"), "v2": ("/v1", "assistants=v2")}

# Errors that the contract requires although the request matches the OpenAPI description. Each value names the rule that
# requires the error. JSON Schema cannot express these rules.
REFUSED_ANYWAY = {
    ("query.after", "value_error.cursor"): "threads-api.md, Lists: an unknown or foreign cursor",
    ("query.before", "value_error.cursor"): "threads-api.md, Lists: an unknown or foreign cursor",
    ("body.attachments", "value_error.list.max_items"): "threads-api.md, Two shapes: files together at most 10",
    (
        "body.content",
        "value_error.any_str.max_length",
    ): "threads-api.md, Two shapes: text together at most 256000",
    (
        "header.idempotency-key",
        "value_error.idempotency_key",
    ): "threads-api.md, A retried POST: the same key with another body",
    ("body.metadata", "value_error.dict.max_items"): "threads-api.md, Modify: more than 16 pairs in the result",
}
# Parameters that cannot be invalid, because any value becomes a valid text in a URL.
ACCEPTED_ANYWAY = {"parameter `metadata` in query": "threads-api.md, Endpoints: metadata[KEY]=VALUE, both any text"}


def is_required(check: str, failure: str, body: bytes) -> bool:
    """Return True if the contract requires the behaviour that a check reports as a failure."""
    match check:
        case "positive_data_acceptance":
            return is_refused_anyway(body)
        case "negative_data_rejection":
            parts = re.findall(r"Invalid component: (.*? in \w+)", failure)
            return bool(parts) and all(part in ACCEPTED_ANYWAY for part in parts)
    return False


def is_refused_anyway(body: bytes) -> bool:
    """Return True if every error in the response is listed in REFUSED_ANYWAY."""
    detail = json.loads(body).get("detail")
    return isinstance(detail, list) and all(kind_of(item) in REFUSED_ANYWAY for item in detail)


def kind_of(item: dict[str, Any]) -> tuple[str, str]:
    """Return the path and the type of an error.

    An error in a message of a new thread gets the same path as an error in a single message.
    """
    steps = [step for step in item["loc"] if not isinstance(step, int) and step != "messages"]
    return ".".join(steps), item["type"]


def of_shape(described: Any, number: int) -> Any:
    """Return the description of one shape: with this shape's form of each body, and without the OpenAI-Beta header."""
    if isinstance(described, list):
        return [of_shape(each, number) for each in described if not chooses_shape(each)]
    if not isinstance(described, dict):
        return described
    forms = described.get("anyOf", [])
    if len(forms) == 2 and forms[1].get("$ref", "").endswith("V2"):
        return forms[number]
    return {key: of_shape(value, number) for key, value in described.items()}


def chooses_shape(parameter: Any) -> bool:
    return isinstance(parameter, dict) and parameter.get("name") == "OpenAI-Beta"


def without_regular_expressions(described: Any) -> Any:
    """Return the description without the pattern that forbids U+0000.

    schemathesis would spend most of its time on this pattern.
    """
    if isinstance(described, list):
        return [without_regular_expressions(each) for each in described]
    if not isinstance(described, dict):
        return described
    kept = {key: value for key, value in described.items() if (key, value) not in NO_NUL.items()}
    return {key: without_regular_expressions(value) for key, value in kept.items()}


def with_keys(described: dict[str, Any]) -> dict[str, Any]:
    """Make every operation in the description require an API key, and return the description."""
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = [scheme for scheme in operation["security"] if scheme]
    return described


def with_links(described: dict[str, Any]) -> dict[str, Any]:
    """Add links from each create operation to the operations that use the new id, and return the description."""
    creates = [
        ({"thread_id"}, described["paths"]["/threads"]["post"], {"thread_id": "$response.body#/id"}),
        (
            {"thread_id", "message_id"},
            described["paths"]["/threads/{thread_id}/messages"]["post"],
            {"thread_id": "$request.path.thread_id", "message_id": "$response.body#/id"},
        ),
    ]
    for operations in described["paths"].values():
        for operation in operations.values():
            wanted = {found["name"] for found in operation["parameters"] if found["in"] == "path"}
            for given, create, ids in creates:
                if wanted and wanted <= given:
                    links = create["responses"]["200"].setdefault("links", {})
                    parameters = {name: ids[name] for name in sorted(wanted)}
                    links[operation["operationId"]] = {
                        "operationId": operation["operationId"],
                        "parameters": parameters,
                    }
                    break
    return described


class SchemathesisRun:
    """A schemathesis run on all operations of one shape. `checks` contains the names of the checks that ran."""

    def __init__(self, target: Target, shape: str) -> None:
        self.target = target
        self.shape = shape
        self.checks: set[str] = set()

    def findings(self, tries: int, seed: int, *, is_short: bool, with_coverage: bool) -> Iterator[str]:
        """Try each operation `tries` times and yield one failure of each kind.

        A short run sends no U+0000, because other fuzz tests already send it (tests/fuzz/odd.py). `with_coverage` adds
        requests that each violate one rule of the description.
        """
        prefix, beta = SHAPES[self.shape]
        described = with_keys(of_shape(self.target.openapi, list(SHAPES).index(self.shape)))
        if is_short:
            described = without_regular_expressions(described)
        config = SchemathesisConfig.from_dict(
            {
                "base-url": f"http://127.0.0.1:{self.target.served.port}{prefix}",
                "headers": {"OpenAI-Beta": beta, "Authorization": f"Bearer {self.target.values['key']}"},
                "seed": seed,
                "request-timeout": SECONDS_TO_WAIT,
                "continue-on-failure": True,
                "generation": {"max-examples": tries, "no-shrink": True, "allow-x00": not is_short},
                "phases": {
                    "coverage": {"enabled": with_coverage},
                    # schemathesis does not have to infer links between operations, because with_links adds them all.
                    "stateful": {"inference": {"algorithms": []}},
                },
            }
        )
        schema = schemathesis.openapi.from_dict(with_links(described), config=config)
        schemathesis.hook("before_call")(functools.partial(self.put_ids))
        schemathesis.hook("after_call")(functools.partial(self.count))
        try:
            yield from self.new_failures(from_schema(schema).execute())
        finally:
            unregister_all()

    def new_failures(self, execution: Iterable[Any]) -> Iterator[str]:
        """Yield one report for each kind of failure."""
        seen: set[str] = set()
        for event in execution:
            match event:
                case events.FatalError():
                    yield repr(event.exception)
                case events.NonFatalError():
                    yield repr(event.value)
                case events.ScenarioFinished():
                    for kind, report in self.failures(event.recorder):
                        if kind not in seen:
                            seen.add(kind)
                            yield f"{kind}\n{report}"

    def failures(self, recorder: Any) -> Iterator[tuple[str, str]]:
        """Yield the kind and the report of each unexpected failure."""
        for case_id, checks in recorder.checks.items():
            for check in checks:
                self.checks.add(check.name)
                if check.failure_info is None:
                    continue
                failure, response = check.failure_info.failure, recorder.interactions[case_id].response
                content = response.content if response else b""
                if not is_required(check.name, failure.message, content):
                    report = f"{failure.message}\n{check.failure_info.code_sample}\n{content[:3000]!r}"
                    yield f"{check.name}: {failure.operation}", report

    def put_ids(self, context: Any, case: Any, kwargs: Any) -> None:
        """Replace generated ids in the path with the ids of existing objects.

        Leave the path unchanged if it is intentionally invalid, or if a link has already set its ids.
        """
        path = case.path_parameters
        is_linked = any(str(value).startswith(("thread_", "msg_")) for value in path.values())
        if path and not is_linked and not case.meta.is_negative_at(ParameterLocation.PATH):
            path.update({name: self.target.values[name] for name in path})

    def count(self, context: Any, case: Any, response: Any) -> None:
        headers = {name: values[0] for name, values in response.headers.items()}
        answer = Answer(response.status_code, headers, response.content)
        request = f"{response.request.method} {response.request.url} {response.request.body!r}".encode()
        self.target.check(request, [answer], response.content)
        if case.method.upper() == "DELETE" and answer.status == 200:
            self.target.renew()
