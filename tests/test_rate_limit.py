"""THREADSVC_RATE_LIMIT: how many requests come through, over threads, processes and clients."""

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

    # As in a process that starts with a limit: DRF reads its settings once.
    monkeypatch.setattr(APIView, "throttle_classes", [RateLimit])
    return limited


def of(key: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Bearer {key}"}


def test_limit_is_off_and_makes_no_file_unless_it_is_set(served: Served) -> None:
    assert {served.call("GET", "/threads/x").status for _ in range(50)} == {404}
    assert not (served.directory / "rates").exists()


def test_exactly_so_many_requests_come_through_over_all_workers(serve: Callable[..., Served], tmp_path: Path) -> None:
    """By a start as `make run HOST=0.0.0.0` makes it: nobody is let in without a key."""
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
    assert all(170 <= int(seconds or 0) <= 180 for _, _, seconds in refused)  # 20 an hour: one in three minutes
    assert ask(second)[0] == 404
    for process in service.children():
        os.kill(process, signal.SIGKILL)
    service.wait_until(lambda: service.call("GET", "/healthz").status == 200)
    assert ask(first)[0] == 429
    assert [ask(second)[0] for _ in range(20)] == [404] * 19 + [429]
    assert service.call("GET", "/readyz").status == 200


def test_who_waits_as_long_as_told_is_let_in(api: Api, limit: Any) -> None:
    key = of(APIKey(name="test").issue())
    with limit(2, 4):
        assert [api.get("/threads/x", **key).status for _ in range(2)] == [404, 404]
        answer = api.get("/threads/x", **key)
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (429, TOO_MANY, "2")
        time.sleep(2)
        assert [api.get("/threads/x", **key).status for _ in range(2)] == [404, 429]


def test_each_key_and_each_address_has_a_limit_of_its_own(api: Api, limit: Any) -> None:
    keys = [of(APIKey(name="test").issue()) for _ in range(2)]
    addresses = ["192.0.2.1", "192.0.2.2", "", "2001:db8::1", "2001:db8:0:1::1", "::ffff:192.0.2.3"]
    with limit(1, 3600):
        for client in [*keys, *({"REMOTE_ADDR": address} for address in addresses)]:
            assert [api.get("/threads/x", **client).status for _ in range(2)] == [404, 429], client
        # The same key from elsewhere, a machine's other addresses, an IPv4 address as IPv6 tells it.
        for client in [{**keys[0], "REMOTE_ADDR": "192.0.2.9"}, {"REMOTE_ADDR": "2001:db8::ffff:2"}]:
            assert api.get("/threads/x", **client).status == 429
        assert api.get("/threads/x", REMOTE_ADDR="192.0.2.3").status == 429


def test_what_is_refused_otherwise_counts_only_where_it_was_let_in(api: Api, limit: Any) -> None:
    read_only = of(APIKey(name="test", read_only=True).issue())
    with limit(1, 3600):
        assert api.get("/threads/x", HTTP_AUTHORIZATION="Bearer tsk_x", REMOTE_ADDR="192.0.2.1").status == 401
        assert api.post("/threads", **read_only).status == 403
        assert api.post("/nowhere", b" " * (4 * 2**20 + 1), **read_only).status == 413
        assert api.get("/nowhere", **read_only).status == 404
        for method, path in (("GET", "/threads"), ("PUT", "/threads"), ("GET", "/nowhere")):
            assert api.call(method, path, **read_only).status == 429
        assert api.get("/threads/x", REMOTE_ADDR="192.0.2.1").status == 404
        assert {api.get("/healthz").status for _ in range(3)} == {200}


def test_file_that_cannot_be_used_stops_no_request(api: Api, limit: Any, caplog: pytest.LogCaptureFixture) -> None:
    with limit(1, 3600, "missing/rates"):
        assert [api.get("/threads/x").status for _ in range(2)] == [404, 404]
    assert "the rate limit does not hold" in caplog.text


# The table


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


def takers(file: Path, times: int) -> "subprocess.Popen[str]":
    """A process of four threads that are about to ask so many times each."""
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
def test_processes_and_threads_share_one_bucket_and_no_kill_locks_it(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    with takers(file, 10**7) as killed:
        go(killed)
        table = RateTable(file)
        while table.take("a", 3000, 10**6) == 0:
            pass
        killed.kill()
    assert table.take("a", 3000, 10**6) > 0
    file.unlink()
    processes = [takers(file, 500) for _ in range(3)]
    for process in processes:
        go(process)
    assert sum(int(process.communicate()[0]) for process in processes) == 3000


def test_what_a_crash_leaves_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    table = RateTable(file)
    assert table.take("a", 1, 3600) == 0
    content = file.read_bytes()
    at = len(content) - len(content.lstrip(b"\0")) + 16
    impossible = content[:at] + b"\xff" * 8 + content[at + 8 :]
    for left in (impossible, b"\xff" * len(content), b"\xff", b""):
        file.write_bytes(left)
        assert table.take("a", 1, 3600) == 0
        assert table.take("a", 1, 3600) > 0


def test_table_does_not_grow_and_forgets_those_first_who_asked_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "SETS", 1)
    file = tmp_path / "rates"
    table = RateTable(file)
    while table.take("a", 50, 3600) == 0:
        pass
    for number in range(100):
        assert table.take(f"client {number}", 50, 3600) == 0
    assert table.take("a", 50, 3600) > 0
    assert file.stat().st_size == rates.SET_BYTES
