"""The code samples in the OpenAPI description. The tests run curl and Python, and parse JavaScript and Go."""

import ast
import contextlib
import io
import json
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from messages_app.api.assistants.openapi import FILE_ID, MESSAGE_ID, THREAD_ID
from tests.conftest import Served
from tests.test_openapi import OPERATIONS, QUESTION, described, examples_of, masked
from threadsvc.api.code_samples import ORIGIN

LABELS = ["curl", "Python", "JavaScript", "Go"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    generated: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return generated


def sample(schema: dict[str, Any], operation_id: str, label: str) -> str:
    samples = described(schema, operation_id)[2]["x-codeSamples"]
    assert [each["label"] for each in samples] == LABELS
    source: str = samples[LABELS.index(label)]["source"]
    return source


def run(label: str, source: str) -> Any:
    """Run a sample and return the JSON that it prints."""
    if label == "curl":
        done = subprocess.run(
            ["sh", "-eu", "-c", source.replace("curl ", "curl -sS ", 1)], capture_output=True, timeout=30
        )
        assert done.stderr == b""
        return json.loads(done.stdout)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # openai-python deprecates `beta.threads`
        exec(compile(source, "sample", "exec"), {})
    text = printed.getvalue()
    return json.loads(text) if "OpenAI" in source else ast.literal_eval(text)


@pytest.mark.engine("sqlite")
@pytest.mark.parametrize("label", ["curl", "Python"])
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_sample_gets_the_response_of_the_example(
    served: Served, schema: dict[str, Any], operation_id: str, label: str
) -> None:
    thread_id = served.call("POST", "/threads", {"metadata": {"customer": "customer-17"}}).body["id"]
    message = QUESTION | ({"file_ids": [FILE_ID]} if "file" in operation_id else {})
    message_id = served.call("POST", f"/threads/{thread_id}/messages", message).body["id"]
    source = sample(schema, operation_id, label)
    for written, real in (
        (ORIGIN, f"http://127.0.0.1:{served.port}"),
        (THREAD_ID, thread_id),
        (MESSAGE_ID, message_id),
    ):
        source = source.replace(written, real)
    body = run(label, source)
    # Other tests create threads too. Compare only the newest one.
    if operation_id == "list_threads":
        assert body["data"][0]["id"] == thread_id
        body |= {"data": body["data"][:1], "last_id": thread_id, "has_more": False}
    examples = examples_of(schema, described(schema, operation_id)[2]["responses"]["200"])
    is_v2 = "OpenAI" in source  # OpenAI's SDK requests the v2 shape
    expected = examples["V2"] if is_v2 and "V2" in examples else examples["Default"]
    assert json.loads(masked(body)) == json.loads(masked(expected))


@pytest.mark.process
@pytest.mark.once
@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_javascript_samples_have_valid_syntax(schema: dict[str, Any], tmp_path: Path) -> None:
    for operation_id in OPERATIONS:
        file = tmp_path / f"{operation_id}.mjs"
        file.write_text(sample(schema, operation_id, "JavaScript"), encoding="utf-8")
        done = subprocess.run(["node", "--check", file], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
@pytest.mark.once
@pytest.mark.skipif(not shutil.which("gofmt"), reason="gofmt is not installed")
def test_go_samples_are_formatted(schema: dict[str, Any], tmp_path: Path) -> None:
    for operation_id in OPERATIONS:
        (tmp_path / f"{operation_id}.go").write_text(sample(schema, operation_id, "Go"), encoding="utf-8")
    done = subprocess.run(["gofmt", "-e", "-d", tmp_path], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
