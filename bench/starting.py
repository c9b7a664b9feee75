"""The part `start`: seconds from the start of `manage.py serve` to its first response and to its first created thread.

The run starts the service on a migrated store with messages, and in an empty data directory. In the empty directory,
the service first creates a secret key and its tables.
"""

import time
from statistics import median

from bench.operations import Request
from bench.options import Options, progress
from bench.running import service
from bench.stores import Store, Stores, on_each_engine
from bench.tables import at_most, table

HEADINGS = ("store", "engine", "starts", "first answer s", "slowest s", "target", "first thread s", "slowest s")
TARGET = 3  # seconds to the first response


def measure_start(store: Store) -> tuple[float, float]:
    """Return the seconds to the first 200 from /healthz, and to the response to the first POST /threads."""
    start = time.monotonic()
    with service(store) as served:
        answered = time.monotonic()
        served.ask(Request("POST", "/threads", "{}"))
        return answered - start, time.monotonic() - start


def row(name: str, engine: str, starts: list[tuple[float, float]]) -> tuple[str, ...]:
    answers, threads = zip(*starts, strict=True)
    first, slowest = median(answers), max(answers)
    times = [f"{seconds:.2f}" for seconds in (first, slowest, median(threads), max(threads))]
    return name, engine, str(len(starts)), *times[:2], at_most(TARGET, slowest), *times[2:]


def rows(engine: str, stores: Stores, options: Options) -> list[tuple[str, ...]]:
    progress(f"{engine}: starts")
    store, count = stores.new(), range(options.sizes.starts)
    store.seed(*options.seeded(engine))
    seeded = row(f"{options.seeded(engine)[1]:,} messages", engine, [measure_start(store) for _ in count])
    return [seeded, row("empty directory", engine, [measure_start(stores.new()) for _ in count])]


def run(options: Options) -> str:
    return table(HEADINGS, on_each_engine(rows, options.engines, options))
