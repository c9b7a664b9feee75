"""Shows the metrics of all workers to Prometheus, on a port of its own of the loopback address.

A process of its own does: in that which forks the workers, a thread would be a hazard, and a worker may be stuck.
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
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # a directory of its own in it, for its owner alone
SECONDS_TO_ASK = 10
ATTEMPTS, SECONDS_TO_FILL = 10, 0.05
PR_SET_PDEATHSIG = 1


class Exporter(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.exception("metrics were asked for and not told")


class Started(NamedTuple):
    """The process, and the directory that workers write their numbers to."""

    process: int  # a file descriptor (pidfd_open(2)): who forks workers may have asked long ago how it ended
    directory: Path

    def end(self) -> None:
        """Returns when the port is free again."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGTERM)
        select.select([self.process], [], [])
        shutil.rmtree(self.directory, ignore_errors=True)


def start(port: int, data_directory: Path) -> Started:
    """Starts the process, which ends with the one that calls this, however that ends. Raises OSError.

    To be called before anything imports prometheus_client, which asks the environment where to write.
    """
    server = Exporter((METRICS_HOST, port), BaseHTTPRequestHandler)  # until it is known what to answer with
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
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, and this ends when that has
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            server.serve_forever()
    finally:
        os._exit(0)


def new_directory(port: int, data_directory: Path) -> Path:
    """An empty directory that no other service uses, under a name that nobody can guess.

    In shared memory where there is some: a file that is mapped into memory, on a disk that is full, kills who writes.
    """
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else data_directory
    prefix = f"threadsvc-metrics-{port}-"
    for left in parent.glob(f"{prefix}*"):  # by a service that was killed: who has the port now is the only one
        if left.stat(follow_symlinks=False).st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


class Sums:
    """What all workers have counted. A worker's new file is empty for a moment: then they are asked once more."""

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
    """The numbers that every client library of Prometheus tells of its process, for all of a service together."""

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
    """The fields of /proc/PID/stat from the third on (proc_pid_stat(5)); none where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
