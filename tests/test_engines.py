"""The `--engine` option of the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, WITH_TEST_PACKAGES, environment

pytestmark = [pytest.mark.stateless, pytest.mark.process]


@pytest.mark.parametrize(("ci", "word", "status"), [("", "skipped", 0), ("true", "failed", 1)])
def test_missing_server_is_reported_in_one_line(tmp_path: Path, ci: str, word: str, status: int) -> None:
    without_servers = environment(tmp_path / "data", PATH=str(tmp_path), CI=ci, **WITH_TEST_PACKAGES)
    command = [sys.executable, "-m", "pytest", "--engine=mongodb", "-p", "no:cacheprovider", "tests/test_threads.py"]
    result = subprocess.run(command, cwd=ROOT, env=without_servers, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (status, "")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{word}: tests on mongodb: missing: apt-get install openjdk-17-jdk-headless")
