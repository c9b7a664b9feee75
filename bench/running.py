"""Run the service and the yardstick as server processes.

A server stops at the end of its `with` block, or when this program ends.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.operations import Request, WrongResult
from bench.stores import Store
from tests.servers import children_of, free_port, last_line

SECONDS_TO_START = 60
SECONDS_TO_STOP = 15
THREADS = 8  # the service's default

# The yardstick's worker class for each value of --yardstick-server.
WORKER_CLASSES = {"ours": "threadsvc.worker.Worker", "stock": "gthread"}


@dataclass
class Served:
    """A server on a port of a loopback address."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    headers: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"

    def call(self, request: Request) -> tuple[int, bytes]:
        headers = {**self.headers, **({"Content-Type": "application/json"} if request.body else {})}
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as connection:
            connection.request(request.method, request.path, request.body.encode() or None, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, request: Request) -> Any:
        status, body = self.call(request)
        if status != 200:
            raise WrongResult(f"{self.name}: {request.method} {request.path}: {status} {body!r}")
        return json.loads(body)

    def wait_until_up(self, path: str) -> None:
        end = self.started + SECONDS_TO_START
        while True:
            with suppress(OSError):
                if self.call(Request("GET", path))[0] == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > end:
                raise WrongResult(f"{self.name} did not start: {last_line(self.log.read_text())}")
            time.sleep(0.005)

    def workers(self) -> list[int]:
        return children_of(self.process.pid)


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own process group. The kernel stops it if this program ends first."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):  # kills child processes that are still running, if there are any
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextmanager
def service(
    store: Store, workers: int | None = None, key: str = "", ready_path: str = "/healthz", host: str = "127.0.0.1"
) -> Iterator[Served]:
    """Run `manage.py serve` as users do, and write its log to a file. If `key` is set, it requires API keys."""
    port, name = free_port(), "service with API key" if key else "service"
    settings = {"HOST": host, "PORT": str(port), "THREADSVC_ALLOW_ANONYMOUS": "0" if key else "1"}
    if workers:
        settings["WEB_CONCURRENCY"] = str(workers)
    log = store.log("service")
    with process([sys.executable, "manage.py", "serve"], store.environment(**settings), log) as started:
        served = Served(name, port, started, log, headers={"Authorization": f"Bearer {key}"} if key else {})
        served.host = host
        served.wait_until_up(ready_path)
        yield served


def gunicorn_options(port: int, workers: int, server: str) -> list[str]:
    """Return gunicorn options for the settings of `manage.py serve` (Server.load_config) that affect speed."""
    return [
        *("--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", str(THREADS)),
        *("--worker-class", WORKER_CLASSES[server], "--preload", "--no-control-socket"),
    ]


def yardstick_settings(store: Store, turns: str) -> dict[str, str]:
    return {"YARDSTICK_DATABASE_URL": store.database_url, "YARDSTICK_TURNS": turns}


@contextmanager
def yardstick(store: Store, workers: int, server: str = "ours", turns: str = "queue") -> Iterator[Served]:
    port, log = free_port(), store.log("yardstick")
    gunicorn = [sys.executable, "-m", "gunicorn", "bench.yardstick.wsgi", *gunicorn_options(port, workers, server)]
    with process(gunicorn, store.environment(**yardstick_settings(store, turns)), log) as started:
        served = Served("yardstick", port, started, log)
        served.wait_until_up("/empty")
        yield served
