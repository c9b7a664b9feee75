"""Describe the machine of a run. The figures depend on it."""

import os
import platform
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
SYNCS = 200
PACKAGES = ("Django", "djangorestframework", "gunicorn", "orjson", "psycopg", "pymongo", "djongo5")


def describe() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    facts = {
        "Machine": f"{cpu_model()}, {os.cpu_count()} CPUs, {memory_gigabytes():.0f} GB",
        "System": f"{platform.system()} {platform.release()}, {distribution()}",
        "Disk": f"{tempfile.gettempdir()}, {file_system()}: 4 KiB and fdatasync take {sync_microseconds():.0f} us "
        f"(median of {SYNCS})",
        "Software": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}",
        "Commit": commit(),
        "Run": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "Command": f"`{shlex.join(['.venv/bin/python', '-m', 'bench', *sys.argv[1:]])}`",
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def file_system() -> str:
    """Return the file system type of the stores. On tmpfs no write is durable, so the figures would be meaningless."""
    return output_of("stat", "--file-system", "--format=%T", tempfile.gettempdir())


def sync_microseconds() -> float:
    """Return the median time of a durable 4 KiB write, in microseconds. No commit can be faster."""
    times = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(SYNCS):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return median(times) * 1e6


def commit() -> str:
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no")
    return output_of("git", "rev-parse", "--short=12", "HEAD") + (", with changes" if changed else "")


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "unknown"
