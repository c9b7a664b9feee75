"""The part `growth`: what a request takes in a large store, beside what it takes in a small one.

Each store has threads of some ten messages, and one long thread, whose pages are all of one size. Blocks of requests in
process, of one store and of the other, take turns. Shown are medians: by the clock, in which the disk and a database
server have their part, and of the process's CPU. What creates is measured last, and creates little: the small store
is to stay small.

MongoDB is left out: mongo-java-server, which stands in for it here, says nothing of how its indexes grow.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.inside import Cost, Inside, service_inside
from bench.operations import Operation, Request, Wrong, create, retrieve
from bench.options import Growth, Options, progress
from bench.stores import Store, Stores, on_each_engine
from bench.tables import at_most, table

ENGINES = ("sqlite", "postgresql")
TARGET = 1.2  # at most so many times what it takes in the small store, by the clock
SAMPLE = 2000
MOST_CREATED = 50  # a block
HEADINGS = ("operation", "engine", "small: us", "large: us", "ratio", "target", "small: CPU us", "large: CPU us")


def made(stores: Stores, size: Growth, kept: Path | None) -> Store:
    """A store of that size: the one that is kept in a directory, if it was made whole."""
    if kept is None:
        return filled(stores.new(), size)
    mark = kept / "size"
    if mark.exists() and mark.read_text() == str(size):
        store = stores.new(kept / "data")
        store.migrate()  # perhaps the code is a newer one
        return store
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    store = filled(stores.new(kept / "data"), size)
    mark.write_text(str(size))
    return store


def filled(store: Store, size: Growth) -> Store:
    progress(f"making a store of {size.messages + size.long:,} messages in {size.threads:,} threads")
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
    everywhere = create(sample["threads"])._replace(name="create message, many threads")
    at_the_end = create([long["thread"]])._replace(name="create message, the long thread")
    return [retrieve(sample["messages"]), *lists, everywhere, at_the_end]


def require_full_page(inside: Inside, operation: Operation) -> None:
    if len(inside.ask(operation.requests[0])["data"]) != 20:
        raise Wrong(f"{operation.name}: that page has not 20 messages")


def rows(engine: str, stores: Stores, options: Options) -> list[tuple[str, ...]]:
    sizes = {"small": options.sizes.small, "large": options.sizes.large}
    # A server of another engine's goes with what it has.
    kept = options.stores / "sqlite-large" if options.stores and engine == "sqlite" else None
    places = {"small": None, "large": kept}
    with ExitStack() as stack:
        insides: dict[str, Inside] = {}
        named: list[str] = []
        for name, size in sizes.items():
            store = made(stores, size, places[name])
            insides[name] = stack.enter_context(service_inside(store))
            of_store = operations(store, size)
            for operation in of_store:
                if operation.name.startswith("list"):
                    require_full_page(insides[name], operation)
                insides[name].keep(operation)
            named = [operation.name for operation in of_store]
        return [measured(engine, name, insides, options) for name in named]


def measured(engine: str, name: str, insides: dict[str, Inside], options: Options) -> tuple[str, ...]:
    progress(f"{engine}: {name}, small and large")
    creates = name.startswith("create")
    number = min(options.sizes.block, MOST_CREATED) if creates else options.sizes.block
    costs: dict[str, list[Cost]] = {size: [] for size in insides}
    for block in range(options.sizes.blocks + 1):
        for size in sorted(insides, reverse=bool(block % 2)):
            cost = insides[size].run(name, number)
            if block:  # the first warms up
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
        return "Not measured: neither on SQLite nor on PostgreSQL."
    sizes = (
        f"{size}: {growth.messages + growth.long:,} messages in {growth.threads + 1:,} threads, {growth.long:,} of "
        "them in one"
        for size, growth in (("small", options.sizes.small), ("large", options.sizes.large))
    )
    return "\n".join([table(HEADINGS, found), "", *(f"- {line}" for line in sizes)])
