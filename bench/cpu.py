"""The part `cpu`: the CPU time of a request in process, in microseconds and as a multiple of DRF's empty view.

Each application runs in its own process, without a server or sockets, and handles one request at a time. In each
round, the run sends one block of requests for each operation. Every second round has the reverse order. The figures are
medians over the blocks. CPU time includes the database driver and system calls, but not a database server.
"""

from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench.inside import InProcess, service_in_process, yardstick_in_process
from bench.operations import V2, Operation, Request, compare, sample_operations
from bench.options import Options, progress
from bench.stores import Stores, on_each_engine
from bench.tables import at_most, table

EMPTY = Operation("empty view", [Request("GET", "/empty")], "{}")

# The highest permitted multiple of the CPU time of the empty view.
TARGETS = {("sqlite", "service", "create message"): 3.4}


class Subject(NamedTuple):
    application: InProcess
    operation: str


def subjects(stack: ExitStack, stores: Stores, engine: str, options: Options) -> list[Subject]:
    """Return the subjects to measure on one engine. The empty view is the first.

    Raises WrongResult if a response is wrong.
    """
    service_store, yardstick_store = stores.new(), stores.new()
    for store in (service_store, yardstick_store):
        store.seed(*options.seeded(engine))
    key = service_store.run("manage.py", "create_api_key", "bench")
    service = stack.enter_context(service_in_process(service_store))
    keyed = stack.enter_context(service_in_process(service_store, is_keyed=True))
    yardstick = stack.enter_context(yardstick_in_process(yardstick_store))
    operations = sample_operations(service_store.contents("sample", options.seeded(engine)[0]))
    compare(service.ask, yardstick.ask, operations)
    yardstick.keep(EMPTY)
    found = [Subject(yardstick, EMPTY.name)]
    for application, headers in ((yardstick, {}), (service, {}), (keyed, {"Authorization": f"Bearer {key}"})):
        for operation in operations:
            application.keep(operation, headers)
            found.append(Subject(application, operation.name))
    in_v2 = operations[0]._replace(name="create message, v2")
    service.keep(in_v2, V2)
    return [*found, Subject(service, in_v2.name)]


def rows(engine: str, stores: Stores, options: Options) -> list[tuple[str, ...]]:
    with ExitStack() as stack:
        progress(f"{engine}: creating stores for CPU in process")
        measured = subjects(stack, stores, engine, options)
        costs: dict[Subject, list[float]] = {subject: [] for subject in measured}
        for subject in measured:
            subject.application.run(subject.operation, options.block(engine))  # warm up
        for number in range(options.sizes.blocks):
            progress(f"{engine}: CPU in process, block {number + 1}")
            for subject in measured[:: -1 if number % 2 else 1]:
                costs[subject].append(subject.application.run(subject.operation, options.block(engine)).cpu)
        empty = costs[measured[0]]
        found: list[tuple[str, ...]] = []
        for (application, operation), blocks in costs.items():
            multiple = median(cpu / of_empty for cpu, of_empty in zip(blocks, empty, strict=True))
            target = at_most(TARGETS.get((engine, application.name, operation)), multiple)
            found.append((operation, application.name, engine, f"{median(blocks):.0f}", f"{multiple:.2f}", target))
        return found


def run(options: Options) -> str:
    found = on_each_engine(rows, options.engines, options)
    return table(("operation", "of", "engine", "CPU us", "times the empty view", "target"), found)
