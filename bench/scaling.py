"""The part `scaling`: how much room messages take, and two services over one PostgreSQL (docs/scaling.md).

The services have data directories of their own, and listen on 127.0.0.1 and 127.0.0.2 as two machines would. Four
writers, two at each, add to one thread while a reader follows it, now at the one, now at the other. Raises Wrong where
the order is not one and the same for all, or a message is missing, or there twice.
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

from bench.load import loaded
from bench.operations import Operation, Request, Wrong, create
from bench.options import Options, progress
from bench.running import Served, service
from bench.stores import Store, stores_of
from bench.tables import table

MESSAGES_A_THREAD = 10
ENGINES = ("sqlite", "postgresql")
HOSTS = ("127.0.0.1", "127.0.0.2")
WRITERS = 4
PAGE = 100

ROOM_OF = {
    "sqlite": "SELECT name, SUM(pgsize) FROM dbstat GROUP BY name",
    "postgresql": "SELECT relname, pg_table_size(oid) FROM pg_class WHERE relkind IN ('r', 'i') "
    "AND relnamespace = 'public'::regnamespace",
}


def room(engine: str, store: Store, messages: int) -> Iterator[tuple[str, ...]]:
    """Bytes a message of each table and index of threads and messages, the largest first, and of all together."""
    store.seed(messages // MESSAGES_A_THREAD, messages)
    if engine == "sqlite":
        with closing(sqlite3.connect(store.directory / "threadsvc.db")) as database:
            database.execute("VACUUM")
            found = database.execute(ROOM_OF[engine]).fetchall()
    else:
        with closing(psycopg.connect(store.url, autocommit=True)) as server:
            server.execute("VACUUM ANALYZE")
            found = server.execute(ROOM_OF[engine]).fetchall()
    ours = [(name, size) for name, size in found if "message" in name or name.startswith("thread")]
    total = sum(size for _, size in ours)
    ours.append(("all, with the rest", total))
    for name, size in sorted(ours, key=lambda item: -item[1]):
        if size > total / 200:
            yield engine, name, f"{size / 1e6:.1f}", f"{size / messages:.0f}", f"{size / total:.0%}"


def written(served: Served, path: str, writer: int, number: int) -> list[str]:
    """Adds messages to a thread, one after the other; their ids."""
    bodies = (json.dumps({"role": "user", "content": f"{writer} {i}"}) for i in range(number))
    return [str(served.ask(Request("POST", path, body))["id"]) for body in bodies]


def followed(services: list[Served], path: str, number: int) -> list[str]:
    """The ids of a thread as a reader gets them that goes on with `after`, at each service in turn, until all came."""
    seen: list[str] = []
    for served in cycle(services):
        after = f"&after={seen[-1]}" if seen else ""
        seen += [row["id"] for row in served.ask(Request("GET", f"{path}?order=asc&limit={PAGE}{after}"))["data"]]
        if len(seen) >= number:
            return seen
    raise Wrong("no services")


def check_order(services: list[Served], number: int) -> str:
    """Raises Wrong. What was shown, in a sentence."""
    thread: str = services[0].ask(Request("POST", "/threads"))["id"]
    path, total = f"/threads/{thread}/messages", WRITERS * number
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        reader = pool.submit(followed, services, path, total)
        writers = [pool.submit(written, served, path, i, number) for i, served in zip(range(WRITERS), cycle(services))]
        own = [writer.result() for writer in writers]
        seen = reader.result()
    walks = [followed([served], path, total) for served in services]
    if len(set(seen)) != total or any(walk != seen for walk in walks):
        raise Wrong("the reader, and walks at both services, did not meet the same messages in the same order")
    for ids in own:
        if [each for each in seen if each in set(ids)] != ids:
            raise Wrong("a writer's messages do not stand in the order in which they were acknowledged")
    return (
        f"Order: {total:,} messages of {WRITERS} writers, two at each service, to one thread; a reader that followed "
        "with `after` at both in turn met each once while they were written, in the order that walks at either service "
        "had afterwards, and each writer's in the order of its answers."
    )


def two_services(options: Options) -> str:
    rows, notes = [], []
    with stores_of("postgresql") as stores, ExitStack() as stack:
        store = stores.new()
        store.seed(*options.seeded("postgresql"))
        operation = create(store.contents("sample", options.seeded("postgresql")[0])["threads"])
        # Another machine: the same database, and nothing else.
        stores_of_both = [store, replace(store, directory=Path(f"{store.directory}-other"))]
        stores_of_both[1].migrate()
        services = [
            stack.enter_context(service(each, workers=1, host=host))
            for each, host in zip(stores_of_both, HOSTS, strict=True)
        ]
        before = store.count()
        acknowledged = 0
        for served_by in ([services[0]], [services[1]], services):
            progress(f"postgresql: load on {len(served_by)} service(s)")
            figures = together(served_by, operation, options.seconds)
            acknowledged += figures[0]
            rows.append((" and ".join(served.host for served in served_by), *figures[1:]))
        stored = store.count() - before
        if not acknowledged <= stored <= acknowledged + 16 * len(HOSTS) * len(rows):
            raise Wrong(f"{stored:,} messages are stored, and {acknowledged:,} were acknowledged")
        notes.append(f"All {acknowledged:,} messages that were acknowledged are stored.")
        notes.append(check_order(services, options.sizes.written))
    headings = ("services, one worker each", "creates /s", "p50, p99 ms")
    return table(headings, rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def together(services: list[Served], operation: Operation, seconds: float) -> tuple[int, str, str]:
    """How many requests were answered, and what is shown of all services under load at once."""
    with ThreadPoolExecutor(len(services)) as pool:
        loads = list(pool.map(lambda served: loaded(served, operation, seconds), services))
    times = "; ".join(f"{load.p50:.1f}, {load.p99:.1f}" for load in loads)
    return sum(load.requests for load in loads), f"{sum(load.rate for load in loads):,.0f}", times


def run(options: Options) -> str:
    rows: list[tuple[str, ...]] = []
    for engine in ENGINES:
        with stores_of(engine) as stores:
            progress(f"{engine}: room of {options.sizes.room:,} messages")
            rows += room(engine, stores.new(), options.sizes.room)
    headings = ("engine", "table or index", "MB", "bytes a message", "share")
    threads = options.sizes.room // MESSAGES_A_THREAD
    said = f"{options.sizes.room:,} messages of `seed` in {threads:,} threads:"
    return f"{said}\n\n{table(headings, rows)}\n\n{two_services(options)}"
