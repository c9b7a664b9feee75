"""Real servers for the tests: databases and nginx. Each server starts once per test run, on a free loopback port.

A server stores its data in a new directory, which is removed at the end. The server ends with the process that started
it, even if that process is killed.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class Unavailable(Exception):
    """Raised if a server is not available on this machine. The message gives the reason in one line."""


def is_ci() -> bool:
    """Return True in CI. In CI, an unavailable server is a failure. On other machines, its tests are skipped."""
    return os.environ.get("CI", "") not in ("", "0", "false")


_claims: list[socket.socket] = []


def free_port() -> int:
    """Return a port that is free and that no other test process on this machine has claimed.

    The port is below the ephemeral range, from which the kernel chooses the ports of clients. If a server's port were
    in this range, a client that reconnects while the server is stopped could get the same port and connect to itself.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        claim = socket.socket(socket.AF_UNIX)
        try:
            # Only one process can bind this abstract name. The kernel frees the name when the process ends.
            claim.bind(f"\0threadsvc-tests-port-{port}")
            with closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port


def last_line(output: str) -> str:
    return (output.strip() or "no reason given").splitlines()[-1]


def install(package: str, *more: str) -> None:
    """Install Debian packages. Raise Unavailable if the user is not root, or if apt-get is missing or fails."""
    packages = [package, *more]
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable(f"missing: apt-get install {' '.join(packages)}")
    print(f"threadsvc: installing Debian's {' and '.join(packages)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *command], env=quiet, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"apt-get {command[0]} failed: {last_line(done.stderr)}")


def state_of(task: Path) -> str:
    """Return the one-letter state of a process or thread, as `ps` shows it. Return X if it has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_running(pid: int) -> bool:
    # Z is a zombie: the process has ended, but its parent has not waited for it.
    return state_of(Path(f"/proc/{pid}")) not in "ZX"


def suspend(pid: int) -> None:
    """Suspend a process and wait until all its threads are suspended. Until then, they may still send responses."""
    os.kill(pid, signal.SIGSTOP)
    while any(state_of(task) not in "TZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.001)


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, including zombies, oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Server(ABC):
    """A server process on a port. `prepare` installs and configures the server, or raises Unavailable."""

    stop_signal = signal.SIGTERM
    user: str | None = None  # the server's user, if it is not the user who runs the tests

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="threadsvc-tests-"))
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def as_user(self, *arguments: str) -> list[str]:
        """Return a command that runs `arguments` as the server's user. The command ends with this process."""
        user = ["--reuid", self.user, "--regid", self.user, "--clear-groups"] if self.user else []
        return ["setpriv", "--pdeathsig", self.stop_signal.name.removeprefix("SIG"), *user, *arguments]

    def start(self) -> None:
        """Start the server, or restart it on the same port with the same data."""
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.as_user(*self.command()),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        end = time.monotonic() + SECONDS_TO_START
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"{self.command()[0]} did not start: {last_line(log.read_text())}")
            time.sleep(0.01)

    def pids(self) -> list[int]:
        """Return the pids of the server's processes, the parent first."""
        if self.process is None or self.process.poll() is not None:
            return []
        return [self.process.pid, *children_of(self.process.pid)]

    def send(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def suspend(self) -> None:
        """Suspend all processes of the server. Its connections stay open."""
        # Suspend the parent first, so that it starts no more processes.
        for pid in [*self.pids()[:1], *self.pids()]:
            with suppress(FileNotFoundError, ProcessLookupError):
                suspend(pid)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all server processes at once. Data that they have not yet written to a file is lost."""
        self.suspend()
        pids = self.pids()
        self.send(signal.SIGKILL)
        if self.process:
            self.process.wait(SECONDS_TO_STOP)
        while any(map(is_running, pids)):
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop the server as an operator would, and wait until it ends."""
        if not self.pids() or self.process is None:
            return
        self.resume()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class DatabaseServer(Server):
    databases = 0

    @classmethod
    def started_elsewhere(cls, port: int, directory: Path) -> Self:
        """Return a server that another process started and will stop. Callers can use the server but not control it."""
        server = cls.__new__(cls)
        server.port, server.directory, server.process = port, directory, None
        return server

    @abstractmethod
    def url(self, database: str) -> str: ...

    def next_name(self) -> str:
        """Return a database name that no other process of this run uses."""
        self.databases += 1
        return f"tests_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{self.databases}"

    @abstractmethod
    def new_database(self) -> str:
        """Return the URL of a new, empty database."""
