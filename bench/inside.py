"""An application that is called in a process of its own, without a server and in one thread: the price of a request.

`python -m bench.inside MODULE` has the `application` of that module. It takes one line of JSON after the other from
stdin, and answers each with one: {"keep": NAME, "operation": ..., "headers": ...}, {"run": NAME, "number": ...},
{"ask": REQUEST}. In between it does nothing: processes that take turns do not disturb each other.
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
from bench.operations import Operation, Request, Wrong
from bench.running import yardstick_settings
from bench.stores import Store
from tests.servers import last_line


class Cost(NamedTuple):
    """Of one request, in microseconds: of CPU, the mean of a block; by the clock, the median."""

    cpu: float
    clock: float


class Inside:
    """Our end: an application in another process."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def _tell(self, **order: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            raise Wrong(f"{self.name}: {last_line(self.log.read_text())}") from None
        if "wrong" in answer:
            raise Wrong(f"{self.name}: {answer['wrong']}")
        return answer["right"]

    def keep(self, operation: Operation, headers: Mapping[str, str] | None = None) -> None:
        self._tell(keep=operation.name, operation=operation, headers=dict(headers or {}))

    def run(self, name: str, number: int) -> Cost:
        """Sends the next `number` requests of what was kept under that name."""
        return Cost(*self._tell(run=name, number=number))

    def ask(self, request: Request) -> Any:
        return self._tell(ask=request)


@contextmanager
def inside(name: str, module: str, environment: dict[str, str], store: Store) -> Iterator[Inside]:
    log = store.log(name.replace(" ", "-"))
    with log.open("w") as output:  # a store that is kept has that of the last run
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "bench.inside", module]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        )
    try:
        yield Inside(name, process, log)
    finally:
        process.kill()  # it has nothing to finish
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it was told last, and did not hear
                pipe.close()  # type: ignore[union-attr]  # they are there


@contextmanager
def service_inside(store: Store, is_keyed: bool = False) -> Iterator[Inside]:
    name = "service with API key" if is_keyed else "service"
    environment = store.environment(THREADSVC_ALLOW_ANONYMOUS="0" if is_keyed else "1")
    with inside(name, "threadsvc.wsgi", environment, store) as found:
        yield found


@contextmanager
def yardstick_inside(store: Store) -> Iterator[Inside]:
    environment = store.environment(**yardstick_settings(store, "queue"))
    with inside("yardstick", "bench.yardstick.wsgi", environment, store) as found:
        yield found


# The other end


def environ_of(request: Request, headers: Mapping[str, str]) -> dict[str, Any]:
    """What a server makes of a request."""
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


class Called:
    """The application, and the requests that it was told to keep."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.kept: dict[str, tuple[Iterator[Request], dict[str, str], str]] = {}

    def answer(self, environ: dict[str, Any]) -> tuple[str, bytes]:
        started: list[Any] = []
        response = self.application(environ, lambda *answered: started.append(answered))
        body = b"".join(response)
        response.close()
        return started[0][0], body

    def obey(self, order: dict[str, Any]) -> Any:
        if "keep" in order:
            _, requests, expected = order["operation"]
            self.kept[order["keep"]] = cycle([Request(*request) for request in requests]), order["headers"], expected
            return None
        if "run" in order:
            return self.run(order["run"], order["number"])
        status, body = self.answer(environ_of(Request(*order["ask"]), {}))
        self.require(status, body, "")
        return json.loads(body)

    def run(self, name: str, number: int) -> Cost:
        requests, headers, expected = self.kept[name]
        environs = [environ_of(request, headers) for request in islice(requests, number)]
        times, answers = [], []
        gc.collect()  # what the block before left is not for this one to clear away
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
            raise Wrong(f"{status} {body!r}")


def main(module: str) -> None:
    called = Called(importlib.import_module(module).application)
    for line in sys.stdin:
        try:
            answer = {"right": called.obey(json.loads(line))}
        except Wrong as error:
            answer = {"wrong": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
