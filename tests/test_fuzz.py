"""No request makes the service fail.

Some requests are generated from the OpenAPI description. Others are valid requests with mutated parts and bytes. Each
run sends the same requests unless --fuzz-seed is set. `make fuzz` sends many more (CONTRIBUTING.md).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

from tests import engines
from tests.conftest import Api, Served
from tests.fuzz.described import ACCEPTED_ANYWAY, REFUSED_ANYWAY, SHAPES, SchemathesisRun, kind_of, of_shape
from tests.fuzz.drafts import Draft, drafts
from tests.fuzz.target import Answer, Finding, Target, broken_promise, summary

# The number of requests per batch and of batches per round. After each round, the test checks the service.
BATCH_SIZE, BATCHES_PER_ROUND = 32, 16
CLIENTS = 8
# The approximate share of a long run's requests that schemathesis generates from the description.
GENERATED_SHARE = 0.04
# The approximate number of requests that schemathesis sends to try every operation once.
REQUESTS_PER_TRY = 25


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(Served(tmp_path_factory.mktemp("fuzzed") / "data", THREADSVC_ALLOW_ANONYMOUS="0"))
    yield target
    target.close()


@pytest.fixture
def counting(target: Target, figures: Callable[[str, int | str], None]) -> Callable[[str], Any]:
    """Return a function that creates a context.

    At its end, the context records a figure: a summary of the responses that the target received in it.
    """

    @contextmanager
    def counting(name: str) -> Iterator[None]:
        started, before = time.monotonic(), Counter(target.counts)
        try:
            yield
        finally:
            figures(name, summary(target.counts - before, time.monotonic() - started))

    return counting


@pytest.mark.process
@pytest.mark.parametrize("shape", SHAPES)
def test_generated_requests_get_the_described_responses(
    target: Target, counting: Callable[[str], Any], pytestconfig: pytest.Config, shape: str
) -> None:
    wanted: int = pytestconfig.option.requests
    # The coverage phase sends invalid requests, which rarely reach the engine. A short run includes it only on SQLite.
    with_coverage = engines.chosen == "sqlite" or wanted > 0
    if not with_coverage and shape == "default":
        pytest.skip("the v2 shape uses more features of the engine")
    run = SchemathesisRun(target, shape)
    tries = max(1, int(wanted * GENERATED_SHARE / len(SHAPES) / REQUESTS_PER_TRY)) if wanted else 2
    with counting(f"generated from the description, shape {shape}"):
        findings = list(
            run.findings(tries, pytestconfig.option.fuzz_seed, is_short=not wanted, with_coverage=with_coverage)
        )
    assert not findings, "\n\n".join(findings)
    if with_coverage:
        assert run.checks == set(CHECKS.get_all_names())
    target.assert_healthy()


@pytest.mark.process
def test_mutated_bytes_never_make_the_service_fail(
    target: Target, counting: Callable[[str], Any], pytestconfig: pytest.Config
) -> None:
    wanted: int = pytestconfig.option.requests
    count = wanted - target.counts.total() if wanted else 1000 if engines.chosen == "sqlite" else 500
    first: int = pytestconfig.option.fuzz_seed
    rounds = range(first, first + max(1, math.ceil(count / (BATCH_SIZE * BATCHES_PER_ROUND))))
    requests = st.lists(drafts(target.openapi, target.pages), min_size=BATCH_SIZE, max_size=BATCH_SIZE)
    with ThreadPoolExecutor(CLIENTS) as clients, counting("mutated bytes"):
        for number in rounds:

            @seed(number)
            @settings(
                max_examples=BATCHES_PER_ROUND,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(requests)
            def send_round(batch: list[Draft]) -> None:
                if target.is_spent:
                    target.renew()
                list(clients.map(target.send, batch))

            try:
                send_round()
                target.renew()
                target.assert_healthy()
            except AssertionError as finding:
                options = f"--engine={engines.chosen} --requests=1 --fuzz-seed={number}"
                finding.add_note(f"to repeat: .venv/bin/python -m pytest tests/test_fuzz.py -k bytes {options}")
                raise


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("answer", "promise"),
    [
        (Answer(500, {"x-request-id": "1"}, b""), "no request gets a 5xx"),
        (Answer(404, {"content-type": "application/json"}, b'{"detail":"x"}'), "every response has an x-request-id"),
        (Answer(404, {"x-request-id": "1", "content-type": "text/html"}, b"x"), "errors are JSON"),
        (Answer(301, {"x-request-id": "1"}, b""), "no path of the API redirects"),
        *[
            (
                Answer(422, {"x-request-id": "1", "content-type": "application/json"}, body),
                "errors have the detail that the contract specifies",
            )
            for body in (b"x", b"[]", b'{"detail":[]}', b'{"detail":[{"loc":["x"],"msg":"x","type":"x"}]}')
        ],
        (Answer(200, {"x-request-id": "1"}, b"Traceback (most recent call last)"), "no response has a traceback"),
        (Answer(422, {"x-request-id": "1", "content-type": "application/json"}, b'{"detail":"x"}'), None),
    ],
)
def test_broken_promise_is_detected(answer: Answer, promise: str | None) -> None:
    assert broken_promise(b"GET /threads HTTP/1.1\r\n", answer) == promise


@pytest.mark.process
@pytest.mark.stateless
def test_response_that_is_not_http_is_detected(target: Target) -> None:
    with pytest.raises(Finding):
        target.check(b"GET / HTTP/1.1", [Answer(599, {}, b"not HTTP")], b"not HTTP")


FILES = [f"file-{number}" for number in range(6)]
PAIRS = {f"key {number}": "x" for number in range(10)}


@pytest.mark.process
@pytest.mark.stateless
def test_exceptions_cannot_be_expressed_in_the_description(api: Api, target: Target) -> None:
    """Check that the exceptions in tests/fuzz/described.py are still needed.

    Each request here matches the description, but the service must refuse it with the error of the exception.
    """
    thread_id = api.post("/threads", {"metadata": PAIRS}).body["id"]
    v2 = {"HTTP_OPENAI_BETA": "assistants=v2"}
    messages = f"/threads/{thread_id}/messages"
    bodies = {
        ("body.attachments", "value_error.list.max_items"): (
            "CreateMessageRequestV2",
            messages,
            {
                "role": "user",
                "content": "x",
                "file_ids": FILES,
                "attachments": [{"file_id": f"another {name}"} for name in FILES],
            },
        ),
        ("body.content", "value_error.any_str.max_length"): (
            "CreateMessageRequestV2",
            messages,
            {"role": "user", "content": [{"type": "text", "text": "x" * 200000}] * 2},
        ),
        ("body.metadata", "value_error.dict.max_items"): (
            "ModifyRequest",
            f"/threads/{thread_id}",
            {"metadata": {f"another {key}": "x" for key in PAIRS}},
        ),
    }
    for kind, (component, path, body) in bodies.items():
        components = of_shape(target.openapi["components"], 1)
        reference = {"$ref": f"#/components/schemas/{component}", "components": components}
        assert jsonschema.Draft202012Validator(reference).is_valid(body)
        answer = api.post(path, body, **v2)
        assert [kind_of(item) for item in answer.body["detail"]] == [kind]
    cursors = [kind_of(item) for item in api.get("/threads?after=x&before=x").body["detail"]]
    for each in (b"", b"{}"):
        answer = api.post("/threads", each, HTTP_IDEMPOTENCY_KEY="used-twice")
    reused = [kind_of(item) for item in answer.body["detail"]]
    assert set(REFUSED_ANYWAY) == {*bodies, *cursors, *reused}
    assert set(ACCEPTED_ANYWAY) == {"parameter `metadata` in query"}
    assert api.get("/threads?metadata[key][of]=an&metadata[object]=x").status == 200
