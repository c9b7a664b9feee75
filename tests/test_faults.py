"""Responses and stored data after failures: a database outage, a full disk, a killed worker, and a bug."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.cookies import SimpleCookie
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.test import Client

from messages_app.models import Message, Thread
from tests import engines
from tests.conftest import Answer, Api, Served, connection, database_url, manage
from tests.servers import DatabaseServer
from tests.servers.postgresql import PostgreSQL
from tests.stored import execute

MESSAGE = {"role": "user", "content": "hello"}
UNAVAILABLE = (503, {"detail": "Service Unavailable"})
FULL = (507, {"detail": "Insufficient Storage"})
INTERNAL_ERROR = (500, {"detail": "Internal Server Error"})


class Attempt(NamedTuple):
    sent_at: float
    ended_at: float
    answer: Answer | None  # None if the connection broke


class Load:
    """Clients that continuously write to a thread and read it, until the `with` block ends."""

    def __init__(self, service: Served, clients: int = 12) -> None:
        self.service, self.thread = service, service.new_thread()
        self.attempts: list[Attempt] = []
        self.stopping = threading.Event()
        self.clients = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        for client in self.clients:
            client.join(60)

    def work(self, number: int) -> None:
        path, body = f"/threads/{self.thread}/messages", {"role": "user", "content": f"of {number}"}
        while not self.stopping.is_set():
            sent_at, answer = time.monotonic(), None
            try:
                answer = self.service.call("POST", path, body) if number % 2 else self.service.call("GET", path)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
            self.attempts.append(Attempt(sent_at, time.monotonic(), answer))

    def statuses(self, since: float = 0) -> set[int]:
        return {attempt.answer.status for attempt in self.attempts if attempt.answer and attempt.sent_at >= since}

    def acknowledged(self) -> set[str]:
        return {answer.body["id"] for _, _, answer in self.attempts if answer and "role" in answer.body}


def status_and_body(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.body


class AdminSession:
    """A browser session in the admin of a running service. It stores the cookies."""

    def __init__(self, service: Served) -> None:
        self.service, self.cookies = service, SimpleCookie()
        self.token = ""

    def call(self, method: str, path: str, **form: str) -> Answer:
        jar = "; ".join(f"{name}={cookie.value}" for name, cookie in self.cookies.items())
        headers = {"Cookie": jar, "Content_Type": "application/x-www-form-urlencoded"}
        body = urlencode({**form, "csrfmiddlewaretoken": self.token}) if form else ""
        with closing(http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)) as client:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = client.getresponse()
            content: Any = response.read()
            for cookie in response.headers.get_all("Set-Cookie", []):
                self.cookies.load(cookie)
            if response.headers["Content-Type"] == "application/json":
                content = json.loads(content)
            elif found := re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', content):
                self.token = found[1].decode()
            return Answer(response.status, content, dict(response.headers))

    def log_in(self) -> Answer:
        assert self.call("GET", "/admin/login/").status == 200
        return self.call("POST", "/admin/login/", username="ann", password="correct horse", next="/admin/")

    def delete(self, path: str) -> Answer:
        assert self.call("GET", path).status == 200
        return self.call("POST", path, post="yes")


def create_ann(service: Served) -> AdminSession:
    secret = {**urls_of(service), "DJANGO_SUPERUSER_PASSWORD": "correct horse"}
    options = ("--noinput", "--username=ann", "--email=ann@shop.example")
    result = manage(service.directory, "createsuperuser", *options, **secret)
    assert (result.returncode, result.stderr) == (0, "")
    return AdminSession(service)


def urls_of(service: Served) -> dict[str, str]:
    return {name: url for name, url in service.environment.items() if name.endswith("DATABASE_URL")}


# Database outages


@pytest.fixture(scope="module")
def own_server() -> Iterator[DatabaseServer]:
    """A database server that only this module uses, so the tests may stop it."""
    server = engines.start(engines.chosen)
    assert server
    yield server
    server.close()


@pytest.mark.engine("postgresql", "mongodb")
@pytest.mark.parametrize("outage", ["stop", "suspend"])
def test_database_outage_under_load_is_503_until_it_ends(
    own_server: DatabaseServer, serve: Callable[..., Served], outage: str
) -> None:
    service = serve(THREADS_DATABASE_URL=own_server.new_database())
    ann = create_ann(service)
    assert ann.log_in().status == 302
    # A request waits at most two seconds, or four if MongoDB hangs (docs/databases.md). The test allows more time,
    # because the machine may be busy.
    longest = 6 if (engines.chosen, outage) == ("mongodb", "suspend") else 3
    with Load(service) as load:
        service.wait_until(lambda: len(load.acknowledged()) > 20)
        {"stop": own_server.stop, "suspend": own_server.suspend}[outage]()
        outage_at = time.monotonic()
        time.sleep(1 if outage == "stop" else longest)
        assert service.call("GET", "/healthz").status == 200
        assert status_and_body(service.call("GET", "/readyz")) == UNAVAILABLE
        assert status_and_body(ann.call("GET", "/admin/messages_app/thread/")) == UNAVAILABLE
        restart_at = time.monotonic()
        {"stop": own_server.start, "suspend": own_server.resume}[outage]()
        back_at = time.monotonic()
        service.wait_until(lambda: 200 in load.statuses(since=back_at))
        assert time.monotonic() - back_at < 5
        time.sleep(0.5)
        assert 503 not in load.statuses(since=time.monotonic() - 0.3)
    during_outage = [each for each in load.attempts if outage_at <= each.sent_at and each.ended_at < restart_at]
    answers = [each.answer for each in load.attempts if each.answer]
    assert len(answers) == len(load.attempts)
    assert {each.answer.status for each in during_outage if each.answer} == {503}
    refused = [answer for answer in answers if answer.status != 200]
    assert all(status_and_body(answer) == UNAVAILABLE and answer.headers["retry-after"] == "1" for answer in refused)
    assert max(each.ended_at - each.sent_at for each in load.attempts if each.sent_at < back_at) < longest
    rows = service.stored("message", thread_id=load.thread)
    assert {row["id"] for row in rows} >= load.acknowledged()
    assert sorted(row["position"] for row in rows) == list(range(1, len(rows) + 1))
    log = service.log.read_text()
    lines = [line for line in log.splitlines() if "database unavailable" in line]
    mentions = Counter(request_id for line in lines for request_id in re.findall(r"\b[0-9a-f]{32}\b", line))
    assert {mentions[answer.headers["x-request-id"]] for answer in refused} == {1}
    assert "django.request" not in log
    assert "Traceback" not in log


def test_killed_worker_is_replaced_and_loses_no_acknowledged_write(
    serve: Callable[..., Served],
) -> None:
    service = serve()
    with Load(service, clients=8) as load:
        for _ in range(3):
            before = len(load.acknowledged())
            service.wait_until(lambda: len(load.acknowledged()) > before + 10)  # noqa: B023
            worker, _ = service.children()
            os.kill(worker, signal.SIGKILL)
            service.wait_until(lambda: len(set(service.children()) - {worker}) == 2)  # noqa: B023
    assert load.statuses() == {200}
    rows = service.stored("message", thread_id=load.thread)
    assert len(load.acknowledged()) > 30
    assert {row["id"] for row in rows} >= load.acknowledged()
    assert sorted(row["position"] for row in rows) == list(range(1, len(rows) + 1))


# Full disks

# Random characters, because an engine can compress a regular text.
BIG = "".join(map(chr, Random(7).choices(range(0x4E00, 0x9FFF), k=10_000)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes. Skips the test if the system does not allow mounts."""
    # The database server may be unable to write outside its own directory.
    directory = (engines.server.directory if engines.server else tmp_path) / "small"
    directory.mkdir()
    megabytes = 24 if engines.chosen == "postgresql" else 4
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def small_database(small_disk: Path) -> Iterator[dict[str, str]]:
    """The settings of a service that stores its threads on the small disk."""
    if engines.chosen == "sqlite":
        yield {"DATABASE_URL": f"sqlite:///{small_disk}/threadsvc.db"}
        return
    assert isinstance(engines.server, PostgreSQL)
    if engines.server.user:
        shutil.chown(small_disk, engines.server.user)
    url = engines.server.url("tests_small")
    with closing(psycopg.connect(engines.server.url("postgres"), autocommit=True)) as database:
        database.execute(f"CREATE TABLESPACE tests_small LOCATION '{small_disk}'")
        database.execute("CREATE DATABASE tests_small TABLESPACE tests_small")
        yield {"THREADS_DATABASE_URL": url}
        database.execute("DROP DATABASE tests_small WITH (FORCE)")
        database.execute("DROP TABLESPACE tests_small")


def fill(disk: Path) -> Path:
    """Fill the disk with a file and return its path."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def rows_of(service: Served) -> list[Any]:
    return [service.stored(model) for model in ("thread", "message", "threadpair")]


@pytest.mark.engine("sqlite", "postgresql")
def test_full_disk_is_507_and_keeps_data_until_there_is_space(
    serve: Callable[..., Served], small_database: dict[str, str], small_disk: Path
) -> None:
    service = serve(**small_database)
    ann = create_ann(service)
    assert ann.log_in().status == 302
    thread = service.call("POST", "/threads", {"metadata": {"user": "ann"}, "messages": [MESSAGE]}).body["id"]
    (message,) = (each["id"] for each in service.call("GET", f"/threads/{thread}/messages").body["data"])
    big = {**MESSAGE, "content": BIG}
    writes: list[Callable[[], Answer]] = [
        lambda: service.call("POST", f"/threads/{thread}/messages", big),
        lambda: service.call("POST", "/threads", {"messages": [MESSAGE, big], "metadata": {"a": "b"}}),
        # The following writes may still fit into existing pages, if the engine changes pages in place.
        lambda: service.call("POST", f"/threads/{thread}", {"metadata": {"b": BIG[:512]}}),
        lambda: service.call("POST", f"/threads/{thread}/messages/{message}", {"metadata": {"b": uuid4().hex}}),
        lambda: ann.delete(f"/admin/messages_app/message/{message}/delete/"),
        lambda: service.call("DELETE", f"/threads/{thread}/messages/{message}"),
        lambda: service.call("DELETE", f"/threads/{thread}"),
    ]
    sure_to_fail = len(writes) if engines.chosen == "sqlite" else 2
    ballast = fill(small_disk)
    smallest = writes[3] if engines.chosen == "sqlite" else writes[0]
    while smallest().status == 200:
        pass
    before = rows_of(service)
    assert [status_and_body(write()) for write in writes[:sure_to_fail]] == [FULL] * sure_to_fail
    assert rows_of(service) == before
    log = service.log.read_text()
    assert log.count("database full: ") == sure_to_fail + 1
    assert "Traceback" not in log
    assert "django.request" not in log
    for path in (f"/threads/{thread}/messages", f"/threads/{thread}", "/threads", "/readyz", "/healthz"):
        assert service.call("GET", path).status == 200
    assert ann.call("GET", "/admin/messages_app/message/").status == 200
    if engines.chosen == "sqlite":
        assert status_and_body(AdminSession(service).log_in()) == FULL
        assert service.stop() == 0
        # A service that starts while the disk is full can read too.
        ann.service = service = serve(**small_database)
        assert service.call("GET", f"/threads/{thread}/messages").status == 200

    ballast.unlink()
    assert [write().status for write in writes] == [200, 200, 200, 200, 302, 404, 200]
    # The last write deleted the thread, so the purge removes its messages.
    service.wait_until(lambda: not service.stored("message", thread_id=thread))
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.engine("sqlite")
def test_full_file_is_507_for_each_write_and_stores_nothing(api: Api, admin: Client) -> None:
    """Simulate a full disk with PRAGMA max_page_count, which works even if the system does not allow mounts."""
    big = {**MESSAGE, "content": BIG}
    full_of = {str(number): BIG[:512] for number in range(16)}
    # Purge now, because a purge during the test would free space.
    call_command("purge", stdout=io.StringIO())
    thread = api.post("/threads", {"messages": [MESSAGE]}).body["id"]
    (message,) = (each["id"] for each in api.get(f"/threads/{thread}/messages").body["data"])
    with connection.cursor() as cursor:
        ((pages,),) = cursor.execute("PRAGMA page_count").fetchall()
        # Fetch every row, because an open statement keeps a snapshot. After a write in another thread, such as the
        # purger, this connection could then no longer write.
        cursor.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        try:
            # Store smaller and smaller messages until not even "x" fits.
            for content in (BIG, BIG[:1000], "x"):
                while api.post(f"/threads/{thread}/messages", {**MESSAGE, "content": content}).status == 200:
                    pass
            before = Thread.objects.count(), Message.objects.count()
            for path, body in (
                (f"/threads/{thread}/messages", big),
                ("/threads", {"messages": [MESSAGE, big], "metadata": {"a": "b"}}),
                (f"/threads/{thread}", {"metadata": full_of}),
                (f"/threads/{thread}/messages/{message}", {"metadata": full_of}),
            ):
                assert status_and_body(api.post(path, body)) == FULL
            assert (Thread.objects.count(), Message.objects.count()) == before
            assert api.get(f"/threads/{thread}").body["metadata"] == {}
            # With space for a few index pages, a delete succeeds, but a create with a large message is refused.
            cursor.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
            assert api.delete(f"/threads/{thread}/messages/{message}").status == 200
            assert status_and_body(api.post(f"/threads/{thread}/messages", big)) == FULL
        finally:
            cursor.execute("PRAGMA max_page_count = 1073741823").fetchall()
    assert api.post(f"/threads/{thread}/messages", big).status == 200


# A bug in the service


@pytest.mark.once
def test_bug_is_a_500_without_details_and_is_in_the_log(
    serve: Callable[..., Served],
) -> None:
    service = serve()
    thread = service.new_thread()
    message = service.call("POST", f"/threads/{thread}/messages", MESSAGE).body["id"]
    ann = create_ann(service)
    ann.log_in()
    damage(service, message)
    for path in (f"/threads/{thread}/messages/{message}", f"/threads/{thread}/messages"):
        answer = service.call("GET", path)
        assert status_and_body(answer) == INTERNAL_ERROR
        assert_traceback_in_log(service, answer.headers["x-request-id"])
    answer = ann.call("GET", f"/admin/messages_app/thread/{thread}/change/")
    assert status_and_body(answer) == INTERNAL_ERROR
    assert_traceback_in_log(service, answer.headers["x-request-id"])
    assert service.call("GET", f"/threads/{thread}").status == 200


def damage(service: Served, message: str) -> None:
    """Damage a message: store a value that no version of the service writes."""
    url = database_url(service.directory, service.environment)
    execute(url, f"UPDATE messages_app_message SET attachments = '5' WHERE id = '{message}'")


def assert_traceback_in_log(service: Served, request_id: str) -> None:
    log = service.log.read_text()
    positions = [found.start() for found in re.finditer(request_id, log)]
    assert any("Traceback (most recent call last)" in log[at : at + 1000] for at in positions)
