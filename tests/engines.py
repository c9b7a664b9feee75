"""`--engine`: the engine that the tests keep threads and messages on; loaded before Django reads its settings.

Django's own tables stay in the SQLite file of a data directory, as with THREADS_DATABASE_URL in service.
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
    "stateless: neither stores nor queries anything; runs on SQLite alone",
    "once: stores rows, but shows the same on every engine; runs on SQLite alone",
    "engine(name, ...): about these engines; does not run on others",
)
# How a pytest-xdist worker learns of the database server, which the controller starts once for all of them.
SERVER_VARIABLE = "TESTS_DATABASE_SERVER"

chosen = "sqlite"
is_long = False  # whether --requests asks for long runs: `make fuzz`
server: DatabaseServer | None = None
_urls: dict[Path, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINES, default=ENGINES[0], help="what keeps threads and messages")
    help_ = "how many tests/test_fuzz.py sends; 0: a short run, also of the tests that try random values"
    parser.addoption("--requests", type=int, default=0, help=help_)
    parser.addoption("--fuzz-seed", type=int, default=0, help="which ones those are")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """A wrapper, to come before pytest-django, which reads the settings here."""
    global chosen, server, is_long
    # As Ctrl-C does, SIGTERM ends the tests and what they started.
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
    os.environ["THREADSVC_ALLOW_ANONYMOUS"] = "1"  # tests of keys say otherwise
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
    """Start the engine's server; None for SQLite, which has none. Raises Unavailable."""
    kind = server_type(engine)
    return kind() if kind else None


def shared_server() -> DatabaseServer | None:
    """Return the server that the controller started, in a worker of pytest-xdist; None elsewhere."""
    kind, found = server_type(chosen), os.environ.pop(SERVER_VARIABLE, None)
    if not kind or not found:
        return None
    port, directory = json.loads(found)
    return kind.started_elsewhere(port, Path(directory))


def variables(directory: Path) -> dict[str, str]:
    """What makes a service with that data directory use the chosen engine: for each directory a database of its own."""
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
    left_out = [item for item in items if not is_wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_wanted(item)]
