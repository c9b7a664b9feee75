"""THREADSVC_RATE_LIMIT limits the requests of each client, across all threads and processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from rest_framework.views import APIView

from tests.conftest import ROOT, Api, Served, manage
from threadsvc.access import rates
from threadsvc.access.models import APIKey
from threadsvc.access.rates import RateTable
from threadsvc.access.throttle import RateLimit

pytestmark = pytest.mark.stateless

TOO_MANY = {"detail": "Too Many Requests"}


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def limited(number: int, seconds: int, file: str = "rates") -> Any:
        return override_settings(RATE_LIMIT=(number, seconds), RATE_FILE=tmp_path / file)

    # With a limit, the settings add this throttle to DRF's. But DRF has already read its settings when the test sets a
    # limit. Therefore add the throttle here.
    monkeypatch.setattr(APIView, "throttle_classes", [RateLimit])
    return limited


def auth(key: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {key}"}


def test_limit_is_off_by_default_and_creates_no_file(served: Served) -> None:
    assert {served.call("GET", "/threads/x").status for _ in range(50)} == {404}
    assert not (served.directory / "rates").exists()


def test_limit_is_exact_across_all_workers(serve: Callable[..., Served], tmp_path: Path) -> None:
    """Three workers together accept exactly 20 requests of a key.

    The service starts like `make run HOST=0.0.0.0`, so it requires API keys.
    """
    service = serve(
        "--anonymous-on-loopback",
        HOST="0.0.0.0",
        THREADSVC_ALLOW_ANONYMOUS="",
        THREADSVC_RATE_LIMIT="20/h",
        WEB_CONCURRENCY="3",
    )
    assert "API keys    required" in service.log.read_text()
    assert service.call("GET", "/threads/x").status == 401
    first, second = (manage(tmp_path / "data", "create_api_key", name).stdout.strip() for name in ("first", "second"))

    def ask(key: str) -> tuple[int, Any, str | None]:
        answer = service.call("GET", "/threads/x", Authorization=f"Bearer {key}")
        return answer.status, answer.body, answer.headers.get("retry-after")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [first] * 60))
    refused = [answer for answer in answers if answer[0] != 404]
    assert len(refused) == 40
    assert {(status, body["detail"]) for status, body, _ in refused} == {(429, "Too Many Requests")}
    # At 20 requests per hour, the next request is accepted after 3 minutes.
    assert all(170 <= int(seconds or 0) <= 180 for _, _, seconds in refused)
    assert ask(second)[0] == 404
    for process in service.children():
        os.kill(process, signal.SIGKILL)
    service.wait_until(lambda: service.call("GET", "/healthz").status == 200)
    assert ask(first)[0] == 429
    assert [ask(second)[0] for _ in range(20)] == [404] * 19 + [429]
    assert service.call("GET", "/readyz").status == 200


def test_client_that_waits_for_retry_after_is_accepted(api: Api, limit: Any) -> None:
    key = auth(APIKey(name="test").issue())
    with limit(2, 4):
        assert [api.get("/threads/x", **key).status for _ in range(2)] == [404, 404]
        answer = api.get("/threads/x", **key)
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (429, TOO_MANY, "2")
        limits = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
        assert limits == {
            "x-ratelimit-limit-requests": "2",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "2s",
        }
        error = {
            "message": "Too Many Requests",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        answer = api.get("/threads/x", HTTP_OPENAI_BETA="assistants=v2", **key)
        assert (answer.status, answer.body) == (429, {**TOO_MANY, "error": error})
        time.sleep(2)
        assert [api.get("/threads/x", **key).status for _ in range(2)] == [404, 429]


def test_each_key_and_each_address_has_its_own_limit(api: Api, limit: Any) -> None:
    keys = [auth(APIKey(name="test").issue()) for _ in range(2)]
    addresses = ["192.0.2.1", "192.0.2.2", "", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.3"]
    with limit(1, 3600):
        for client in [*keys, *({"REMOTE_ADDR": address} for address in addresses)]:
            assert [api.get("/threads/x", **client).status for _ in range(2)] == [404, 429], client
        # The following clients have used up their limit under another address. A key has one limit for all addresses.
        # All addresses of an IPv6 network share one limit. An IPv4 address and its IPv6 form (::ffff:...) do, too.
        for client in [{**keys[0], "REMOTE_ADDR": "192.0.2.9"}, {"REMOTE_ADDR": "2001:db8::ffff:2"}]:
            assert api.get("/threads/x", **client).status == 429
        assert api.get("/threads/x", REMOTE_ADDR="192.0.2.3").status == 429


def test_only_requests_that_pass_the_access_checks_count(api: Api, limit: Any) -> None:
    read_only = auth(APIKey(name="test", read_only=True).issue())
    with limit(1, 3600):
        assert api.get("/threads/x", HTTP_AUTHORIZATION="Bearer tsk_x", REMOTE_ADDR="192.0.2.1").status == 401
        assert api.post("/threads", **read_only).status == 403
        assert api.post("/nowhere", b" " * (4 * 2**20 + 1), **read_only).status == 413
        assert api.get("/nowhere", **read_only).status == 404
        for method, path in (("GET", "/threads"), ("PUT", "/threads"), ("GET", "/nowhere")):
            assert api.call(method, path, **read_only).status == 429
        assert api.get("/threads/x", REMOTE_ADDR="192.0.2.1").status == 404
        assert {api.get("/healthz").status for _ in range(3)} == {200}


def test_unusable_rate_file_blocks_no_request(api: Api, limit: Any, caplog: pytest.LogCaptureFixture) -> None:
    with limit(1, 3600, "missing/rates"):
        assert [api.get("/threads/x").status for _ in range(2)] == [404, 404]
    assert "the rate limit does not hold" in caplog.text


# The table in the rate file


TAKES = """
import sys
from pathlib import Path
from threading import Thread
from threadsvc.access.rates import RateTable
table, taken = RateTable(Path(sys.argv[1])), []
def take():
    for _ in range(int(sys.argv[2])):
        if table.take("a", 3000, 10**6) == 0:
            taken.append(1)
threads = [Thread(target=take) for _ in range(4)]
print("ready", flush=True)
sys.stdin.readline()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(taken))
"""


def start_takers(file: Path, times: int) -> "subprocess.Popen[str]":
    """Start a process with four threads. After `go`, each thread calls `RateTable.take` `times` times."""
    command = [sys.executable, "-c", TAKES, str(file), str(times)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.process
def test_processes_share_one_bucket_and_a_kill_does_not_lock_it(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    with start_takers(file, 10**7) as killed:
        go(killed)
        table = RateTable(file)
        while table.take("a", 3000, 10**6) == 0:
            pass
        killed.kill()
    assert table.take("a", 3000, 10**6) > 0
    file.unlink()
    processes = [start_takers(file, 500) for _ in range(3)]
    for process in processes:
        go(process)
    assert sum(int(process.communicate()[0]) for process in processes) == 3000


def test_corrupt_rate_file_counts_as_empty(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    table = RateTable(file)
    assert table.take("a", 1, 3600) == 0
    content = file.read_bytes()
    at = len(content) - len(content.lstrip(b"\0")) + 16
    impossible = content[:at] + b"\xff" * 8 + content[at + 8 :]
    for corrupt in (impossible, b"\xff" * len(content), b"\xff", b""):
        file.write_bytes(corrupt)
        assert table.take("a", 1, 3600) == 0
        assert table.take("a", 1, 3600) > 0


def test_table_keeps_its_size_and_evicts_the_least_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SETS", 1)
    file = tmp_path / "rates"
    table = RateTable(file)
    while table.take("a", 50, 3600) == 0:
        pass
    for number in range(100):
        assert table.take(f"client {number}", 50, 3600) == 0
    assert table.take("a", 50, 3600) > 0
    assert file.stat().st_size == rates.SET_BYTES
