"""What is seen of a running service from outside: its log, and its metrics."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, database_url, manage
from tests.stored import execute

CANARY = "xylophone"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def lines_of(service: Served) -> list[dict[str, Any]]:
    """The log: all that a service printed after it said where it is."""
    printed = service.log.read_text().splitlines()
    first = next(number for number, line in enumerate(printed) if line.startswith("{"))
    return [json.loads(line) for line in printed[first:]]


def told_of(service: Served, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines_of(service) if line.get("request_id") == request_id]


def workers_of(service: Served) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_each_answer_is_a_line_of_json_with_its_request_id(served: Served) -> None:
    thread = served.new_thread()
    answer = served.call("POST", f"/v1/threads/{thread}/messages", {"role": "user", "content": "hello"})
    (line,) = told_of(served, answer.headers["x-request-id"])
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
        ("GET", "/threads/x/", "(unknown)", 404, 0),
        ("BREW", "/threads", "/threads", 405, 1),
        ("GET", "/openapi.json", "/openapi.json", 200, 0),
        ("GET", "/admin/messages_app/thread/x/change/", "/admin/messages_app/thread/{object_id}/change/", 302, 0),
        ("GET", "/admin/auth/", "/admin/{app_label}/", 302, 0),
        ("GET", "/admin/x/y", "/admin/{url}", 302, 0),
        ("GET", "/static/x", "/static/{path}", 404, 0),
    ],
)
def test_line_names_the_route_and_never_the_path(
    served: Served, method: str, path: str, route: str, status: int, tenant: int
) -> None:
    given = f"route-{method}-{path}"
    served.call(method, path, **{"X-Request-Id": given})
    (line,) = told_of(served, given)
    assert line["method"] == (method if method != "BREW" else "(other)")
    assert (line["route"], line["status"], line["tenant"]) == (route, status, "default" if tenant else None)


@pytest.mark.stateless
def test_probes_and_static_files_are_not_told(served: Served) -> None:
    for path in ("/healthz", "/readyz", "/static/threadsvc/favicon.svg"):
        answer = served.call("GET", path)
        assert answer.status == 200
        assert told_of(served, answer.headers["x-request-id"]) == []


def test_log_holds_nothing_of_what_was_sent(served: Served) -> None:
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
    for request in (  # what gunicorn refuses, and would quote
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
    """A service whose database refuses some metadata, and quotes it."""
    url = database_url(served.directory, served.environment)
    if url.startswith("sqlite"):
        refused = f"WHEN NEW.metadata LIKE '%{CANARY}%' BEGIN SELECT RAISE(ABORT, 'no {CANARY}'); END"
        made, removed = f"CREATE TRIGGER broken BEFORE UPDATE ON messages_app_thread {refused}", "DROP TRIGGER broken"
    else:
        altered = "ALTER TABLE messages_app_thread"
        made = f"{altered} ADD CONSTRAINT broken CHECK (metadata::text NOT LIKE '%{CANARY}%') NOT VALID"
        removed = f"{altered} DROP CONSTRAINT broken"
    execute(url, made)
    yield served
    execute(url, removed)


@pytest.mark.engine("sqlite", "postgresql")
def test_fault_is_told_once_with_its_request_id_and_without_what_it_quotes(broken: Served) -> None:
    thread = broken.new_thread()
    given = f"fault-{thread}"
    answer = broken.call("POST", f"/threads/{thread}", {"metadata": {"a": CANARY}}, **{"X-Request-Id": given})
    assert (answer.status, answer.body) == (500, {"detail": "Internal Server Error"})
    fault, line = told_of(broken, given)
    assert (fault["level"], fault["event"]) == ("error", "unhandled exception")
    assert re.search(r"django\.db\.utils\.IntegrityError", fault["exception"])
    assert "Traceback (most recent call last)" in fault["exception"]
    assert "messages_app/views.py" in fault["exception"]
    assert (line["event"], line["status"]) == ("answered", 500)
    assert CANARY not in broken.log.read_text()


@pytest.mark.stateless
def test_text_is_for_people_and_one_line_an_event(serve: Callable[..., Served]) -> None:
    service = serve(THREADSVC_LOG_FORMAT="text", WEB_CONCURRENCY="1")
    service.call("GET", "/threads/x", **{"X-Request-Id": 'x"status=200'})
    (worker,) = workers_of(service)
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


@pytest.mark.stateless
def test_log_tells_of_warnings_and_of_exceptions_that_nobody_catches(tmp_path: Path) -> None:
    program = (
        "import threading, warnings; from threadsvc.logs import log_what_python_prints as log; log();"
        "warnings.warn('mind the step'); threading.Thread(target=lambda: int('{c}')).start()"
    ).replace("{c}", CANARY)
    ended = manage(tmp_path / "data", "shell", "-v0", "-c", program)
    warning, died = map(json.loads, ended.stderr.splitlines())
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: mind the step" in warning["event"]
    assert died["exception"].endswith("builtins.ValueError")
    assert "xylophone" not in died["exception"].replace("int('xylophone')", "")
