"""The choice of engines for the tests themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, WITH_TEST_PACKAGES, environment

pytestmark = [pytest.mark.stateless, pytest.mark.process]


@pytest.mark.parametrize(("ci", "word", "status"), [("", "skipped", 0), ("true", "failed", 1)])
def test_server_that_cannot_be_had_is_one_clear_line(tmp_path: Path, ci: str, word: str, status: int) -> None:
    nothing_there = environment(tmp_path / "data", PATH=str(tmp_path), CI=ci, **WITH_TEST_PACKAGES)
    command = [sys.executable, "-m", "pytest", "--engine=mongodb", "-p", "no:cacheprovider", "tests/test_threads.py"]
    ended = subprocess.run(command, cwd=ROOT, env=nothing_there, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (status, "")
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"{word}: tests on mongodb: missing: apt-get install openjdk-17-jdk-headless")
