"""The marker `process`: what starts a process is marked, so that `make quick` can leave it out.

Tests that use one of PROCESS_FIXTURES are marked by that; others carry the marker themselves. A test that starts a
process and is not marked fails.
"""

import sys
from collections.abc import Generator
from typing import Any

import pytest

MARKER = "process: starts a process: a served service, a command, a browser, a server; `make quick` leaves it out"
PROCESS_FIXTURES = {"serve", "served"}
EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}

_unmarked: str | None = None  # the running test, where it may not start a process


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    sys.addaudithook(refuse_process)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if PROCESS_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    global _unmarked
    _unmarked = None if item.get_closest_marker("process") else item.nodeid
    try:
        return (yield)
    finally:
        _unmarked = None


def refuse_process(event: str, arguments: tuple[Any, ...]) -> None:
    if event in EVENTS and _unmarked:
        pytest.fail(
            f"{_unmarked} starts a process ({event}: {arguments[:2]}) and is not marked: add @pytest.mark.process",
            pytrace=False,
        )
