"""The part `cpu`: CPU microseconds of one request, in process, and as multiples of what DRF's empty view costs.

One application a process, one request after the other, without server and sockets. Blocks of requests take turns, in
an order that alternates; shown are medians of the blocks. CPU is that of the whole process, the driver's and the
kernel's work for it included, and not that of a database server.
"""

from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench.inside import Inside, service_inside, yardstick_inside
from bench.operations import V2, Operation, Request, compare, of_sample
from bench.options import Options, progress
from bench.stores import Stores, on_each_engine
from bench.tables import at_most, table

EMPTY = Operation("empty view", [Request("GET", "/empty")], "{}")

# At most so many times the empty view.
TARGETS = {("sqlite", "service", "create message"): 3.4}


class Subject(NamedTuple):
    who: Inside
    what: str


def subjects(stack: ExitStack, stores: Stores, engine: str, options: Options) -> list[Subject]:
    """Everything that is measured on one engine, the empty view first. Raises Wrong where an answer is not right."""
    ours, theirs = stores.new(), stores.new()
    for store in (ours, theirs):
        store.seed(*options.seeded(engine))
    key = ours.run("manage.py", "create_api_key", "bench")
    service = stack.enter_context(service_inside(ours))
    keyed = stack.enter_context(service_inside(ours, is_keyed=True))
    yardstick = stack.enter_context(yardstick_inside(theirs))
    operations = of_sample(ours.contents("sample", options.seeded(engine)[0]))
    compare(service.ask, yardstick.ask, operations)
    yardstick.keep(EMPTY)
    found = [Subject(yardstick, EMPTY.name)]
    for who, headers in ((yardstick, {}), (service, {}), (keyed, {"Authorization": f"Bearer {key}"})):
        for operation in operations:
            who.keep(operation, headers)
            found.append(Subject(who, operation.name))
    in_v2 = operations[0]._replace(name="create message, v2")
    service.keep(in_v2, V2)
    return [*found, Subject(service, in_v2.name)]


def rows(engine: str, stores: Stores, options: Options) -> list[tuple[str, ...]]:
    with ExitStack() as stack:
        progress(f"{engine}: making stores for CPU in process")
        measured = subjects(stack, stores, engine, options)
        costs: dict[Subject, list[float]] = {subject: [] for subject in measured}
        for subject in measured:
            subject.who.run(subject.what, options.block(engine))  # warm up
        for number in range(options.sizes.blocks):
            progress(f"{engine}: CPU in process, block {number + 1}")
            for subject in measured[:: -1 if number % 2 else 1]:
                costs[subject].append(subject.who.run(subject.what, options.block(engine)).cpu)
        empty = costs[measured[0]]
        found: list[tuple[str, ...]] = []
        for (who, what), blocks in costs.items():
            multiple = median(cpu / of_empty for cpu, of_empty in zip(blocks, empty, strict=True))
            target = at_most(TARGETS.get((engine, who.name, what)), multiple)
            found.append((what, who.name, engine, f"{median(blocks):.0f}", f"{multiple:.2f}", target))
        return found


def run(options: Options) -> str:
    found = on_each_engine(rows, options.engines, options)
    return table(("operation", "of", "engine", "CPU us", "times the empty view", "target"), found)
