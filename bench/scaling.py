"""The part `scaling`: the disk space of messages, and two services that share one PostgreSQL (docs/scaling.md).

To simulate two machines, each service has its own data directory and address (127.0.0.1 and 127.0.0.2). Four writers,
two at each service, add messages to one thread. A reader pages through the thread, alternating between the services.
Raises WrongResult if two reads return different orders, or if a message is missing or duplicated.
"""

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import psycopg

from bench.load import run_load
from bench.operations import Operation, Request, WrongResult, create
from bench.options import Options, progress
from bench.running import Served, service
from bench.stores import Store, stores_of
from bench.tables import table

MESSAGES_PER_THREAD = 10
ENGINES = ("sqlite", "postgresql")
HOSTS = ("127.0.0.1", "127.0.0.2")
WRITERS = 4
PAGE = 100

SPACE_SQL = {
    "sqlite": "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name",
    "postgresql": "SELECT relname, pg_table_size(oid) FROM pg_class WHERE relkind IN ('r', 'i') "
    "AND relnamespace = 'public'::regnamespace",
}


def disk_space(engine: str, store: Store, messages: int) -> Iterator[tuple[str, ...]]:
    """Yield the disk space of all threads and messages, and then of each table and index, the largest first."""
    store.seed(messages // MESSAGES_PER_THREAD, messages)
    if engine == "sqlite":
        with closing(sqlite3.connect(store.directory / "threadsvc.db")) as database:
            database.execute("VACUUM")
            found = database.execute(SPACE_SQL[engine]).fetchall()
    else:
        with closing(psycopg.connect(store.url, autocommit=True)) as server:
            server.execute("VACUUM ANALYZE")
            found = server.execute(SPACE_SQL[engine]).fetchall()
    sizes = [(name, size) for name, size in found if "message" in name or name.startswith("thread")]
    total = sum(size for _, size in sizes)
    sizes.append(("all, with the rest", total))
    for name, size in sorted(sizes, key=lambda item: -item[1]):
        if size > total / 200:
            yield engine, name, f"{size / 1e6:.1f}", f"{size / messages:.0f}", f"{size / total:.0%}"


def write(served: Served, path: str, writer: int, number: int) -> list[str]:
    """Create messages in a thread, one after the other. Return their ids."""
    bodies = (json.dumps({"role": "user", "content": f"{writer} {i}"}) for i in range(number))
    return [str(served.ask(Request("POST", path, body))["id"]) for body in bodies]


def follow(services: list[Served], path: str, number: int) -> list[str]:
    """Page through a thread with `after`, alternating between the services. Return the ids in the order received."""
    seen: list[str] = []
    for served in cycle(services):
        after = f"&after={seen[-1]}" if seen else ""
        seen += [row["id"] for row in served.ask(Request("GET", f"{path}?order=asc&limit={PAGE}{after}"))["data"]]
        if len(seen) >= number:
            return seen
    raise WrongResult("no services")


def check_order(services: list[Served], number: int) -> list[str]:
    """Check that all reads return the messages in the same order. Return notes for the results.

    Raises WrongResult if the order is wrong, or if a message is missing or duplicated.
    """
    thread: str = services[0].ask(Request("POST", "/threads"))["id"]
    path, total = f"/threads/{thread}/messages", WRITERS * number
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        reader = pool.submit(follow, services, path, total)
        writers = [pool.submit(write, served, path, i, number) for i, served in zip(range(WRITERS), cycle(services))]
        own = [writer.result() for writer in writers]
        seen = reader.result()
    walks = [follow([served], path, total) for served in services]
    if len(set(seen)) != total or any(walk != seen for walk in walks):
        raise WrongResult("the reader and later walks did not get the same messages in the same order")
    for ids in own:
        if [each for each in seen if each in set(ids)] != ids:
            raise WrongResult("a writer's messages are not in the order in which they were acknowledged")
    read_once = (
        f"{WRITERS} writers, two at each service, wrote {total:,} messages to one thread. A reader paged through the "
        "thread with `after`, alternating between the services, and got each message exactly once."
    )
    same_order = (
        "Later, each service returned the whole thread in the same order. The messages of each writer were in the "
        "order of its responses."
    )
    return [read_once, same_order]


def two_services(options: Options) -> str:
    rows, notes = [], []
    with stores_of("postgresql") as stores, ExitStack() as stack:
        store = stores.new()
        store.seed(*options.seeded("postgresql"))
        operation = create(store.contents("sample", options.seeded("postgresql")[0])["threads"])
        # The two simulated machines share only the database.
        both = [store, replace(store, directory=Path(f"{store.directory}-other"))]
        both[1].migrate()
        services = [
            stack.enter_context(service(each, workers=1, host=host)) for each, host in zip(both, HOSTS, strict=True)
        ]
        before = store.count()
        acknowledged = 0
        for served_by in ([services[0]], [services[1]], services):
            progress(f"postgresql: load on {len(served_by)} service(s)")
            figures = load_all(served_by, operation, options.seconds)
            acknowledged += figures[0]
            rows.append((" and ".join(served.host for served in served_by), *figures[1:]))
        stored = store.count() - before
        if not acknowledged <= stored <= acknowledged + 16 * len(HOSTS) * len(rows):
            raise WrongResult(f"{stored:,} messages are stored, but {acknowledged:,} were acknowledged")
        notes.append(f"All {acknowledged:,} acknowledged messages were stored.")
        notes += check_order(services, options.sizes.written)
    headings = ("services, one worker each", "creates /s", "p50, p99 ms")
    return table(headings, rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def load_all(services: list[Served], operation: Operation, seconds: float) -> tuple[int, str, str]:
    """Load all services concurrently. Return the number of responses, and the table cells for rate and times."""
    with ThreadPoolExecutor(len(services)) as pool:
        loads = list(pool.map(lambda served: run_load(served, operation, seconds), services))
    times = "; ".join(f"{load.p50:.1f}, {load.p99:.1f}" for load in loads)
    return sum(load.requests for load in loads), f"{sum(load.rate for load in loads):,.0f}", times


def run(options: Options) -> str:
    rows: list[tuple[str, ...]] = []
    for engine in ENGINES:
        with stores_of(engine) as stores:
            progress(f"{engine}: disk space of {options.sizes.space:,} messages")
            rows += disk_space(engine, stores.new(), options.sizes.space)
    headings = ("engine", "table or index", "MB", "bytes a message", "share")
    threads = options.sizes.space // MESSAGES_PER_THREAD
    caption = f"{options.sizes.space:,} messages of `seed` in {threads:,} threads:"
    return f"{caption}\n\n{table(headings, rows)}\n\n{two_services(options)}"
