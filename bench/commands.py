"""Measure the speed and memory use of `seed`, `export_threads` and `import_threads` with 1,000,000 messages.

    .venv/bin/python bench/commands.py [--messages NUMBER] [--database-url FIRST SECOND]

Creates a store of NUMBER messages with 10 messages per thread, exports it to a file, and imports the file into a second
store. By default, the stores are SQLite files in temporary directories. With `--database-url`, they are the databases
at these two URLs, which must be empty.

Prints one table. Each row has these values of one command:

- messages per second, and the target
- elapsed seconds of the process, including its start, and CPU seconds
- peak memory of the process, peak memory of an idle process that ran one query, and the difference

`!` marks a missed target. Exits with 1 if the exports of the two stores differ in any byte.
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
MAX_MB_ABOVE_IDLE = 50
IDLE = ("shell", "-c", "from messages_app.models import Thread; Thread.objects.exists()")


class Row(NamedTuple):
    """Measurements of one command. `peak_mb` is its peak memory, and `idle_mb` is the peak of an idle process.

    Both are resident memory in MB.
    """

    command: str
    messages: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    idle_mb: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    @property
    def target(self) -> int:
        return TARGETS[self.command]

    @property
    def mb_above_idle(self) -> float:
        return self.peak_mb - self.idle_mb


class DifferentError(Exception):
    """The export of the second store differs from the first."""


class Used(NamedTuple):
    """The time and memory that a process used."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


class Store:
    """A new data directory and a database, which is a SQLite file in the directory or the database at a URL."""

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
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{errors.decode()}")
        return Used(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)


def measured(messages: int = MESSAGES, database_urls: Sequence[str] = ("", "")) -> list[Row]:
    """Return one row for each command. Raises DifferentError if the exports of the two stores differ."""
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
            raise DifferentError("the export of the second store differs from the first")
    return [Row(command, messages, *of_command, idle.peak_mb) for command, of_command in used.items()]


def table(rows: Sequence[Row]) -> str:
    heads = ("command", "messages", "messages/s", "target", "seconds", "CPU s", "peak MB", "idle MB", "above idle")
    lines = ["{:15} {:>11} {:>12} {:>8} {:>8} {:>7} {:>8} {:>8} {:>10}".format(*heads)]
    for row in rows:
        slow = "!" if row.rate < row.target else " "
        large = "!" if row.mb_above_idle > MAX_MB_ABOVE_IDLE else " "
        lines.append(
            f"{row.command:15} {row.messages:>11,} {row.rate:>11,.0f}{slow} {row.target:>8,} {row.seconds:>8.1f}"
            f" {row.cpu_seconds:>7.1f} {row.peak_mb:>8.1f} {row.idle_mb:>8.1f} {row.mb_above_idle:>9.1f}{large}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description="Measure seed, export_threads and import_threads.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"number of messages (default: {MESSAGES:,})")
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
