"""Shared fixtures: databases for the whole test run, an HTTP client, and a service in its own process.

Tests do not empty the tables. Each test creates its own threads.
"""

import atexit
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client, RequestFactory
from django.test.utils import setup_databases, teardown_databases
from django.utils.connection import ConnectionProxy
from pytest_django import DjangoDbBlocker

from tests import engines
from tests.servers import Unavailable, children_of, is_ci
from tests.servers import free_port as free_port
from tests.stored import stored
from threadsvc.wsgi import application

ROOT = Path(__file__).resolve().parent.parent

# The database that stores threads and messages: `threads` with PostgreSQL or MongoDB, `default` with SQLite. The proxy
# gives each Python thread its own connection.
connection = cast(
    BaseDatabaseWrapper, ConnectionProxy(connections, "threads" if "threads" in settings.DATABASES else "default")
)


@pytest.fixture(scope="session", autouse=True)
def database(
    django_test_environment: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Create the SQLite database. For another engine (tests/engines.py), also create a database on its server.

    By default, Django tests SQLite in memory. Here the SQLite database is a file, as in production, because tests
    depend on its journal mode and its locks, and open several connections to it.
    """
    connections["default"].settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.db")
    with django_db_blocker.unblock():
        created = setup_databases(verbosity=0, interactive=False)
        yield
        teardown_databases(created, verbosity=0)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str, int | str], None]:
    """Return a function that records a named figure. The test run prints all figures at its end.

    Integers with the same name are summed.
    """

    def record(name: str, value: int | str) -> None:
        request.node.user_properties.append((name, value))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    sums = Counter[str]()
    for report in terminalreporter.getreports(""):
        if report.when == "teardown":
            for name, value in report.user_properties:
                if isinstance(value, int):
                    sums[name] += value
                else:
                    terminalreporter.write_line(f"{name}: {value}")
    for name, total in sums.items():
        terminalreporter.write_line(f"{name}: {total:,}")


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


def wait_for_next_millisecond() -> None:
    """Wait for the next millisecond, because threads created in the same millisecond have no defined order."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        time.sleep(0.0002)


class EnvironFactory(RequestFactory):
    def request(self, **request: Any) -> Any:
        """Return the WSGI environ that a server would build. RequestFactory would return a request object."""
        return self._base_environ(**request)  # type: ignore[attr-defined]  # the type stubs lack this method


class Api:
    """Calls the WSGI application in this process, as a server does. Sends bytes unchanged and other bodies as JSON."""

    def __init__(self) -> None:
        self.factory = EnvironFactory()

    def call(
        self, method: str, path: str, body: Any = b"", content_type: str | None = "application/json", **meta: str
    ) -> Answer:
        if (method, path) == ("POST", "/threads"):
            wait_for_next_millisecond()
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        environ: Any = self.factory.generic(method, path, raw, content_type=content_type or "", **meta)  # type: ignore[arg-type]
        started: list[Any] = []
        response: Any = application(environ, lambda *arguments: started.append(arguments))  # type: ignore[arg-type]
        content = b"".join(response)
        response.close()
        ((status, pairs),) = started
        headers = {name.lower(): value for name, value in pairs}
        assert headers["content-type"] == "application/json", content
        assert headers["x-request-id"]
        if method == "HEAD":
            assert not content
        else:
            assert int(headers["content-length"]) == len(content)
        return Answer(int(status.split()[0]), None if method == "HEAD" else json.loads(content), headers)

    def post(self, path: str, body: Any = b"", content_type: str | None = "application/json", **meta: str) -> Answer:
        return self.call("POST", path, body, content_type, **meta)

    def get(self, path: str, **meta: str) -> Answer:
        return self.call("GET", path, **meta)

    def delete(self, path: str, **meta: str) -> Answer:
        return self.call("DELETE", path, **meta)


@pytest.fixture(scope="session")
def api() -> Api:
    return Api()


@pytest.fixture(scope="session")
def admin() -> Client:
    """A client that is logged in to the admin as a superuser."""
    from django.contrib.auth.models import User  # models can be imported only after Django's setup

    client = Client()
    client.force_login(User.objects.create_superuser("root", password="a long password"))
    return client


@pytest.fixture
def thread_id(api: Api) -> str:
    """Create a thread and return its id."""
    thread_id: str = api.post("/threads").body["id"]
    return thread_id


def answer_of(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: dict[str, str]
) -> Answer:
    """Send one request, close the connection and return the response."""
    with closing(connection):
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        content = response.read()
        received = {name.lower(): value for name, value in response.getheaders()}
        is_json = received.get("content-type") == "application/json" and content
        return Answer(response.status, json.loads(content) if is_json else content, received)


def detail_of(code: str, *loc: str | int, root: str = "body", **ctx: Any) -> dict[str, Any]:
    """Return the `detail` item of a 422 response for an error code (docs/contract/create-message.md, section 6)."""
    permitted = ", ".join(map(repr, ctx.get("enum_values", ())))
    limit = ctx.get("limit_value")
    message, error_type = {
        "missing": ("field required", "value_error.missing"),
        "null": ("none is not an allowed value", "type_error.none.not_allowed"),
        "str": ("str type expected", "type_error.str"),
        "list": ("value is not a valid list", "type_error.list"),
        "dict": ("value is not a valid dict", "type_error.dict"),
        "enum": (f"value is not a valid enumeration member; permitted: {permitted}", "type_error.enum"),
        "short": ("ensure this value has at least 1 characters", "value_error.any_str.min_length"),
        "long": (f"ensure this value has at most {limit} characters", "value_error.any_str.max_length"),
        "few": (f"ensure this value has at least {limit} items", "value_error.list.min_items"),
        "many": (f"ensure this value has at most {limit} items", "value_error.list.max_items"),
        "pairs": ("ensure this value has at most 16 items", "value_error.dict.max_items"),
        "integer": ("value is not a valid integer", "type_error.integer"),
        "least": (f"ensure this value is greater than or equal to {limit}", "value_error.number.not_ge"),
        "most": (f"ensure this value is less than or equal to {limit}", "value_error.number.not_le"),
        "message": ("no such message in this thread", "value_error.cursor"),
        "thread": ("no such thread", "value_error.cursor"),
        "file": ("no such file in this message", "value_error.cursor"),
        "nul": ("null characters are not allowed", "value_error.str.null_character"),
        "surrogate": ("surrogate characters are not allowed", "value_error.str.surrogate"),
        "extra": ("extra fields not permitted", "value_error.extra"),
    }[code]
    return {"loc": [root, *loc], "msg": message, "type": error_type, **({"ctx": ctx} if ctx else {})}


class Served:
    """A service that runs `manage.py serve` in its own process, with its own data directory."""

    def __init__(self, directory: Path, *options: str, **settings: str) -> None:
        self.directory, self.port = directory, free_port()
        if not {"DATABASE_URL", "THREADS_DATABASE_URL"} & set(settings):
            prepare(directory)
        self.environment = environment(directory, **{"WEB_CONCURRENCY": "2", **settings, "PORT": str(self.port)})
        self.log = directory.with_suffix(".log")
        started = time.monotonic()
        with self.log.open("wb") as log:
            # The kernel stops the service when the test process ends, even if the test process is killed.
            command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "manage.py", "serve", *options]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.wait_until(lambda: self.call("GET", "/readyz").status == 200)
        except BaseException:
            self.kill()
            raise
        self.seconds_to_first_answer = time.monotonic() - started

    def wait_until(self, condition: Any, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if (method, path) == ("POST", "/threads"):
            wait_for_next_millisecond()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return answer_of(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30), method, path, body, named)

    def children(self) -> list[int]:
        """Return the child processes' pids: first the metrics process, if there is one, then the workers."""
        return children_of(self.process.pid)

    def new_thread(self) -> str:
        thread_id: str = self.call("POST", "/threads").body["id"]
        return thread_id

    def stored(self, model: str, **equal: Any) -> list[dict[str, Any]]:
        """Return the stored rows of a model ("thread", "message" or "threadpair") that have these column values."""
        return stored(database_url(self.directory, self.environment), model, **equal)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def send(self, request: bytes, end: bool = False) -> bytes:
        """Send raw bytes and return all received bytes. With `end`, shut down the sending side before receiving."""
        with self.connect() as connection:
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
            return received

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        """Kill the service and its workers. Do nothing if the service has already ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


# Settings for processes that import test modules. By default, environment() sets PYTHONPATH to tests/production, which
# hides the packages that production does not have. Test modules need these packages. An empty PYTHONPATH hides nothing.
WITH_TEST_PACKAGES = {"PYTHONPATH": ""}


def environment(directory: Path, **settings: str) -> dict[str, str]:
    """Return the environment variables for a service or a command.

    Copies this process's environment without the variables that configure threadsvc, Django or Python. Adds a data
    directory, a database and `settings`. Requests need no API key unless `settings` change this default.
    """
    excluded = (
        "PYTHON",
        "THREADSVC_",
        "DATABASE_URL",
        "THREADS_DATABASE_URL",
        "HOST",
        "PORT",
        "WEB_CONCURRENCY",
        "DJANGO_",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    own = {
        "PYTHONPATH": str(ROOT / "tests" / "production"),
        "THREADSVC_DATA_DIR": str(directory),
        "THREADSVC_ALLOW_ANONYMOUS": "1",
    }
    return {**kept, **own, **engines.variables(directory), **settings}


def database_url(directory: Path, variables: dict[str, str]) -> str:
    """Return the URL of the database that stores threads and messages for a process with these variables."""
    return (
        variables.get("THREADS_DATABASE_URL") or variables.get("DATABASE_URL") or f"sqlite:///{directory}/threadsvc.db"
    )


def manage(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a manage.py command and wait until it ends."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(directory, **settings), capture_output=True, text=True, timeout=60
    )


def in_transaction(*statements: str) -> list[str]:
    """Return the statements that a test expects, with BEGIN and COMMIT if the chosen engine has transactions."""
    return list(statements) if engines.chosen == "mongodb" else ["BEGIN", *statements, "COMMIT"]


@functools.cache
def migrated_file() -> Path:
    """Return the path of a migrated SQLite database.

    The database is created only once, because a migration takes longer than most tests.
    """
    directory = Path(tempfile.mkdtemp(prefix="threadsvc-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    done = manage(directory, "migrate", "-v0")
    assert (done.returncode, done.stderr) == (0, "")
    return directory / "threadsvc.db"


def prepare(directory: Path) -> None:
    """Create a data directory with a migrated SQLite database. Do nothing if the directory exists."""
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        shutil.copyfile(migrated_file(), directory / "threadsvc.db")


def migrate(directory: Path) -> None:
    """Create the data directory, and the tables for threads and messages in the chosen engine's database."""
    prepare(directory)
    if engines.chosen == "sqlite":
        return
    done = manage(directory, "migrate", "-v0", "--database", connection.alias)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a `tests.browser.Browser`. Without Chromium, the test is skipped; under CI, it fails."""
    from tests.browser import Browser  # imports Playwright, which few tests need

    try:
        with Browser() as started:
            yield started
    except Unavailable as error:
        reason = f"tests in a browser: {error}"
        pytest.fail(reason, pytrace=False) if is_ci() else pytest.skip(reason)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Yield a function that starts a service whose data directory is `tmp_path / "data"`.

    The services are killed after the test.
    """
    services: list[Served] = []

    def start(*options: str, **settings: str) -> Served:
        services.append(Served(tmp_path / "data", *options, **settings))
        return services[-1]

    yield start
    for service in services:
        service.kill()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    service = Served(tmp_path_factory.mktemp("served") / "data")
    yield service
    service.stop()
