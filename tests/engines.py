"""A pytest plugin. Its option `--engine` chooses the engine that stores threads and messages in the tests.

pytest loads this plugin before Django reads its settings. Django's own tables stay in a SQLite file in the data
directory, as in production with THREADS_DATABASE_URL.
"""

import atexit
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import DatabaseServer, Unavailable, is_ci

ENGINES = ("sqlite", "postgresql", "mongodb")

MARKERS = (
    "stateless: neither stores nor queries anything; runs on SQLite only",
    "once: stores rows, but behaves the same on every engine; runs on SQLite only",
    "engine(name, ...): runs only on these engines",
)
# This variable gives the database server's port and directory to the pytest-xdist workers. The controller starts one
# server for all workers.
SERVER_VARIABLE = "TESTS_DATABASE_SERVER"

chosen = "sqlite"
# True if --requests is set, as in `make fuzz`. Tests with random values then run longer.
is_long = False
server: DatabaseServer | None = None
_urls: dict[Path, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINES, default=ENGINES[0], help="the engine for threads and messages")
    help_ = "the number that tests/test_fuzz.py sends; 0: a short run of it and of other tests with random values"
    parser.addoption("--requests", type=int, default=0, help=help_)
    parser.addoption("--fuzz-seed", type=int, default=0, help="the seed of these requests")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Start the database server, and set its URL before Django reads its settings.

    pytest-django reads the settings in the same hook. This hook is a wrapper, and pytest calls wrappers first.
    """
    global chosen, server, is_long
    # Handle SIGTERM like Ctrl-C: end the tests and the processes that they started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = early_config.known_args_namespace.engine
    is_long = early_config.known_args_namespace.requests > 0
    try:
        server = shared_server() or start(chosen)
    except Unavailable as error:
        print(f"{'failed' if is_ci() else 'skipped'}: tests on {chosen}: {error}", flush=True)
        raise SystemExit(1 if is_ci() else 0) from error
    if server:
        if server.process:
            atexit.register(server.close)
        if early_config.known_args_namespace.numprocesses:
            os.environ[SERVER_VARIABLE] = json.dumps([server.port, str(server.directory)])
        os.environ["THREADS_DATABASE_URL"] = server.new_database()
    # Requests need no API key, except in tests of API keys, which override this setting.
    os.environ["THREADSVC_ALLOW_ANONYMOUS"] = "1"
    return (yield)


def server_type(engine: str) -> type[DatabaseServer] | None:
    match engine:
        case "postgresql":
            from tests.servers.postgresql import PostgreSQL

            return PostgreSQL
        case "mongodb":
            from tests.servers.mongodb import MongoDB

            return MongoDB
    return None


def start(engine: str) -> DatabaseServer | None:
    """Start and return the engine's server. Return None for SQLite, which has no server. Raises Unavailable."""
    kind = server_type(engine)
    return kind() if kind else None


def shared_server() -> DatabaseServer | None:
    """Return the controller's server if this process is a pytest-xdist worker. Otherwise return None."""
    kind, found = server_type(chosen), os.environ.pop(SERVER_VARIABLE, None)
    if not kind or not found:
        return None
    port, directory = json.loads(found)
    return kind.started_elsewhere(port, Path(directory))


def variables(directory: Path) -> dict[str, str]:
    """Return the variables that make a service use the chosen engine. Each data directory gets its own database."""
    if server is None:
        return {}
    if directory not in _urls:
        _urls[directory] = server.new_database()
    return {"THREADS_DATABASE_URL": _urls[directory]}


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def is_wanted(item: pytest.Item) -> bool:
    names = [set(marker.args) for marker in item.iter_markers("engine")]
    assert all(each <= set(ENGINES) and each for each in names), f"{item.nodeid}: no such engine"
    if chosen != "sqlite" and (item.get_closest_marker("stateless") or item.get_closest_marker("once")):
        return False
    return all(chosen in each for each in names)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselected = [item for item in items if not is_wanted(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if is_wanted(item)]
