"""No request makes the service fail: those that schemathesis makes from its description, and bytes of all kinds.

The same requests in each run, unless --fuzz-seed says otherwise; `make fuzz` sends many more (CONTRIBUTING.md).
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
from tests.fuzz.described import REFUSED_ALL_THE_SAME, SHAPES, TAKEN_ALL_THE_SAME, Described, kind_of, of_shape
from tests.fuzz.drafts import Draft, drafts
from tests.fuzz.target import Answer, Finding, Target, broken_promise, counted

# Requests that are sent together, and how many of those make a round, after which the service is looked at.
TOGETHER, IN_A_ROUND = 32, 16
CLIENTS = 8
# Of the requests of a long run, about so many are made from the description, each try at all operations being about 25.
SHARE_DESCRIBED = 0.04
REQUESTS_A_TRY = 25


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(Served(tmp_path_factory.mktemp("fuzzed") / "data", THREADSVC_ALLOW_ANONYMOUS="0"))
    yield target
    target.close()


@pytest.fixture
def counting(target: Target, figures: Callable[[str, int | str], None]) -> Callable[[str], Any]:
    """Return a context that records the answers to its requests."""

    @contextmanager
    def counting(name: str) -> Iterator[None]:
        started, before = time.monotonic(), Counter(target.counts)
        try:
            yield
        finally:
            figures(name, counted(target.counts - before, time.monotonic() - started))

    return counting


@pytest.mark.process
@pytest.mark.parametrize("shape", SHAPES)
def test_requests_made_from_the_description_are_answered_as_it_says(
    target: Target, counting: Callable[[str], Any], pytestconfig: pytest.Config, shape: str
) -> None:
    wanted: int = pytestconfig.option.requests
    is_about_form = engines.chosen == "sqlite" or wanted > 0  # elsewhere, only what reaches the engine matters
    if not is_about_form and shape == "default":
        pytest.skip("v2 is the shape in which an engine is asked for more")
    described = Described(target, shape)
    tries = max(1, int(wanted * SHARE_DESCRIBED / len(SHAPES) / REQUESTS_A_TRY)) if wanted else 2
    with counting(f"made from the description, shape {shape}"):
        findings = list(
            described.findings(tries, pytestconfig.option.fuzz_seed, is_short=not wanted, is_about_form=is_about_form)
        )
    assert not findings, "\n\n".join(findings)
    if is_about_form:
        assert described.checks == set(CHECKS.get_all_names())
    target.assert_well()


@pytest.mark.process
def test_no_bytes_make_the_service_fail(
    target: Target, counting: Callable[[str], Any], pytestconfig: pytest.Config
) -> None:
    wanted: int = pytestconfig.option.requests
    count = wanted - target.counts.total() if wanted else 1000 if engines.chosen == "sqlite" else 500
    first: int = pytestconfig.option.fuzz_seed
    rounds = range(first, first + max(1, math.ceil(count / (TOGETHER * IN_A_ROUND))))
    requests = st.lists(drafts(target.described, target.pages), min_size=TOGETHER, max_size=TOGETHER)
    with ThreadPoolExecutor(CLIENTS) as clients, counting("bytes"):
        for number in rounds:

            @seed(number)
            @settings(
                max_examples=IN_A_ROUND,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(requests)
            def round_of_requests(together: list[Draft]) -> None:
                if target.is_spent:
                    target.renew()
                list(clients.map(target.send, together))

            try:
                round_of_requests()
                target.renew()
                target.assert_well()
            except AssertionError as finding:
                options = f"--engine={engines.chosen} --requests=1 --fuzz-seed={number}"
                finding.add_note(f"again: .venv/bin/python -m pytest tests/test_fuzz.py -k bytes {options}")
                raise


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("answer", "promise"),
    [
        (Answer(500, {"x-request-id": "1"}, b""), "no input is answered by a 5xx"),
        (Answer(404, {"content-type": "application/json"}, b'{"detail":"x"}'), "every answer has an x-request-id"),
        (Answer(404, {"x-request-id": "1", "content-type": "text/html"}, b"x"), "errors are JSON"),
        (Answer(301, {"x-request-id": "1"}, b""), "no path of the API is redirected"),
        *[
            (
                Answer(422, {"x-request-id": "1", "content-type": "application/json"}, body),
                "errors have a detail of the contract's form",
            )
            for body in (b"x", b"[]", b'{"detail":[]}', b'{"detail":[{"loc":["x"],"msg":"x","type":"x"}]}')
        ],
        (Answer(200, {"x-request-id": "1"}, b"Traceback (most recent call last)"), "no answer shows a traceback"),
        (Answer(422, {"x-request-id": "1", "content-type": "application/json"}, b'{"detail":"x"}'), None),
    ],
)
def test_broken_promise_is_noticed(answer: Answer, promise: str | None) -> None:
    assert broken_promise(b"GET /threads HTTP/1.1\r\n", answer) == promise


@pytest.mark.process
@pytest.mark.stateless
def test_silence_is_noticed(target: Target) -> None:
    with pytest.raises(Finding):
        target.judge(b"GET / HTTP/1.1", [Answer(599, {}, b"no HTTP")], b"no HTTP")


FILES = [f"file-{number}" for number in range(6)]
PAIRS = {f"key {number}": "x" for number in range(10)}


@pytest.mark.process
@pytest.mark.stateless
def test_each_exception_is_one_that_the_description_cannot_make(api: Api, target: Target) -> None:
    """Sound by the description, and refused by the contract: else the exception would have to go."""
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
        components = of_shape(target.described["components"], 1)
        reference = {"$ref": f"#/components/schemas/{component}", "components": components}
        assert jsonschema.Draft202012Validator(reference).is_valid(body)
        answer = api.post(path, body, **v2)
        assert [kind_of(item) for item in answer.body["detail"]] == [kind]
    cursors = [kind_of(item) for item in api.get("/threads?after=x&before=x").body["detail"]]
    for each in (b"", b"{}"):
        answer = api.post("/threads", each, HTTP_IDEMPOTENCY_KEY="used-twice")
    reused = [kind_of(item) for item in answer.body["detail"]]
    assert set(REFUSED_ALL_THE_SAME) == {*bodies, *cursors, *reused}
    assert set(TAKEN_ALL_THE_SAME) == {"parameter `metadata` in query"}
    assert api.get("/threads?metadata[key][of]=an&metadata[object]=x").status == 200
