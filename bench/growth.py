"""The part `growth`: the time of a request in a large store, compared with a small store.

Each store has threads of about ten messages, and one long thread. All pages of the long thread have the same size. The
run sends blocks of requests in process and alternates between the two stores. It reports the medians of two times:

- the wall-clock time, which includes the disk and a database server
- the CPU time of the process

Creates are measured last and are few, so the small store remains small.

This part does not measure MongoDB. The test server is mongo-java-server, whose indexes differ from MongoDB's.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.inside import Cost, InProcess, service_in_process
from bench.operations import Operation, Request, WrongResult, create, retrieve
from bench.options import Growth, Options, progress
from bench.stores import Store, Stores, on_each_engine
from bench.tables import at_most, table

ENGINES = ("sqlite", "postgresql")
TARGET = 1.2  # the highest permitted ratio of wall-clock times: large store to small store
SAMPLE = 2000
MAX_CREATES = 50  # maximum number of creates per block
HEADINGS = ("operation", "engine", "small: us", "large: us", "ratio", "target", "small: CPU us", "large: CPU us")


def sized_store(stores: Stores, size: Growth, kept: Path | None) -> Store:
    """Return a store of this size. Reuse the store in the directory `kept` if it is complete and has this size."""
    if kept is None:
        return fill(stores.new(), size)
    mark = kept / "size"
    if mark.exists() and mark.read_text() == str(size):
        store = stores.new(kept / "data")
        store.migrate()  # the code may be newer than the store
        return store
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    store = fill(stores.new(kept / "data"), size)
    mark.write_text(str(size))
    return store


def fill(store: Store, size: Growth) -> Store:
    progress(f"creating a store of {size.messages + size.long:,} messages in {size.threads:,} threads")
    store.seed(size.threads, size.messages)
    store.contents("long", size.long)
    return store


def operations(store: Store, size: Growth) -> list[Operation]:
    sample, long = store.contents("sample", SAMPLE), store.contents("long", size.long)
    path = f"/threads/{long['thread']}/messages"
    pages = {
        "first page": "order=desc",
        "first page, oldest first": "order=asc",
        "middle": f"order=desc&after={long['middle']}",
        "middle, oldest first": f"order=asc&after={long['middle']}",
        "end": f"order=desc&after={long['start']}",
        "end, oldest first": f"order=asc&after={long['end']}",
    }
    lists = [
        Operation(f"list of 20, {name}", [Request("GET", f"{path}?{query}")], '"object":"list"')
        for name, query in pages.items()
    ]
    in_many = create(sample["threads"])._replace(name="create message, many threads")
    in_long = create([long["thread"]])._replace(name="create message, the long thread")
    return [retrieve(sample["messages"]), *lists, in_many, in_long]


def require_full_page(application: InProcess, operation: Operation) -> None:
    if len(application.ask(operation.requests[0])["data"]) != 20:
        raise WrongResult(f"{operation.name}: the page does not have 20 messages")


def rows(engine: str, stores: Stores, options: Options) -> list[tuple[str, ...]]:
    sizes = {"small": options.sizes.small, "large": options.sizes.large}
    # Only a SQLite store can be kept, because the servers of other engines are temporary.
    kept = options.stores / "sqlite-large" if options.stores and engine == "sqlite" else None
    places = {"small": None, "large": kept}
    with ExitStack() as stack:
        applications: dict[str, InProcess] = {}
        names: list[str] = []
        for name, size in sizes.items():
            store = sized_store(stores, size, places[name])
            applications[name] = stack.enter_context(service_in_process(store))
            in_store = operations(store, size)
            for operation in in_store:
                if operation.name.startswith("list"):
                    require_full_page(applications[name], operation)
                applications[name].keep(operation)
            names = [operation.name for operation in in_store]
        return [measured(engine, name, applications, options) for name in names]


def measured(engine: str, name: str, applications: dict[str, InProcess], options: Options) -> tuple[str, ...]:
    progress(f"{engine}: {name}, small and large")
    creates = name.startswith("create")
    number = min(options.sizes.block, MAX_CREATES) if creates else options.sizes.block
    costs: dict[str, list[Cost]] = {size: [] for size in applications}
    for block in range(options.sizes.blocks + 1):
        for size in sorted(applications, reverse=bool(block % 2)):
            cost = applications[size].run(name, number)
            if block:  # the first block is the warm-up
                costs[size].append(cost)

    def middle(size: str, what: Callable[[Cost], float]) -> float:
        return median(map(what, costs[size]))

    pairs = zip(costs["small"], costs["large"], strict=True)
    ratio = median(large.clock / small.clock for small, large in pairs)
    return (
        name,
        engine,
        *(f"{middle(size, lambda cost: cost.clock):.0f}" for size in ("small", "large")),
        f"{ratio:.2f}",
        at_most(TARGET, ratio),
        *(f"{middle(size, lambda cost: cost.cpu):.0f}" for size in ("small", "large")),
    )


def run(options: Options) -> str:
    found = list(on_each_engine(rows, [engine for engine in ENGINES if engine in options.engines], options))
    if not found:
        return "Not measured: this part needs SQLite or PostgreSQL."
    sizes = (
        f"{size}: {growth.messages + growth.long:,} messages in {growth.threads + 1:,} threads, {growth.long:,} of "
        "them in one thread."
        for size, growth in (("Small", options.sizes.small), ("Large", options.sizes.large))
    )
    return "\n".join([table(HEADINGS, found), "", *(f"- {line}" for line in sizes)])
