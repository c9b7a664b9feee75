"""Measure the cost of a request to an application in a child process, in one thread and without a server.

`python -m bench.inside MODULE` imports `application` from a module. It reads commands from stdin and prints one result
for each command. Each command and each result is one line of JSON. The process is idle between commands, so several
such processes can be measured in alternation.

    {"keep": NAME, "operation": ..., "headers": ...}    stores an operation under a name
    {"run": NAME, "number": ...}                        sends the next requests of a stored operation
    {"ask": REQUEST}                                    sends one request
"""

import gc
import importlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.machine import ROOT
from bench.operations import Operation, Request, WrongResult
from bench.running import yardstick_settings
from bench.stores import Store
from tests.servers import last_line


class Cost(NamedTuple):
    """Microseconds per request in one block of requests: the mean CPU time and the median wall-clock time."""

    cpu: float
    clock: float


class InProcess:
    """The parent process's interface to an application in a child process."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def _send(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise WrongResult(f"{self.name}: {last_line(self.log.read_text())}") from None
        if "error" in answer:
            raise WrongResult(f"{self.name}: {answer['error']}")
        return answer["result"]

    def keep(self, operation: Operation, headers: Mapping[str, str] | None = None) -> None:
        self._send(keep=operation.name, operation=operation, headers=dict(headers or {}))

    def run(self, name: str, number: int) -> Cost:
        """Send the next `number` requests of the operation that `keep` stored under this name. Return their cost."""
        return Cost(*self._send(run=name, number=number))

    def ask(self, request: Request) -> Any:
        return self._send(ask=request)


@contextmanager
def in_process(name: str, module: str, environment: dict[str, str], store: Store) -> Iterator[InProcess]:
    log = store.log(name.replace(" ", "-"))
    with log.open("w") as output:  # truncates the log, because a kept store still has the log of the last run
        program = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "bench.inside", module]
        process = subprocess.Popen(
            program, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        )
    try:
        yield InProcess(name, process, log)
    finally:
        process.kill()  # safe, because no request is in flight
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # fails if the buffer still contains an unread command
                pipe.close()  # type: ignore[union-attr]  # both are pipes


@contextmanager
def service_in_process(store: Store, is_keyed: bool = False) -> Iterator[InProcess]:
    name = "service with API key" if is_keyed else "service"
    environment = store.environment(THREADSVC_ALLOW_ANONYMOUS="0" if is_keyed else "1")
    with in_process(name, "threadsvc.wsgi", environment, store) as found:
        yield found


@contextmanager
def yardstick_in_process(store: Store) -> Iterator[InProcess]:
    environment = store.environment(**yardstick_settings(store, "queue"))
    with in_process("yardstick", "bench.yardstick.wsgi", environment, store) as found:
        yield found


# Code of the child process


def environ_of(request: Request, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the WSGI environ that a server would create for a request."""
    path, _, query = request.path.partition("?")
    body = request.body.encode()
    sent = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))} if body else {}
    named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        **sent,
        **named,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


class Application:
    """The application and its stored operations, in the child process."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.kept: dict[str, tuple[Iterator[Request], dict[str, str], str]] = {}

    def answer(self, environ: dict[str, Any]) -> tuple[str, bytes]:
        started: list[Any] = []
        response = self.application(environ, lambda *answered: started.append(answered))
        body = b"".join(response)
        response.close()
        return started[0][0], body

    def handle(self, command: dict[str, Any]) -> Any:
        if "keep" in command:
            _, requests, expected = command["operation"]
            self.kept[command["keep"]] = cycle([Request(*each) for each in requests]), command["headers"], expected
            return None
        if "run" in command:
            return self.run(command["run"], command["number"])
        status, body = self.answer(environ_of(Request(*command["ask"]), {}))
        self.require(status, body, "")
        return json.loads(body)

    def run(self, name: str, number: int) -> Cost:
        requests, headers, expected = self.kept[name]
        environs = [environ_of(request, headers) for request in islice(requests, number)]
        times, answers = [], []
        gc.collect()  # so that this block does not include the cost of earlier garbage
        cpu = time.process_time()
        for environ in environs:
            start = time.perf_counter()
            answers.append(self.answer(environ))
            times.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
        for status, body in answers:
            self.require(status, body, expected)
        return Cost(cpu / number * 1e6, median(times) * 1e6)

    def require(self, status: str, body: bytes, expected: str) -> None:
        if not status.startswith("200 ") or expected not in body.decode():
            raise WrongResult(f"{status} {body!r}")


def main(module: str) -> None:
    application = Application(importlib.import_module(module).application)
    for line in sys.stdin:
        try:
            answer = {"result": application.handle(json.loads(line))}
        except WrongResult as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
