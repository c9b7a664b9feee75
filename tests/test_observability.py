"""The log and the metrics of a running service."""

import json
import os
import re
import signal
import socket
import sqlite3
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import engines
from tests.conftest import Served, connection, database_url, free_port, manage
from tests.servers import is_running, suspend
from tests.stored import execute
from threadsvc.observability import exporter

CANARY = "xylophone"
GOOD = b'{"role":"user","content":"hello"}'
CREATE = {"method": "POST", "route": "/threads/{thread_id}/messages"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def lines_of(service: Served) -> list[dict[str, Any]]:
    """Return the log records of a service. Skips the banner at the start of the log."""
    printed = service.log.read_text().splitlines()
    first = next(number for number, line in enumerate(printed) if line.startswith("{"))
    return [json.loads(line) for line in printed[first:]]


def lines_of_request(service: Served, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines_of(service) if line.get("request_id") == request_id]


def test_each_response_is_logged_as_json_with_its_request_id(served: Served) -> None:
    thread = served.new_thread()
    answer = served.call("POST", f"/v1/threads/{thread}/messages", {"role": "user", "content": "hello"})
    (line,) = lines_of_request(served, answer.headers["x-request-id"])
    assert TIME.fullmatch(line.pop("timestamp"))
    assert 0 < line.pop("ms") < 30_000
    assert line == {
        "level": "info",
        "logger": "threadsvc.access",
        "event": "answered",
        "request_id": answer.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/threads/{thread_id}/messages",
        "status": 200,
        "tenant": "default",
    }


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("method", "path", "route", "status", "tenant"),
    [
        ("GET", "/threads/x/messages/y/files/z", "/threads/{thread_id}/messages/{message_id}/files/{file_id}", 404, 1),
        ("PUT", "/threads/x", "/threads/{thread_id}", 405, 1),
        ("POST", "/threads/x/messages?x=y", "/threads/{thread_id}/messages", 422, 1),
        ("GET", "/threads/x/", "(unknown)", 404, 1),
        ("BREW", "/threads", "/threads", 405, 1),
        ("GET", "/openapi.json", "/openapi.json", 200, 0),
        ("GET", "/admin/messages_app/thread/x/change/", "/admin/messages_app/thread/{object_id}/change/", 302, 0),
        ("GET", "/admin/auth/", "/admin/{app_label}/", 302, 0),
        ("GET", "/admin/x/y", "/admin/{url}", 302, 0),
        ("GET", "/static/x", "/static/{path}", 404, 0),
    ],
)
def test_log_line_has_the_route_and_never_the_path(
    served: Served, method: str, path: str, route: str, status: int, tenant: int
) -> None:
    request_id = f"route-{method}-{path}"
    served.call(method, path, **{"X-Request-Id": request_id})
    (line,) = lines_of_request(served, request_id)
    assert line["method"] == (method if method != "BREW" else "(other)")
    assert (line["route"], line["status"], line["tenant"]) == (route, status, "default" if tenant else None)


@pytest.mark.stateless
def test_probes_and_static_files_are_not_logged(served: Served) -> None:
    for path in ("/healthz", "/readyz", "/static/threadsvc/favicon.svg"):
        answer = served.call("GET", path)
        assert answer.status == 200
        assert lines_of_request(served, answer.headers["x-request-id"]) == []


def test_log_contains_no_data_from_requests(served: Served) -> None:
    thread = served.new_thread()
    body = {"role": "user", "content": CANARY, "metadata": {CANARY: CANARY}, "file_ids": [CANARY]}
    keys = {
        "Authorization": f"Bearer tsk_{CANARY}",
        "Idempotency-Key": CANARY,
        "Cookie": f"a={CANARY}",
        "Origin": f"http://{CANARY}.example",
    }
    for path in ("/threads", f"/threads/{thread}/messages", f"/threads/{CANARY}", f"/threads/x/messages/{CANARY}"):
        for sent in (body, {**body, CANARY: [CANARY]}, f'{{"{CANARY}'.encode(), CANARY.encode() + b"\xff"):
            for headers in (keys, {"OpenAI-Beta": "assistants=v2"}, {"Host": f"{CANARY}.example"}):
                served.call("POST", path, sent, **headers)
    for path in (f"/{CANARY}", f"/threads?metadata[{CANARY}]={CANARY}", f"/threads?after={CANARY}", f"/admin/{CANARY}"):
        served.call("GET", path, **keys)
    # gunicorn rejects these requests. Its own log messages would quote them.
    for request in (
        f"GET /{CANARY} {CANARY}\r\n\r\n",
        f"{CANARY} / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization\0: {CANARY}\r\n\r\n",
        f"GET / HTTP/1.1\r\nbad {CANARY}: x\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization: {CANARY}\0\r\n\r\n",
        f"GET /{CANARY} HTTP/1.1\r\nContent-Length: {CANARY}\r\n\r\n",
        f"POST /{CANARY} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
        f"POST /{CANARY} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
        f"POST /threads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{CANARY}",
    ):
        served.send(request.encode(), end=True)
    lines = lines_of(served)
    assert sum(line["event"] == "Invalid request from ip=127.0.0.1: InvalidHeader" for line in lines) >= 2
    assert sum(line["logger"] == "threadsvc.access" for line in lines) > 50
    assert CANARY not in served.log.read_text().lower()


@pytest.fixture
def broken(served: Served) -> Iterator[Served]:
    """A service whose database rejects metadata that contains the canary, with an error that quotes it."""
    url = database_url(served.directory, served.environment)
    if url.startswith("sqlite"):
        condition = f"WHEN NEW.metadata LIKE '%{CANARY}%' BEGIN SELECT RAISE(ABORT, 'no {CANARY}'); END"
        create, drop = f"CREATE TRIGGER broken BEFORE UPDATE ON messages_app_thread {condition}", "DROP TRIGGER broken"
    else:
        alter = "ALTER TABLE messages_app_thread"
        create = f"{alter} ADD CONSTRAINT broken CHECK (metadata::text NOT LIKE '%{CANARY}%') NOT VALID"
        drop = f"{alter} DROP CONSTRAINT broken"
    execute(url, create)
    yield served
    execute(url, drop)


@pytest.mark.engine("sqlite", "postgresql")
def test_exception_is_logged_once_without_user_data(broken: Served) -> None:
    thread = broken.new_thread()
    request_id = f"fault-{thread}"
    answer = broken.call("POST", f"/threads/{thread}", {"metadata": {"a": CANARY}}, **{"X-Request-Id": request_id})
    assert (answer.status, answer.body) == (500, {"detail": "Internal Server Error"})
    fault, line = lines_of_request(broken, request_id)
    assert (fault["level"], fault["event"]) == ("error", "unhandled exception")
    assert re.search(r"django\.db\.utils\.IntegrityError", fault["exception"])
    assert "Traceback (most recent call last)" in fault["exception"]
    assert "messages_app/api/assistants/views.py" in fault["exception"]
    assert (line["event"], line["status"]) == ("answered", 500)
    assert CANARY not in broken.log.read_text()


@pytest.mark.stateless
def test_text_format_has_one_line_per_event(serve: Callable[..., Served]) -> None:
    service = serve(THREADSVC_LOG_FORMAT="text", WEB_CONCURRENCY="1")
    service.call("GET", "/threads/x", **{"X-Request-Id": 'x"status=200'})
    (worker,) = service.children()
    os.kill(worker, signal.SIGKILL)
    service.wait_until(lambda: service.call("GET", "/healthz").status == 200)
    assert service.stop() == 0
    printed = service.log.read_text().splitlines()
    (answered,) = [line for line in printed if "/threads/{thread_id}" in line]
    assert "request_id='x\"status=200'" in answered
    assert "status=404" in answered
    assert any(f"Worker (pid:{worker}) was sent SIGKILL" in line for line in printed)
    first = next(number for number, line in enumerate(printed) if "Starting gunicorn" in line)
    assert all(re.match(r"\S+Z \[\w+ *\] ", line) for line in printed[first:])


@pytest.mark.process
@pytest.mark.stateless
def test_warnings_and_uncaught_exceptions_are_logged(tmp_path: Path) -> None:
    program = (
        "import threading, warnings; from threadsvc.observability.logs import log_what_python_prints as log; log();"
        "warnings.warn('mind\\nthe step'); threading.Thread(target=lambda: int('{c}')).start()"
    ).replace("{c}", CANARY)
    ended = manage(tmp_path / "data", "shell", "-v0", "-c", program)
    warning, died = map(json.loads, ended.stderr.splitlines())
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: mind\nthe step" in warning["event"]
    assert died["exception"].endswith("builtins.ValueError")
    # The traceback quotes the program's source line, which contains the canary. Remove this line's `int(...)` first.
    # The rest must not contain the canary.
    assert CANARY not in died["exception"].replace(f"int('{CANARY}')", "")
    text = manage(tmp_path / "data", "shell", "-v0", "-c", program, THREADSVC_LOG_FORMAT="text").stderr.splitlines()
    assert re.search(r" \[warning *\] .*UserWarning: mind\\nthe step", text[0])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with metrics and two workers. It waits at most one second for a locked database."""
    directory = tmp_path_factory.mktemp("measured") / "data"
    url = f"sqlite:///{directory}/threadsvc.db?timeout=1"
    service = Served(directory, DATABASE_URL=url, THREADSVC_METRICS_PORT=str(free_port()))
    yield service
    service.stop()


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True


def scrape(service: Served) -> bytes:
    port = service.environment["THREADSVC_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        content: bytes = answer.read()
    return content


def metric(service: Served, name: str, **labels: str) -> float:
    """Return the sum of the samples that have this name and these labels."""
    families = text_string_to_metric_families(scrape(service).decode())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.process
def test_metrics_are_summed_over_workers_and_survive_them(measured: Served) -> None:
    thread = measured.new_thread()
    measured.wait_until(lambda: len(measured.children()) == 3)
    _, *workers = measured.children()  # the first child is the process that serves the metrics
    assert len(workers) == metric(measured, "threadsvc_workers") == 2
    queries = {"name": "threadsvc_database_duration_seconds_count", "database": connection.alias, "operation": "query"}
    before = metric(measured, **queries)
    for number, stopped in enumerate(workers, start=1):
        # While one worker is suspended, the other worker handles every request.
        suspend(stopped)
        for _ in range(10):
            assert measured.call("POST", f"/threads/{thread}/messages", GOOD).status == 200
        assert measured.call("POST", f"/threads/{thread}/messages", b"{}").status == 422
        os.kill(stopped, signal.SIGCONT)
        assert metric(measured, "threadsvc_http_requests_total", **CREATE, status="200") == 10 * number
        assert metric(measured, "threadsvc_http_requests_total", **CREATE, status="422") == number
        assert metric(measured, "threadsvc_http_request_duration_seconds_count", **CREATE) == 11 * number
    assert metric(measured, **queries) >= before + 20  # 20 messages were created, each with at least one query

    with measured.connect() as unfinished:
        unfinished.sendall(b"POST /threads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        measured.wait_until(lambda: metric(measured, "threadsvc_http_requests_in_progress") == 1)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        measured.wait_until(lambda: metric(measured, "threadsvc_http_requests_in_progress") == 0)
    measured.wait_until(lambda: measured.call("GET", "/healthz").status == 200)
    assert metric(measured, "threadsvc_http_requests_total", **CREATE, status="200") == 20
    assert metric(measured, "threadsvc_http_request_duration_seconds_count", **CREATE) == 22
    assert metric(measured, "process_cpu_seconds_total") > 0


@pytest.mark.process
def test_metrics_count_each_statement_once(measured: Served) -> None:
    thread = measured.new_thread()
    queries = {"name": "threadsvc_database_duration_seconds_count", "database": connection.alias, "operation": "query"}

    def statements_of_ten_messages() -> float:
        before = metric(measured, **queries)
        for _ in range(10):
            assert measured.call("POST", f"/threads/{thread}/messages", GOOD).status == 200
        return metric(measured, **queries) - before

    per_message = {"sqlite": 1, "postgresql": 2, "mongodb": 4}[engines.chosen]
    # Each worker purges once after its start. If a purge runs during the count, its statements are counted too.
    # Therefore repeat the count until it is right.
    measured.wait_until(lambda: statements_of_ten_messages() == 10 * per_message)


@pytest.mark.engine("postgresql")
def test_service_with_metrics_prepares_its_statements(serve: Callable[..., Served]) -> None:
    assert engines.server
    url, log = engines.server.new_database(), engines.server.directory / "log"
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(f"ALTER DATABASE {database.info.dbname} SET log_statement = 'all'")
    service = serve(THREADS_DATABASE_URL=url, THREADSVC_METRICS_PORT=str(free_port()), WEB_CONCURRENCY="1")
    thread = service.new_thread()
    # A connection prepares a statement only after it has run the statement three times. The service has several
    # connections, so this takes several requests.
    for _ in range(20):
        assert service.call("POST", f"/threads/{thread}/messages", GOOD).status == 200
    assert re.search(r'execute _pg\S+: INSERT INTO "messages_app_message"', log.read_text())


@pytest.mark.stateless
def test_scrape_succeeds_while_a_worker_creates_its_file(tmp_path: Path) -> None:
    from prometheus_client.multiprocess import MultiProcessCollector

    file = tmp_path / "counter_1.db"
    file.touch()
    sums = exporter.Sums(MultiProcessCollector(None, str(tmp_path)))
    with pytest.raises(struct.error):
        list(sums.workers.collect())
    threading.Timer(0.1, lambda: file.write_bytes(bytes(4096))).start()
    assert list(sums.collect()) == []


@pytest.mark.process
@pytest.mark.stateless
def test_no_request_creates_a_new_series(measured: Served) -> None:
    """A metrics server keeps every series in memory, so requests must not add series."""

    def odd(number: int) -> bytes:
        paths = (f"/{number}", f"/threads/{number}", f"/v1/threads/x/messages/{number}?a={number}", f"/static/{number}")
        method, path = ("GET", "DELETE", f"BREW{number}")[number % 3], paths[number % 4]
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {number}\r\n\r\n".encode()

    end = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    measured.send(b"".join(map(odd, range(12))) + end)
    series = {line.rpartition(b" ")[0] for line in scrape(measured).splitlines()}
    assert measured.send(b"".join(map(odd, range(1000))) + end).count(b"HTTP/1.1 ") == 1001
    assert {line.rpartition(b" ")[0] for line in scrape(measured).splitlines()} == series


@pytest.mark.process
@pytest.mark.engine("sqlite")
def test_unavailable_database_is_counted_as_an_error(measured: Served) -> None:
    thread = measured.new_thread()
    errors = {"name": "threadsvc_errors_total", "kind": "database_unavailable"}
    before = metric(measured, **errors)
    waited = {"name": "threadsvc_database_duration_seconds_sum", "database": "default", "operation": "query"}
    seconds = metric(measured, **waited)
    with closing(sqlite3.connect(measured.directory / "threadsvc.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert measured.call("POST", f"/threads/{thread}/messages", GOOD).status == 503
        other.execute("ROLLBACK")
    assert metric(measured, **errors) == before + 1
    assert metric(measured, **waited) > seconds + 0.9


@pytest.mark.process
@pytest.mark.stateless
def test_metrics_are_served_on_loopback_only(measured: Served) -> None:
    port = int(measured.environment["THREADSVC_METRICS_PORT"])
    assert can_connect("127.0.0.1", port)
    # This is another address of the same machine. It must refuse the connection, because only 127.0.0.1 serves metrics.
    assert not can_connect("127.0.0.2", port)


@pytest.mark.process
@pytest.mark.stateless
def test_metrics_port_in_use_is_a_one_line_error(measured: Served, tmp_path: Path) -> None:
    port = measured.environment["THREADSVC_METRICS_PORT"]
    ended = manage(tmp_path / "data", "serve", PORT=str(free_port()), THREADSVC_METRICS_PORT=port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"CommandError: cannot serve metrics on 127.0.0.1 port {port}: Address already in use. "
        "Set THREADSVC_METRICS_PORT to another port.\n"
    )
    # The service that already used the port is not affected and still serves its metrics.
    assert metric(measured, "threadsvc_workers") == 2


@pytest.mark.stateless
def test_metrics_end_with_the_service_and_restart_at_zero(serve: Callable[..., Served]) -> None:
    port = str(free_port())
    service = serve(THREADSVC_METRICS_PORT=port, WEB_CONCURRENCY="1")
    service.call("GET", "/healthz")
    assert metric(service, "threadsvc_http_requests_total", route="/healthz") == 1
    exporter, _ = service.children()
    service.process.kill()
    service.process.wait()
    end = time.monotonic() + 30
    while is_running(exporter):
        assert time.monotonic() < end
        time.sleep(0.01)
    again = serve(THREADSVC_METRICS_PORT=port, WEB_CONCURRENCY="1")
    assert metric(again, "threadsvc_http_requests_total", route="/healthz") == 0
    assert again.stop() == 0
    assert not can_connect("127.0.0.1", int(port))


@pytest.mark.stateless
def test_metrics_are_off_by_default(served: Served, tmp_path: Path) -> None:
    served.wait_until(lambda: len(served.children()) == 2)
    program = "import sys, threadsvc.wsgi; print('prometheus_client' in sys.modules)"
    assert manage(tmp_path / "data", "shell", "-v0", "-c", program).stdout == "False\n"
