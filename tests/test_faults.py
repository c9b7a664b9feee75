"""What users meet when a database goes away under load, a disk is full, a worker dies, or we are at fault ourselves."""

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

SAID = {"role": "user", "content": "hello"}
UNAVAILABLE = (503, {"detail": "Service Unavailable"})
FULL = (507, {"detail": "Insufficient Storage"})
BROKEN = (500, {"detail": "Internal Server Error"})


class Got(NamedTuple):
    sent_at: float
    answered_at: float
    answer: Answer | None  # None where the connection broke


class Load:
    """Clients that write to a thread, and read it, without a pause, until the end of the block."""

    def __init__(self, service: Served, clients: int = 12) -> None:
        self.service, self.thread = service, service.new_thread()
        self.got: list[Got] = []
        self.is_over = threading.Event()
        self.clients = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.is_over.set()
        for client in self.clients:
            client.join(60)

    def work(self, number: int) -> None:
        path, body = f"/threads/{self.thread}/messages", {"role": "user", "content": f"of {number}"}
        while not self.is_over.is_set():
            sent_at, answer = time.monotonic(), None
            try:
                answer = self.service.call("POST", path, body) if number % 2 else self.service.call("GET", path)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
            self.got.append(Got(sent_at, time.monotonic(), answer))

    def statuses(self, since: float = 0) -> set[int]:
        return {got.answer.status for got in self.got if got.answer and got.sent_at >= since}

    def acknowledged(self) -> set[str]:
        return {got.answer.body["id"] for got in self.got if got.answer and "role" in got.answer.body}


def told(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.body


class Person:
    """Somebody who is logged in to the admin of a served process, with the cookies of a browser."""

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


def make_ann(service: Served) -> Person:
    secret = {**urls_of(service), "DJANGO_SUPERUSER_PASSWORD": "correct horse"}
    options = ("--noinput", "--username=ann", "--email=ann@shop.example")
    made = manage(service.directory, "createsuperuser", *options, **secret)
    assert (made.returncode, made.stderr) == (0, "")
    return Person(service)


def urls_of(service: Served) -> dict[str, str]:
    return {name: url for name, url in service.environment.items() if name.endswith("DATABASE_URL")}


# A database that goes away


@pytest.fixture(scope="module")
def own_server() -> Iterator[DatabaseServer]:
    """A server that may be stopped: nobody else is on it."""
    server = engines.start(engines.chosen)
    assert server
    yield server
    server.close()


@pytest.mark.engine("postgresql", "mongodb")
@pytest.mark.parametrize("goes", ["stop", "suspend"])
def test_database_that_goes_away_under_load_is_503_for_all_until_it_is_back(
    own_server: DatabaseServer, serve: Callable[..., Served], goes: str
) -> None:
    service = serve(THREADS_DATABASE_URL=own_server.new_database())
    ann = make_ann(service)
    assert ann.log_in().status == 302
    # Two seconds, or what docs/databases.md says of a MongoDB that keeps silent; and some for a busy machine.
    longest = 6 if (engines.chosen, goes) == ("mongodb", "suspend") else 3
    with Load(service) as load:
        service.wait_until(lambda: len(load.acknowledged()) > 20)
        {"stop": own_server.stop, "suspend": own_server.suspend}[goes]()
        gone_at = time.monotonic()
        time.sleep(1 if goes == "stop" else longest)
        assert service.call("GET", "/healthz").status == 200
        assert told(service.call("GET", "/readyz")) == UNAVAILABLE
        assert told(ann.call("GET", "/admin/messages_app/thread/")) == UNAVAILABLE
        returns_at = time.monotonic()
        {"stop": own_server.start, "suspend": own_server.resume}[goes]()
        back_at = time.monotonic()
        service.wait_until(lambda: 200 in load.statuses(since=back_at))
        assert time.monotonic() - back_at < 5
        time.sleep(0.5)
        assert 503 not in load.statuses(since=time.monotonic() - 0.3)
    while_gone = [got for got in load.got if gone_at <= got.sent_at and got.answered_at < returns_at]
    answers = [got.answer for got in load.got if got.answer]
    assert len(answers) == len(load.got)
    assert {got.answer.status for got in while_gone if got.answer} == {503}
    refused = [answer for answer in answers if answer.status != 200]
    assert all(told(answer) == UNAVAILABLE and answer.headers["retry-after"] == "1" for answer in refused)
    assert max(got.answered_at - got.sent_at for got in load.got if got.sent_at < back_at) < longest
    rows = service.stored("message", thread_id=load.thread)
    assert {row["id"] for row in rows} >= load.acknowledged()
    assert sorted(row["position"] for row in rows) == list(range(1, len(rows) + 1))
    log = service.log.read_text()
    lines = [line for line in log.splitlines() if "database unavailable" in line]
    told_of = Counter(request_id for line in lines for request_id in re.findall(r"\b[0-9a-f]{32}\b", line))
    assert {told_of[answer.headers["x-request-id"]] for answer in refused} == {1}
    assert "django.request" not in log
    assert "Traceback" not in log


def test_worker_killed_under_load_is_replaced_and_takes_nothing_acknowledged_with_it(
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


# A disk that is full

BIG = "".join(map(chr, Random(7).choices(range(0x4E00, 0x9FFF), k=10_000)))  # what no engine can pack


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a few megabytes, where this may be made."""
    directory = (engines.server.directory if engines.server else tmp_path) / "small"  # where the server may be, too
    directory.mkdir()
    megabytes = 24 if engines.chosen == "postgresql" else 4
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def small_database(small_disk: Path) -> Iterator[dict[str, str]]:
    """The settings of a service whose database of threads is on the small disk."""
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
    """A file that takes all that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def rows_of(service: Served) -> list[Any]:
    return [service.stored(model) for model in ("thread", "message", "threadpair")]


@pytest.mark.engine("sqlite", "postgresql")
def test_full_disk_is_507_and_keeps_what_was_there_and_takes_more_when_it_has_room(
    serve: Callable[..., Served], small_database: dict[str, str], small_disk: Path
) -> None:
    service = serve(**small_database)
    ann = make_ann(service)
    assert ann.log_in().status == 302
    thread = service.call("POST", "/threads", {"metadata": {"user": "ann"}, "messages": [SAID]}).body["id"]
    (message,) = (each["id"] for each in service.call("GET", f"/threads/{thread}/messages").body["data"])
    big = {**SAID, "content": BIG}
    writes: list[Callable[[], Answer]] = [
        lambda: service.call("POST", f"/threads/{thread}/messages", big),
        lambda: service.call("POST", "/threads", {"messages": [SAID, big], "metadata": {"a": "b"}}),
        # These may still find room in pages that are there, where an engine does not write them anew.
        lambda: service.call("POST", f"/threads/{thread}", {"metadata": {"b": BIG[:512]}}),
        lambda: service.call("POST", f"/threads/{thread}/messages/{message}", {"metadata": {"b": uuid4().hex}}),
        lambda: ann.delete(f"/admin/messages_app/message/{message}/delete/"),
        lambda: service.call("DELETE", f"/threads/{thread}/messages/{message}"),
        lambda: service.call("DELETE", f"/threads/{thread}"),
    ]
    certain = len(writes) if engines.chosen == "sqlite" else 2
    ballast = fill(small_disk)
    smallest = writes[3] if engines.chosen == "sqlite" else writes[0]
    while smallest().status == 200:
        pass
    before = rows_of(service)
    assert [told(write()) for write in writes[:certain]] == [FULL] * certain
    assert rows_of(service) == before
    log = service.log.read_text()
    assert log.count("database full: ") == certain + 1
    assert "Traceback" not in log
    assert "django.request" not in log
    for path in (f"/threads/{thread}/messages", f"/threads/{thread}", "/threads", "/readyz", "/healthz"):
        assert service.call("GET", path).status == 200
    assert ann.call("GET", "/admin/messages_app/message/").status == 200
    if engines.chosen == "sqlite":
        assert told(Person(service).log_in()) == FULL
        assert service.stop() == 0
        ann.service = service = serve(**small_database)  # also a new process reads what is there
        assert service.call("GET", f"/threads/{thread}/messages").status == 200

    ballast.unlink()
    assert [write().status for write in writes] == [200, 200, 200, 200, 302, 404, 200]
    service.wait_until(lambda: not service.stored("message", thread_id=thread))  # purged
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.engine("sqlite")
def test_full_file_is_507_for_each_kind_of_write_and_nothing_is_half_written(api: Api, admin: Client) -> None:
    """As on a full disk, where none may be made: SQLite is told not to let its file grow."""
    big = {**SAID, "content": BIG}
    full_of = {str(number): BIG[:512] for number in range(16)}
    call_command("purge", stdout=io.StringIO())  # what other tests deleted, so that nothing makes room meanwhile
    thread = api.post("/threads", {"messages": [SAID]}).body["id"]
    (message,) = (each["id"] for each in api.get(f"/threads/{thread}/messages").body["data"])
    with connection.cursor() as cursor:
        ((pages,),) = cursor.execute("PRAGMA page_count").fetchall()
        # Fetched to the end: a statement that is still open holds a snapshot, and a write of this connection fails as
        # soon as another thread, such as the purger, has written.
        cursor.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        try:
            for content in (BIG, BIG[:1000], "x"):  # until no page is left, not only none for a large one
                while api.post(f"/threads/{thread}/messages", {**SAID, "content": content}).status == 200:
                    pass
            before = Thread.objects.count(), Message.objects.count()
            for path, body in (
                (f"/threads/{thread}/messages", big),
                ("/threads", {"messages": [SAID, big], "metadata": {"a": "b"}}),
                (f"/threads/{thread}", {"metadata": full_of}),
                (f"/threads/{thread}/messages/{message}", {"metadata": full_of}),
            ):
                assert told(api.post(path, body)) == FULL
            assert (Thread.objects.count(), Message.objects.count()) == before
            assert api.get(f"/threads/{thread}").body["metadata"] == {}
            # With room for a few pages of indexes, a delete is stored; a large message still is not.
            cursor.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
            assert api.delete(f"/threads/{thread}/messages/{message}").status == 200
            assert told(api.post(f"/threads/{thread}/messages", big)) == FULL
        finally:
            cursor.execute("PRAGMA max_page_count = 1073741823").fetchall()
    assert api.post(f"/threads/{thread}/messages", big).status == 200


# A fault of ours


@pytest.mark.once
def test_fault_of_ours_shows_nothing_of_itself_and_is_in_the_log_under_its_request_id(
    serve: Callable[..., Served],
) -> None:
    service = serve()
    thread = service.new_thread()
    message = service.call("POST", f"/threads/{thread}/messages", SAID).body["id"]
    ann = make_ann(service)
    ann.log_in()
    damage(service, message)
    for path in (f"/threads/{thread}/messages/{message}", f"/threads/{thread}/messages"):
        answer = service.call("GET", path)
        assert told(answer) == BROKEN
        assert_told_in_the_log(service, answer.headers["x-request-id"])
    answer = ann.call("GET", f"/admin/messages_app/thread/{thread}/change/")
    assert told(answer) == BROKEN
    assert_told_in_the_log(service, answer.headers["x-request-id"])
    assert service.call("GET", f"/threads/{thread}").status == 200


def damage(service: Served, message: str) -> None:
    """Makes of a message what no version of this service would store."""
    url = database_url(service.directory, service.environment)
    execute(url, f"UPDATE messages_app_message SET attachments = '5' WHERE id = '{message}'")


def assert_told_in_the_log(service: Served, request_id: str) -> None:
    log = service.log.read_text()
    places = [found.start() for found in re.finditer(request_id, log)]
    assert any("Traceback (most recent call last)" in log[at : at + 1000] for at in places)
