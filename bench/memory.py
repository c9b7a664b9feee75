"""The part `memory`: the memory of one worker after its start, after many requests, and after large bodies.

RSS counts all memory pages of the worker in full, including pages that it shares with its parent process. PSS divides
the size of each shared page by the number of processes that share it. The peak is the highest RSS so far.
"""

from collections.abc import Iterator
from pathlib import Path

from bench.load import run_load
from bench.operations import Request, WrongResult, mixed, sample_operations
from bench.options import Options, progress
from bench.running import Served, service
from bench.stores import Stores, on_each_engine
from bench.tables import at_most, table

HEADINGS = ("engine", "requests", "RSS MB", "PSS MB", "peak MB", "target", "RSS, times the first count", "target")
PEAK = 100  # highest permitted peak RSS, in MB
# The highest permitted RSS after the large bodies, as a multiple of the RSS after the first load. If the worker kept
# the bodies in memory, the multiple would be 37.
AFTER_LARGE_BODIES = 3
# The service rejects this body of 3 MB. Its parsed value takes about 70 MB.
LARGE = Request("POST", "/threads", '{"messages": [' + ",".join(["{}"] * 1_000_000) + "]}")
LARGE_BODIES = 40
GROWTH = 1.05  # highest permitted RSS after the later loads, as a multiple of the RSS after the first load
SECONDS_PER_LOAD = 5
# More requests would take an hour on mongo-java-server.
MAX_REQUESTS = {"mongodb": 5_000}


def megabytes(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)


def rows(engine: str, stores: Stores, options: Options) -> Iterator[tuple[str, ...]]:
    store = stores.new()
    store.seed(*options.seeded(engine))
    requests = mixed(sample_operations(store.contents("sample", options.seeded(engine)[0])))
    with service(store, workers=1) as served:
        (worker,) = served.workers()
        sent, first = 0, 0.0
        for number in sorted({0, *(min(number, MAX_REQUESTS.get(engine, number)) for number in options.sizes.memory)}):
            while sent < number:
                progress(f"{engine}: memory, {sent:,} requests of {number:,}")
                sent += run_load(served, requests, min(options.seconds, SECONDS_PER_LOAD)).requests
            resident, columns = figures(worker)
            flat = (f"{resident / first:.2f}", at_most(GROWTH, resident / first)) if first else ("", "")
            yield engine, f"{sent:,}", *columns, at_most(PEAK, float(columns[-1])), *flat
            if sent and not first:
                first = resident
        send_large_bodies(engine, served)
        resident, columns = figures(worker)
        times = resident / first
        yield engine, f"{LARGE_BODIES} of 3 MB", *columns, "", f"{times:.2f}", at_most(AFTER_LARGE_BODIES, times)
        if served.workers() != [worker]:
            raise WrongResult("the worker was replaced during the run")


def send_large_bodies(engine: str, served: Served) -> None:
    progress(f"{engine}: memory, {LARGE_BODIES} bodies of 3 MB")
    for _ in range(LARGE_BODIES):
        status, body = served.call(LARGE)
        if status != 422:
            raise WrongResult(f"{status} {body!r}")


def figures(worker: int) -> tuple[float, tuple[str, ...]]:
    """Return the worker's RSS in MB, and the table cells for RSS, PSS and peak."""
    resident, peak = megabytes(worker, "status", "VmRSS"), megabytes(worker, "status", "VmHWM")
    share = megabytes(worker, "smaps_rollup", "Pss")
    return resident, (f"{resident:.1f}", f"{share:.1f}", f"{peak:.1f}")


def run(options: Options) -> str:
    return table(HEADINGS, on_each_engine(rows, options.engines, options))
