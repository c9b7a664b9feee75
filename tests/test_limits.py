"""Bodies that are too large: refused before they are read, and before they are sent."""

import json
import resource
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Served

pytestmark = pytest.mark.stateless

GIGABYTE = 1024**3
TOO_LARGE = {"detail": "Request body too large"}
FORM = 'multipart/form-data; boundary="x"'
FORM_WITH_A_FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
PATHS = {
    "/threads": "application/json",
    "/v1/threads/x/messages": "application/json",
    "/threads/x": "text/plain",
    "/threads/x/messages/y": "application/json",
    "/admin/login/": FORM,
}


@pytest.fixture(scope="module")
def modest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service for bodies of a kilobyte, and of four on POST /threads."""
    service = Served(tmp_path_factory.mktemp("modest") / "data", THREADSVC_MAX_BODY_BYTES="1024", WEB_CONCURRENCY="1")
    yield service
    service.kill()


def head_of(path: str, content_type: str, *more: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", *more)
    return "\r\n".join((*lines, "", "")).encode()


def largest_use_of_memory(service: Served) -> int:
    """Bytes that the workers had at most, since they began."""
    used = 0
    for worker in service.children():
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        used += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return used


def answer_while_sending(service: Served, head: bytes, piece: bytes, at_most: int) -> tuple[bytes, int]:
    """What comes back, and how many bytes of the body were sent by then; each `piece` after the other.

    Nothing comes back where the end of a connection overtakes the answer to who still sends (RFC 9112, 9.6).
    """
    received, sent = b"", 0
    with service.connect() as connection, suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
        while b"}" not in received:
            readable, writable, _ = select.select([connection], [connection] if sent < at_most else [], [], 10)
            assert readable or writable, "no answer, though there is nothing more to send"
            if readable:
                piece_of_answer = connection.recv(65536)
                if not piece_of_answer:
                    break
                received += piece_of_answer
            else:
                sent += connection.send(piece)
    return received, sent


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("more", [(), ("Expect: 100-continue",)], ids=["", "expects 100"])
def test_body_that_says_it_is_a_gigabyte_is_413_before_any_of_it_is_sent(
    served: Served, path: str, more: tuple[str, ...]
) -> None:
    start = time.monotonic()
    head = head_of(path, PATHS[path], f"Content-Length: {GIGABYTE}", *more)
    received, _ = answer_while_sending(served, head, b"", at_most=0)
    assert received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == TOO_LARGE
    assert time.monotonic() - start < 3


@pytest.mark.process
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [f"Content-Length: {GIGABYTE}", "Transfer-Encoding: chunked"])
def test_body_that_goes_on_for_ever_is_413_soon_and_takes_no_memory(modest: Served, path: str, length: str) -> None:
    before = largest_use_of_memory(modest)
    piece = b"x" * 65536
    if length == "Transfer-Encoding: chunked":
        piece = b"10000\r\n" + piece + b"\r\n"
    head = head_of(path, PATHS[path], length)
    if path == "/admin/login/" and "chunked" not in length:
        head += FORM_WITH_A_FILE
    for _ in range(3):
        received, sent = answer_while_sending(modest, head, piece, at_most=100_000_000)
        assert sent < 20_000_000  # what the sockets of the system hold
        if received:
            break
    assert received.startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == TOO_LARGE
    assert largest_use_of_memory(modest) - before < 5_000_000


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "limit"),
    [("/threads", 4096), ("/threads/x", 1024), ("/threads/x/messages", 1024), ("/admin/login/", 4096)],
)
def test_limit_is_exact_and_four_times_as_much_for_threads_and_forms(modest: Served, path: str, limit: int) -> None:
    for size, is_judged in ((limit, True), (limit + 1, False)):
        answer = modest.call("POST", path, b" " * size)
        assert (answer.status != 413) is is_judged
        if not is_judged:
            assert answer.body == TOO_LARGE


def test_chunked_body_of_a_stranger_is_refused_before_it_is_read(strict: Served) -> None:
    head = b"POST /threads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with strict.connect() as connection:
        connection.sendall(head + b"5\r\nhello\r\n")  # and no end of it
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.fixture
def strict(serve: Callable[..., Served]) -> Served:
    return serve(THREADSVC_ALLOW_ANONYMOUS="0", WEB_CONCURRENCY="1")


def test_more_clients_than_there_may_be_files_cost_no_worker(strict: Served) -> None:
    (worker,) = strict.children()
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert soft == hard or soft >= 65536
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (64, 64))
    clients = [strict.connect() for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert clients[0].recv(65536).startswith(b"HTTP/1.1 200 ")
    strict.wait_until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) >= 63)
    time.sleep(0.2)  # the next one cannot be let in
    for client in clients:
        client.close()
    strict.wait_until(lambda: strict.call("GET", "/healthz").status == 200)
    assert strict.children() == [worker]
