"""The contract's vectors: one test per vector, and one test that runs run_vectors.py with a running service."""

import json
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import ROOT, Api, Served
from tests.contract.run_vectors import canon, expand, mask, raw_body

VECTORS = json.loads((ROOT / "tests/contract/create-message-vectors.json").read_text(encoding="utf-8"))["vectors"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_response_matches_the_vector(api: Api, thread_id: str, prefix: str, vector: dict[str, Any]) -> None:
    path = prefix + vector["path"].replace("{thread_id}", quote(thread_id, safe=""))
    answer = api.post(path, raw_body(vector), vector["content_type"])
    expected = vector["expected"]
    if expected["status"] == "4xx":
        assert 400 <= answer.status < 500
        assert "detail" in answer.body
    else:
        assert answer.status == expected["status"]
        assert canon(mask(answer.status, answer.body, thread_id)) == canon(expand(expected["body"]))


def test_player_passes_against_a_served_process(served: Served) -> None:
    command = [sys.executable, "tests/contract/run_vectors.py", f"http://127.0.0.1:{served.port}"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (played.returncode, played.stdout) == (0, "65 vectors, 0 failing\n")
