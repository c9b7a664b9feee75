"""A test that starts a process fails unless it has the marker `process`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, WITH_TEST_PACKAGES, environment

pytestmark = [pytest.mark.stateless, pytest.mark.process]

TESTS = """
import os, subprocess, sys
import pytest

def start():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.fixture
def started():
    start()

@pytest.fixture
def serve():
    start()

def test_unmarked():
    try:
        start()
    except Exception:
        pass

def test_unmarked_fixture(started): ...

def test_unmarked_fork():
    if not os.fork():
        os._exit(0)

@pytest.mark.process
def test_marked(started):
    start()

def test_marked_by_its_fixture(serve): ...
"""


def run(tmp_path: Path, *options: str) -> str:
    (tmp_path / "test_of_processes.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:django", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "tests.processes", "-rA", *options, str(tmp_path)],
        cwd=ROOT,
        env=environment(tmp_path / "data", **WITH_TEST_PACKAGES),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_unmarked_test_that_starts_a_process_fails(tmp_path: Path) -> None:
    output = run(tmp_path)
    assert "2 failed, 2 passed, 1 error" in output, output
    assert output.count("is not marked: add @pytest.mark.process") >= 3


def test_marker_selects_tests_by_mark_and_by_fixture(tmp_path: Path) -> None:
    output = run(tmp_path, "-m", "process")
    assert "2 passed, 3 deselected" in output, output
