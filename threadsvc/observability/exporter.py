"""Exposes the metrics of all workers to Prometheus, on a separate port of the loopback address.

The exporter runs in its own process, because threads are unsafe in the process that forks the workers, and a worker may
hang.
"""

import ctypes
import logging
import os
import select
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, NamedTuple

from threadsvc import __version__

logger = logging.getLogger(__name__)

METRICS_HOST = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # the files are in a private subdirectory
SECONDS_TO_ASK = 10
ATTEMPTS, SECONDS_TO_FILL = 10, 0.05
PR_SET_PDEATHSIG = 1


class Exporter(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.exception("could not expose the metrics")


class Started(NamedTuple):
    """The exporter's process, and the directory for the workers' files."""

    # A pidfd (pidfd_open(2)). If gunicorn's master has already reaped the process, its pid may belong to another one.
    process: int
    directory: Path

    def end(self) -> None:
        """Stop the process. Returns when its port is free."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGTERM)
        select.select([self.process], [], [])
        shutil.rmtree(self.directory, ignore_errors=True)


def start(port: int, data_directory: Path) -> Started:
    """Start the exporter's process, which also ends if the caller's process is killed. Raises OSError.

    Call this function before any code imports prometheus_client, which reads its directory from the environment.
    """
    server = Exporter((METRICS_HOST, port), BaseHTTPRequestHandler)  # the handler is replaced below, after the import
    directory = new_directory(port, data_directory)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)

    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import MetricsHandler
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    registry.register(Sums(MultiProcessCollector(None)))
    registry.register(Processes(os.getpid()))
    server.RequestHandlerClass = type("Handler", (MetricsHandler,), {"registry": registry, "timeout": SECONDS_TO_ASK})
    parent = os.getpid()
    if child := os.fork():
        server.server_close()
        return Started(os.pidfd_open(child), directory)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the service, which then stops this process
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            server.serve_forever()
    finally:
        os._exit(0)


def new_directory(port: int, data_directory: Path) -> Path:
    """Create an empty private directory with a random name.

    It is in shared memory if possible, because writing to a mapped file on a full disk kills the process.
    """
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else data_directory
    prefix = f"threadsvc-metrics-{port}-"
    for left in parent.glob(f"{prefix}*"):  # a killed service with this port left this directory
        if left.stat(follow_symlinks=False).st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


class Sums:
    """Collects the sums over all workers. Retries while a worker's new file is still empty."""

    def __init__(self, workers: Any) -> None:
        self.workers = workers

    def collect(self) -> Iterable[Any]:
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                yield from self.workers.collect()
                return
            except struct.error:
                if not attempts_left:
                    raise
                time.sleep(SECONDS_TO_FILL)


class Processes:
    """Collects the process metrics that Prometheus clients usually expose, summed over all processes of the service."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.started = time.time()

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        about = GaugeMetricFamily("threadsvc_info", "Its version.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        workers = [int(pid) for pid in children if int(pid) != os.getpid()]
        yield GaugeMetricFamily("threadsvc_workers", "Worker processes.", len(workers))
        yield GaugeMetricFamily("process_start_time_seconds", "When the service started.", self.started)
        stats = [stat for pid in (self.master, os.getpid(), *workers) if (stat := stat_of(pid))]
        ticks = sum(sum(map(int, stat[11:13])) for stat in stats) + sum(map(int, stats[0][13:15]))
        cpu = ticks / os.sysconf("SC_CLK_TCK")
        yield CounterMetricFamily("process_cpu_seconds", "Processor time of all its processes, ended ones too.", cpu)
        memory = sum(int(stat[21]) for stat in stats) * os.sysconf("SC_PAGE_SIZE")
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory; what they share counts for each.", memory)


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (proc_pid_stat(5)), or [] if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
