"""The stores to measure. Each has a data directory. Its database is a SQLite file or on a server of the run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.machine import ROOT
from bench.operations import WrongResult
from bench.options import Options
from tests.engines import start
from tests.servers import DatabaseServer

# Variables with these prefixes are not passed to the measured processes, because they would change how these work.
SETTINGS = (
    "THREADSVC_",
    "DATABASE_URL",
    "THREADS_DATABASE_URL",
    "HOST",
    "PORT",
    "WEB_CONCURRENCY",
    "DJANGO_",
    "PYTHON",
)


@dataclass
class Store:
    directory: Path  # the log files are in its parent directory
    url: str  # THREADS_DATABASE_URL; empty for the SQLite file in the data directory

    def environment(self, **settings: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        own = {"THREADSVC_DATA_DIR": str(self.directory), "PYTHONPATH": str(ROOT)}
        return {**kept, **own, **({"THREADS_DATABASE_URL": self.url} if self.url else {}), **settings}

    @property
    def database_url(self) -> str:
        return self.url or f"sqlite:///{self.directory}/threadsvc.db"

    def log(self, name: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}-{name}.log")

    def run(self, *arguments: str) -> str:
        """Run one of the project's programs on this store, and return its output. Raises WrongResult if it fails."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=self.environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise WrongResult(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def migrate(self) -> None:
        self.run("manage.py", "migrate", "-v0")
        if self.url:
            self.run("manage.py", "migrate", "-v0", "--database", "threads")

    def seed(self, threads: int, messages: int) -> None:
        """Fill the store. The same numbers always give the same rows, including ids."""
        self.migrate()
        self.run("manage.py", "seed", "--seed", "7", "--threads", str(threads), "--messages", str(messages))

    def contents(self, what: str, *numbers: int) -> Any:
        return json.loads(self.run("-m", "bench.contents", what, *map(str, numbers)))

    def count(self) -> int:
        count: int = self.contents("count")["messages"]
        return count


class Stores:
    """Creates stores of one engine in a temporary directory."""

    def __init__(self, directory: Path, server: DatabaseServer | None) -> None:
        self.directory, self.server = directory, server
        self.count = 0

    def new(self, directory: Path | None = None) -> Store:
        """Return an empty store without tables."""
        self.count += 1
        url = self.server.new_database() if self.server else ""
        return Store(directory or self.directory / f"data-{self.count}", url)


@contextmanager
def stores_of(engine: str) -> Iterator[Stores]:
    """Yield a `Stores` object for an engine. At the end, remove all its stores and stop the engine's server.

    Raises tests.servers.Unavailable if the server cannot be started.
    """
    server = start(engine)
    try:
        with TemporaryDirectory(prefix="threadsvc-bench-") as directory:
            yield Stores(Path(directory), server)
    finally:
        if server:
            server.close()


def on_each_engine(
    rows: Callable[[str, Stores, Options], Iterable[tuple[str, ...]]], engines: Iterable[str], options: Options
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a part, one engine after the other. Each engine has its own stores."""
    for engine in engines:
        with stores_of(engine) as stores:
            yield from rows(engine, stores, options)
