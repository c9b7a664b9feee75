"""Behaviour of the running service that needs a real server and real sockets."""

import json
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Served, connection, database_url, environment, free_port, manage, migrate
from tests.stored import execute, tables

GOOD = b'{"role":"user","content":"hello"}'


def post_raw(target: str, headers: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def status_of(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


def body_of(received: bytes) -> Any:
    return json.loads(received.partition(b"\r\n\r\n")[2])


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


CHUNKED = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


def stored(served: Served, thread_id: str) -> int:
    return len(served.stored("message", thread_id=thread_id))


@pytest.mark.once
def test_second_start_responds_soon(serve: Callable[..., Served], tmp_path: Path) -> None:
    assert serve().stop() == 0
    start = time.monotonic()
    assert manage(tmp_path / "data", "check").returncode == 0
    seconds_per_command = time.monotonic() - start  # 0.75 s on an idle machine
    service = serve()
    assert service.seconds_to_first_answer < 4 * seconds_per_command
    assert service.stop() == 0


@pytest.mark.once
def test_banner_lists_the_urls_and_createsuperuser(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}"
    printed = served.log.read_text()
    for line in (f"{url}/v1/threads", f"{url}/docs", f"{url}/redoc", f"{url}/admin/", "manage.py createsuperuser"):
        assert line in printed


@pytest.mark.process
@pytest.mark.stateless
def test_only_the_owner_can_read_data_directory_and_secret_key(tmp_path: Path) -> None:
    assert manage(tmp_path / "data", "check").returncode == 0
    key = tmp_path / "data" / "secret_key"
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_text()) >= 50


@pytest.mark.once
def test_chunked_body_is_read_like_any_other(served: Served) -> None:
    thread = served.new_thread()
    received = served.send(post_raw(f"/threads/{thread}/messages", CHUNKED, chunks(GOOD[:7], GOOD[7:], b"")))
    assert (status_of(received), body_of(received)["content"][0]["text"]["value"]) == (200, "hello")
    received = served.send(post_raw(f"/threads/{thread}/messages", CHUNKED, chunks(b"{}", b"")))
    assert (status_of(received), len(body_of(received)["detail"])) == (422, 2)
    received = served.send(post_raw(f"/threads/{thread}/messages", CHUNKED, chunks(b"")))
    assert body_of(received)["detail"][0]["loc"] == ["body"]
    assert stored(served, thread) == 1


@pytest.mark.once
@pytest.mark.parametrize("body", [chunks(GOOD), chunks(GOOD[:5]), b"40\r\n" + GOOD, b"zz\r\n{}\r\n0\r\n\r\n", b""])
def test_broken_chunked_body_stores_nothing(served: Served, body: bytes) -> None:
    thread = served.new_thread()
    received = served.send(post_raw(f"/threads/{thread}/messages", CHUNKED, body), end=True)
    assert not received or status_of(received) == 400
    assert stored(served, thread) == 0


@pytest.mark.once
@pytest.mark.parametrize("body", [GOOD, GOOD[:5], b""])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_body_shorter_than_its_content_length_stores_nothing(served: Served, content_type: str, body: bytes) -> None:
    thread = served.new_thread()
    headers = f"Content-Type: {content_type}\r\nContent-Length: {len(GOOD) + 5}\r\n"
    unreadable = (400, {"detail": "There was an error parsing the body"})
    before = served.stored("thread")
    for target in (f"/threads/{thread}/messages", "/threads"):
        received = served.send(post_raw(target, headers, body), end=True)
        assert (status_of(received), body_of(received)) == unreadable
    assert stored(served, thread) == 0
    assert served.stored("thread") == before


@pytest.mark.once
def test_get_does_not_wait_for_its_body(served: Served) -> None:
    thread = served.new_thread()
    for length in ("Content-Length: 10", "Transfer-Encoding: chunked"):
        with served.connect() as connection:
            connection.sendall(f"GET /threads/{thread} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
            assert status_of(connection.recv(65536)) == 200


@pytest.mark.once
@pytest.mark.parametrize(
    "header",
    [
        "SCRIPT_NAME: /x",
        "Script-Name: /x",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Ssl: on\r\nX-Forwarded-Proto: http",
    ],
)
def test_proxy_headers_from_a_client_change_nothing(served: Served, header: str) -> None:
    thread = served.new_thread()
    received = served.send(
        f"GET /threads/{thread} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nConnection: close\r\n\r\n".encode()
    )
    assert (status_of(received), body_of(received)["id"]) == (200, thread)


@pytest.mark.stateless
def test_refused_host_is_not_logged(served: Served) -> None:
    served.call("GET", "/threads/x", Host="evil.example")
    assert "evil.example" not in served.log.read_text()


@pytest.mark.stateless
def test_chunked_body_over_the_limit_is_413(served: Served) -> None:
    megabyte = b" " * 1024 * 1024
    received = served.send(post_raw("/threads/x/messages", CHUNKED, chunks(*[megabyte] * 5, b"")))
    assert (status_of(received), body_of(received)) == (413, {"detail": "Request body too large"})


@pytest.mark.once
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset*=bogus''x", 200),
        ("application/json; charset=\xff\xfe", 200),
        ("application/json; charset=undefined", 200),
        ('application/json; a="\\', 200),
        ("multipart/form-data; boundary*=bogus''x", 422),
        ("multipart/form-data; boundary=", 422),
    ],
)
def test_invalid_media_type_parameters_do_not_cause_a_500(served: Served, content_type: str, status: int) -> None:
    headers = f"Content-Type: {content_type}\r\nContent-Length: 2\r\n"
    assert status_of(served.send(post_raw("/threads", headers, b"{}"))) == status


@pytest.mark.stateless
def test_browser_form_is_refused_without_being_read(served: Served) -> None:
    headers = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n"
    received = served.send(post_raw("/threads", headers, b"role=user"))
    assert body_of(received)["detail"][0]["type"] == "type_error.dict"


def test_url_of_8_kib_reaches_the_application(served: Served) -> None:
    long_id = "x" * (8192 - len("/threads/"))
    answer = served.call("GET", f"/threads/{long_id}")
    assert (answer.status, answer.body) == (404, {"detail": f"Thread with ID '{long_id}' not found"})


@pytest.mark.stateless
def test_endless_request_line_is_cut_off(served: Served) -> None:
    with served.connect() as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(b"x" * 64 * 1024 * 1024)
    assert served.call("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /threads/%ff HTTP/1.1", 404),
        (b"GET //threads HTTP/1.1", 404),
        (b"GET /threads/a%2Fb HTTP/1.1", 404),
        (b"GET /threads/%00 HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"FOO /threads HTTP/1.1", 405),
        (b"PUT /threads HTTP/1.1", 405),
    ],
)
def test_unusual_request_lines_get_json(served: Served, line: bytes, status: int) -> None:
    received = served.send(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status_of(received) == status
    assert "detail" in body_of(received)


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /threads", 400),
        (b"GET /threads HTTP/1.1\r\nX A: x\r\n\r\n", 400),
        (b"GET /threads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: unheard-of\r\n\r\n", 400),
        (b"GET /threads HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\n\r\n", 417),
        (b"GET /threads?%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 70000), 414),
        (b"GET /threads HTTP/1.1\r\n%s\r\n" % b"".join(b"X-%d: x\r\n" % i for i in range(200)), 431),
    ],
)
def test_unparsable_request_gets_a_json_error(served: Served, request_bytes: bytes, status: int) -> None:
    received = served.send(request_bytes + b"\r\n\r\n", end=True)
    assert status_of(received) == status
    assert isinstance(body_of(received)["detail"], str)
    assert b"\r\nx-request-id: " in received


@pytest.mark.stateless
def test_unclosed_connections_do_not_block_other_clients(served: Served) -> None:
    silent = [served.connect() for _ in range(6)]
    for client in silent:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    started = time.monotonic()
    assert served.call("GET", "/healthz").status == 200
    assert time.monotonic() - started < 1.5
    # These clients did not close their connections. The server sends complete responses and closes the connections.
    for client in silent:
        received = b""
        while piece := client.recv(65536):
            received += piece
        assert received.endswith(b'{"status": "ok"}')
        client.close()


@pytest.mark.once
def test_head_has_a_content_length_and_no_body(served: Served) -> None:
    thread = served.new_thread()
    received = served.send(f"HEAD /threads/{thread} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: 131" in head.lower()
    assert body == b""


@pytest.mark.stateless
def test_foreign_host_is_refused(served: Served) -> None:
    answer = served.call("POST", "/threads", Host="evil.example")
    assert (answer.status, answer.body) == (400, {"detail": "Invalid Host header"})


@pytest.mark.stateless
def test_pipelined_requests_all_get_a_response(served: Served) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    received = served.send(request % b"" + request % b"" + request % b"Connection: close\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.once
def test_sigterm_lets_the_request_in_flight_finish(serve: Callable[..., Served]) -> None:
    service = serve()
    thread = service.new_thread()
    headers = f"Content-Type: application/json\r\nContent-Length: {len(GOOD)}\r\n"
    request = post_raw(f"/threads/{thread}/messages", headers, GOOD)
    with service.connect() as connection:
        connection.sendall(request[:-5])
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(request[-5:])
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert status_of(received) == 200
    assert service.process.wait(40) == 0
    assert stored(service, thread) == 1


@pytest.fixture
def impatient(serve: Callable[..., Served], tmp_path: Path) -> Served:
    """A service that waits at most one second for a locked database."""
    database = tmp_path / "data" / "threadsvc.db"
    return serve(DATABASE_URL=f"sqlite:///{database}?timeout=1")


@pytest.mark.engine("sqlite")
def test_locked_database_is_503_until_it_is_released(impatient: Served) -> None:
    thread = impatient.new_thread()
    with closing(sqlite3.connect(impatient.directory / "threadsvc.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        answer = impatient.call("POST", f"/threads/{thread}/messages", GOOD)
        assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable"})
        assert answer.headers["retry-after"] == "1"
        assert impatient.call("GET", "/healthz").status == 200
        connection.execute("ROLLBACK")
    assert impatient.call("POST", f"/threads/{thread}/messages", GOOD).status == 200
    assert stored(impatient, thread) == 1


@pytest.mark.engine("sqlite")
def test_database_with_a_missing_table_is_not_ready(impatient: Served) -> None:
    with closing(sqlite3.connect(impatient.directory / "threadsvc.db")) as connection:
        connection.execute("DROP TABLE messages_app_message")
        connection.commit()
    answer = impatient.call("GET", "/readyz")
    assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable"})
    assert impatient.call("GET", "/healthz").status == 200


@pytest.mark.engine("sqlite")
def test_threads_can_have_their_own_database(serve: Callable[..., Served], tmp_path: Path) -> None:
    own = tmp_path / "own.db"
    service = serve(THREADS_DATABASE_URL=f"sqlite:///{own}")
    thread = service.new_thread()
    assert service.call("POST", f"/threads/{thread}/messages", GOOD).status == 200
    assert service.call("GET", "/readyz").status == 200
    assert service.stop() == 0
    default, threads = tables(f"sqlite:///{tmp_path}/data/threadsvc.db"), tables(f"sqlite:///{own}")
    assert stored(service, thread) == 1
    assert default >= {"auth_user", "django_session"}
    assert {"messages_app_thread", "messages_app_message", "django_migrations"} < threads
    assert not {table for table in threads if not table.startswith(("messages_app_", "django_migrations"))}
    assert not default & {"messages_app_thread", "messages_app_message"}

    # Without THREADS_DATABASE_URL, the service expects the tables in the default database, which does not have them.
    ended = manage(tmp_path / "data", "serve", PORT=str(free_port()))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "DATABASE_URL has no table messages_app_" in ended.stderr


@pytest.mark.process
@pytest.mark.engine("sqlite")
def test_two_names_of_one_file_are_one_database(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    other_name = f"sqlite:///{tmp_path}/data/../data/threadsvc.db"
    program = "from django.conf import settings; print(*settings.DATABASES)"
    shell = manage(tmp_path / "data", "shell", "-v0", "-c", program, THREADS_DATABASE_URL=other_name)
    assert shell.stdout == "default\n"


@pytest.mark.stateless
def test_banner_shows_loopback_for_a_wildcard_host(serve: Callable[..., Served]) -> None:
    service = serve(HOST="0.0.0.0")
    printed = service.log.read_text()
    assert service.stop() == 0
    assert f"http://127.0.0.1:{service.port}/v1/threads" in printed
    assert "not required (THREADSVC_ALLOW_ANONYMOUS is 1): any client that reaches this address" in printed


@pytest.mark.process
@pytest.mark.engine("sqlite")
def test_djongo_is_not_imported_without_a_mongodb_url(tmp_path: Path) -> None:
    program = "import sys, threadsvc.urls; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    shell = manage(tmp_path / "data", "shell", "-v0", "-c", program)
    modules = shell.stdout.split()
    assert "messages_app" in modules
    assert {"djongo", "pymongo", "bson"} & set(modules) == set()
    assert "psycopg_pool" not in modules


@pytest.mark.process
@pytest.mark.stateless
@pytest.mark.parametrize("missing", ["psycopg", "psycopg_pool"])
def test_missing_driver_is_a_one_line_error(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text("raise ImportError('not here')")
    settings = {"DATABASE_URL": "postgresql://user:hidden@host/x", "PYTHONPATH": str(tmp_path)}
    ended = manage(tmp_path / "data", "serve", PORT=str(free_port()), **settings)
    assert ended.returncode == 1
    assert ended.stderr == "threadsvc: DATABASE_URL: PostgreSQL needs psycopg[binary,pool] (requirements.txt)\n"
    # With SQLite, the missing driver is not an error.
    assert manage(tmp_path / "data", "check", PYTHONPATH=str(tmp_path)).returncode == 0


@pytest.mark.stateless
def test_port_in_use_is_a_one_line_error(served: Served, tmp_path: Path) -> None:
    ended = manage(tmp_path / "data", "serve", PORT=str(served.port))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert f"cannot listen on 127.0.0.1 port {served.port}: Address already in use" in ended.stderr


@pytest.mark.process
@pytest.mark.stateless
def test_secrets_can_come_from_files(tmp_path: Path) -> None:
    secret, url = tmp_path / "secret", tmp_path / "url"
    secret.write_text("from a file\n")
    url.write_text(f"sqlite:///{tmp_path / 'elsewhere.db'}\n")
    program = "from django.conf import settings as s; print(s.SECRET_KEY, s.DATABASES['default']['NAME'])"
    files = {"THREADSVC_SECRET_KEY_FILE": str(secret), "DATABASE_URL_FILE": str(url)}
    shell = manage(tmp_path / "data", "shell", "-v0", "-c", program, **files)
    assert shell.stdout == f"from a file {tmp_path / 'elsewhere.db'}\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.process
@pytest.mark.stateless
def test_concurrent_processes_create_one_secret_key(tmp_path: Path) -> None:
    keys = []
    program = "from django.conf import settings; print(settings.SECRET_KEY)"

    def read() -> None:
        keys.append(manage(tmp_path / "data", "shell", "-v0", "-c", program).stdout)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret_key"]


@pytest.mark.process
@pytest.mark.engine("sqlite")
def test_data_directory_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "odd #1 ?%41 é"
    ended = manage(directory, "migrate", "-v0")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (directory / "threadsvc.db").exists()


@pytest.mark.stateless
def test_tests_ignore_the_developers_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:////precious.db")
    assert "DATABASE_URL" not in environment(tmp_path)


# There is no upgrade on MongoDB to test, because the first version did not support MongoDB.
@pytest.mark.engine("sqlite", "postgresql")
def test_upgrade_from_the_first_version_keeps_the_data(serve: Callable[..., Served], tmp_path: Path) -> None:
    directory = tmp_path / "data"
    migrate(directory)
    earlier = manage(directory, "migrate", "-v0", "--database", connection.alias, "messages_app", "0001")
    assert earlier.returncode == 0
    execute(
        database_url(directory, environment(directory)),
        "INSERT INTO messages_app_thread (id, _id, tenant, metadata, created_at) VALUES"
        """ ('thread_a', 'a', 'default', '{"user":"zoë"}', '2026-01-01 00:00:00')""",
        "INSERT INTO messages_app_message (id, _id, thread_id, position, role, content, attachments, assistant_id,"
        " run_id, metadata, created_at) VALUES"
        " ('msg_a', 'a', 'thread_a', 1, 'user', '[]', '[]', '', '', '{}', '2026-01-01 00:00:00')",
    )
    service = serve()
    assert service.call("GET", "/threads?metadata[user]=zo%C3%AB").body["last_id"] == "thread_a"
    (message,) = service.call("GET", "/threads/thread_a/messages").body["data"]
    assert (message["id"], message["run_id"]) == ("msg_a", "")
    assert [row["run_id"] for row in service.stored("message")] == [None]
