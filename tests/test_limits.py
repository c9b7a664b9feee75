"""Bodies over the limit: the service refuses them before it reads them, and before the client sends them."""

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
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that limits bodies to 1 KiB, and to 4 KiB on POST /threads."""
    service = Served(tmp_path_factory.mktemp("limited") / "data", THREADSVC_MAX_BODY_BYTES="1024", WEB_CONCURRENCY="1")
    yield service
    service.kill()


def head_of(path: str, content_type: str, *more: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", *more)
    return "\r\n".join((*lines, "", "")).encode()


def peak_memory(service: Served) -> int:
    """Return the peak memory of each worker since its start, added up, in bytes."""
    used = 0
    for worker in service.children():
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        used += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return used


def send_until_answered(service: Served, head: bytes, piece: bytes, max_bytes: int) -> tuple[bytes, int]:
    """Send `piece` repeatedly until there is a response. Return the response and the number of bytes sent.

    The response can be empty. If the server closes the connection while the client still sends, the connection is
    reset, and the client can lose a response that it has not read yet (RFC 9112, 9.6).
    """
    received, sent = b"", 0
    with service.connect() as connection, suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
        while b"}" not in received:
            readable, writable, _ = select.select([connection], [connection] if sent < max_bytes else [], [], 10)
            assert readable or writable, "no response after the whole body was sent"
            if readable:
                piece_of_answer = connection.recv(65536)
                if not piece_of_answer:
                    break
                received += piece_of_answer
            else:
                sent += connection.send(piece)
    return received, sent


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("more", [(), ("Expect: 100-continue",)], ids=["without Expect", "Expect: 100-continue"])
def test_body_with_a_length_of_1_gb_is_413_before_it_is_sent(served: Served, path: str, more: tuple[str, ...]) -> None:
    start = time.monotonic()
    head = head_of(path, PATHS[path], f"Content-Length: {GIGABYTE}", *more)
    received, _ = send_until_answered(served, head, b"", max_bytes=0)
    assert received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == TOO_LARGE
    assert time.monotonic() - start < 3


@pytest.mark.process
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [f"Content-Length: {GIGABYTE}", "Transfer-Encoding: chunked"])
def test_endless_body_is_413_soon_and_takes_no_memory(limited: Served, path: str, length: str) -> None:
    before = peak_memory(limited)
    piece = b"x" * 65536
    if length == "Transfer-Encoding: chunked":
        piece = b"10000\r\n" + piece + b"\r\n"
    head = head_of(path, PATHS[path], length)
    if path == "/admin/login/" and "chunked" not in length:
        head += FORM_WITH_A_FILE
    for _ in range(3):
        received, sent = send_until_answered(limited, head, piece, max_bytes=100_000_000)
        # The client can send until the socket buffers are full, even if the service reads nothing. The buffers
        # are smaller than 20 MB.
        assert sent < 20_000_000
        if received:
            break
    assert received.startswith(b"HTTP/1.1 413 ")
    assert json.loads(received.rpartition(b"\r\n\r\n")[2]) == TOO_LARGE
    assert peak_memory(limited) - before < 5_000_000


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "limit"),
    [("/threads", 4096), ("/threads/x", 1024), ("/threads/x/messages", 1024), ("/admin/login/", 4096)],
)
def test_limit_is_exact_and_fourfold_for_threads_and_forms(limited: Served, path: str, limit: int) -> None:
    for size, is_within in ((limit, True), (limit + 1, False)):
        answer = limited.call("POST", path, b" " * size)
        assert (answer.status != 413) is is_within
        if not is_within:
            assert answer.body == TOO_LARGE


def test_chunked_body_without_a_key_is_401_before_it_is_read(strict: Served) -> None:
    head = b"POST /threads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with strict.connect() as connection:
        # The body is incomplete, because the last chunk is missing. The service must respond without it.
        connection.sendall(head + b"5\r\nhello\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.fixture
def strict(serve: Callable[..., Served]) -> Served:
    return serve(THREADSVC_ALLOW_ANONYMOUS="0", WEB_CONCURRENCY="1")


def test_worker_survives_more_clients_than_file_descriptors(strict: Served) -> None:
    (worker,) = strict.children()
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert soft == hard or soft >= 65536
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (64, 64))
    clients = [strict.connect() for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert clients[0].recv(65536).startswith(b"HTTP/1.1 200 ")
    strict.wait_until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) >= 63)
    # All file descriptors are in use. During this pause, the worker cannot accept the waiting connections.
    time.sleep(0.2)
    for client in clients:
        client.close()
    strict.wait_until(lambda: strict.call("GET", "/healthz").status == 200)
    assert strict.children() == [worker]
