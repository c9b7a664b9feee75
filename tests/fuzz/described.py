"""Requests that schemathesis makes from the API's own description, judged by every check that it has: none is off."""

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

# One shape of the API each, under one of its two prefixes.
SHAPES = {"default": ("", "assistants=v1"), "v2": ("/v1", "assistants=v2")}

# Errors that sound requests may get, since a JSON Schema cannot say why, and where the contract asks for them.
REFUSED_ALL_THE_SAME = {
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
# Parameters of which nothing can be wrong on the way: what is not as described arrives as something that is.
TAKEN_ALL_THE_SAME = {"parameter `metadata` in query": "threads-api.md, Endpoints: metadata[KEY]=VALUE, both any text"}


def is_foreseen(check: str, failure: str, body: bytes) -> bool:
    """Whether the contract asks for just what a check found fault with."""
    match check:
        case "positive_data_acceptance":
            return is_refused_all_the_same(body)
        case "negative_data_rejection":
            parts = re.findall(r"Invalid component: (.*? in \w+)", failure)
            return bool(parts) and all(part in TAKEN_ALL_THE_SAME for part in parts)
    return False


def is_refused_all_the_same(body: bytes) -> bool:
    """Whether all errors of an answer are of those kinds."""
    detail = json.loads(body).get("detail")
    return isinstance(detail, list) and all(kind_of(item) in REFUSED_ALL_THE_SAME for item in detail)


def kind_of(item: dict[str, Any]) -> tuple[str, str]:
    """Where an error is, a message of a new thread being any message, and its type."""
    steps = [step for step in item["loc"] if not isinstance(step, int) and step != "messages"]
    return ".".join(steps), item["type"]


def of_shape(described: Any, number: int) -> Any:
    """The description of one shape alone: where there is one form for each, that one, and no header that chooses."""
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
    """The same without what makes texts sound that have no U+0000: most of schemathesis's time goes there."""
    if isinstance(described, list):
        return [without_regular_expressions(each) for each in described]
    if not isinstance(described, dict):
        return described
    kept = {key: value for key, value in described.items() if (key, value) not in NO_NUL.items()}
    return {key: without_regular_expressions(value) for key, value in kept.items()}


def with_keys(described: dict[str, Any]) -> dict[str, Any]:
    """The same for a service that requires keys: none is no choice."""
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = [scheme for scheme in operation["security"] if scheme]
    return described


def with_links(described: dict[str, Any]) -> dict[str, Any]:
    """The same, saying also that what is created can be used where its id is asked for."""
    makers = [
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
            for given, maker, ids in makers:
                if wanted and wanted <= given:
                    links = maker["responses"]["200"].setdefault("links", {})
                    parameters = {name: ids[name] for name in sorted(wanted)}
                    links[operation["operationId"]] = {
                        "operationId": operation["operationId"],
                        "parameters": parameters,
                    }
                    break
    return described


class Described:
    """The operations of one shape, as schemathesis tests them. `checks` are those that were asked."""

    def __init__(self, target: Target, shape: str) -> None:
        self.target = target
        self.shape = shape
        self.checks: set[str] = set()

    def findings(self, tries: int, seed: int, *, is_short: bool, is_about_form: bool) -> Iterator[str]:
        """What does not hold in so many tries at each operation, each kind once.

        A short run leaves U+0000 to others (tests/fuzz/odd.py). One that is not about the form of requests makes none
        that are only there to be refused, one for each rule of the description.
        """
        prefix, beta = SHAPES[self.shape]
        described = with_keys(of_shape(self.target.described, list(SHAPES).index(self.shape)))
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
                    "coverage": {"enabled": is_about_form},
                    "stateful": {"inference": {"algorithms": []}},  # links say all that there is to infer
                },
            }
        )
        schema = schemathesis.openapi.from_dict(with_links(described), config=config)
        schemathesis.hook("before_call")(functools.partial(self.put_ids))
        schemathesis.hook("after_call")(functools.partial(self.count))
        try:
            yield from self.told_by(from_schema(schema).execute())
        finally:
            unregister_all()

    def told_by(self, execution: Iterable[Any]) -> Iterator[str]:
        met: set[str] = set()
        for event in execution:
            match event:
                case events.FatalError():
                    yield repr(event.exception)
                case events.NonFatalError():
                    yield repr(event.value)
                case events.ScenarioFinished():
                    for kind, told in self.failures(event.recorder):
                        if kind not in met:
                            met.add(kind)
                            yield f"{kind}\n{told}"

    def failures(self, recorder: Any) -> Iterator[tuple[str, str]]:
        """What failed where, and all that is known of it."""
        for case_id, checks in recorder.checks.items():
            for check in checks:
                self.checks.add(check.name)
                if check.failure_info is None:
                    continue
                failure, response = check.failure_info.failure, recorder.interactions[case_id].response
                content = response.content if response else b""
                if not is_foreseen(check.name, failure.message, content):
                    told = f"{failure.message}\n{check.failure_info.code_sample}\n{content[:3000]!r}"
                    yield f"{check.name}: {failure.operation}", told

    def put_ids(self, context: Any, case: Any, kwargs: Any) -> None:
        """A path that is as described names what is there, unless a link says what it names."""
        path = case.path_parameters
        is_linked = any(str(value).startswith(("thread_", "msg_")) for value in path.values())
        if path and not is_linked and not case.meta.is_negative_at(ParameterLocation.PATH):
            path.update({name: self.target.values[name] for name in path})

    def count(self, context: Any, case: Any, response: Any) -> None:
        headers = {name: values[0] for name, values in response.headers.items()}
        answer = Answer(response.status_code, headers, response.content)
        request = f"{response.request.method} {response.request.url} {response.request.body!r}".encode()
        self.target.judge(request, [answer], response.content)
        if case.method.upper() == "DELETE" and answer.status == 200:
            self.target.renew()
