"""Define the marker `process` for tests that start a process. `make quick` skips these tests.

Tests that use one of PROCESS_FIXTURES get the marker automatically. An unmarked test that starts a process fails.
"""

import sys
from collections.abc import Generator
from typing import Any

import pytest

MARKER = "process: starts a process (a service, command, browser or server); `make quick` skips it"
PROCESS_FIXTURES = {"serve", "served"}
EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}

# The id of the running test if it lacks the marker, otherwise None. refuse_process fails such a test.
_unmarked: str | None = None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    sys.addaudithook(refuse_process)


# This hook runs first, because a later hook applies -m and must see the added markers.
@pytest.hookimpl(tryfirst=True)
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
