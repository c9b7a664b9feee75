"""How fast `seed`, `export_threads` and `import_threads` are, and how much memory they take, at 1,000,000 messages.

    .venv/bin/python bench/commands.py [--messages NUMBER] [--database-url FIRST SECOND]

Makes a store of NUMBER messages in a tenth as many threads, exports it to a file and imports that into a second store:
on SQLite in directories that it makes and removes, or in the two empty databases of these URLs.
Prints one table, a row for each command: messages a second beside the target, seconds (all of the process, its start
too), seconds of CPU, the most memory that it had, that of a process which has asked one query, and the difference;
what misses its target is marked with `!`. Ends with status 1 where the export of the second store is not, byte for
byte, that of the first.
"""

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = 1_000_000
MESSAGES_A_THREAD = 10
TARGETS = {"seed": 30_000, "export_threads": 50_000, "import_threads": 30_000}
MB_BEYOND_IDLE = 50
IDLE = ("shell", "-c", "from messages_app.models import Thread; Thread.objects.exists()")


class Row(NamedTuple):
    """What one run of a command took. `peak_mb` and `idle_mb` are MB of resident memory."""

    command: str
    messages: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    idle_mb: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def target(self) -> int:
        return TARGETS[self.command]

    @property
    def beyond_idle_mb(self) -> float:
        return self.peak_mb - self.idle_mb


class DifferentError(Exception):
    """What was imported is not what was exported."""


class Used(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


class Store:
    """A new data directory, and the database in it or at a URL."""

    def __init__(self, directory: Path, database_url: str = "") -> None:
        self.environment = {**os.environ, "THREADSVC_DATA_DIR": str(directory)}
        self.environment.pop("THREADS_DATABASE_URL", None)
        self.manage("migrate", "-v0")
        if database_url:
            self.environment["THREADS_DATABASE_URL"] = database_url
            self.manage("migrate", "-v0", "--database", "threads")

    def manage(self, *arguments: str) -> Used:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr
        told = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{told.decode()}")
        return Used(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)


def measured(messages: int = MESSAGES, database_urls: Sequence[str] = ("", "")) -> list[Row]:
    """A row for each command. Raises DifferentError where the two stores do not say the same."""
    with tempfile.TemporaryDirectory(prefix="threadsvc-bench-") as scratch:
        first, second = (Store(Path(scratch) / f"store-{i}", url) for i, url in enumerate(database_urls, start=1))
        export, again = Path(scratch) / "export.jsonl", Path(scratch) / "again.jsonl"
        threads = max(1, messages // MESSAGES_A_THREAD)
        idle = first.manage(*IDLE)
        used = {
            "seed": first.manage("seed", "--seed", "7", "--threads", str(threads), "--messages", str(messages)),
            "export_threads": first.manage("export_threads", str(export)),
            "import_threads": second.manage("import_threads", str(export)),
        }
        second.manage("export_threads", str(again))
        if not filecmp.cmp(export, again, shallow=False):
            raise DifferentError("the export of what was imported is another one")
    return [Row(command, messages, *of_command, idle.peak_mb) for command, of_command in used.items()]


def table(rows: Sequence[Row]) -> str:
    heads = ("command", "messages", "messages/s", "target", "seconds", "CPU s", "peak MB", "idle MB", "more MB")
    lines = ["{:15} {:>11} {:>12} {:>8} {:>8} {:>7} {:>8} {:>8} {:>9}".format(*heads)]
    for row in rows:
        slow = "!" if row.rate < row.target else " "
        large = "!" if row.beyond_idle_mb > MB_BEYOND_IDLE else " "
        lines.append(
            f"{row.command:15} {row.messages:>11,} {row.rate:>11,.0f}{slow} {row.target:>8,} {row.seconds:>8.1f}"
            f" {row.cpu_seconds:>7.1f} {row.peak_mb:>8.1f} {row.idle_mb:>8.1f} {row.beyond_idle_mb:>8.1f}{large}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description="Measures seed, export_threads and import_threads.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"how many (default {MESSAGES:,})")
    parser.add_argument(
        "--database-url", nargs=2, default=("", ""), metavar=("FIRST", "SECOND"), help="two empty databases"
    )
    options = parser.parse_args()
    try:
        print(table(measured(options.messages, options.database_url)))
    except (DifferentError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
