"""The part `http`: requests a second of service and yardstick, which take turns under the same load.

Each round loads every one of them once, in an order that alternates; the ratio is the median of the rounds' ratios, and
so are the other figures medians of the rounds. Both work on stores that were seeded alike, each on its own; each answer
of the warm-up is looked at, and what was created is counted in the stores.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median

from bench.load import CONNECTIONS, Load, loaded
from bench.operations import Operation, Wrong, compare, of_sample
from bench.options import Options, progress
from bench.running import WORKER_CLASSES, Served, service, yardstick
from bench.stores import Store, Stores, stores_of
from bench.tables import at_least, table

WORKERS = (1, 2)
HEADINGS = (
    *("operation", "engine", "workers", "connections", "messages"),
    *("service /s", "yardstick /s", "ratio", "ratios of rounds", "target"),
    *("service p50, p99 ms", "yardstick p50, p99 ms"),
)
WARM_UP_SECONDS = 1
TURNS_ON_SQLITE = {"queue": "writers that queue", "polling": "writers that poll"}

# At least so many times the requests a second of the yardstick.
TARGETS = {
    "sqlite": {"create message": 0.75, "retrieve message": 1.0, "list of 20": 1.0},
    "postgresql": {"create message": 0.6, "list of 20": 0.9},
    "mongodb": {"create message": 0.5, "list of 20": 0.5},
}


@dataclass
class Rounds:
    """What the rounds found of one operation, by the name of who answered."""

    loads: dict[str, list[Load]] = field(default_factory=dict)

    def median(self, name: str, what: Callable[[Load], float]) -> float:
        return median(map(what, self.loads[name]))

    def ratios(self, name: str) -> list[float]:
        pairs = zip(self.loads[name], self.loads["yardstick"], strict=True)
        return [load.rate / of_yardstick.rate for load, of_yardstick in pairs]

    def times(self, name: str) -> str:
        return f"{self.median(name, lambda load: load.p50):.1f}, {self.median(name, lambda load: load.p99):.1f}"


class Ledger:
    """How many messages a store must hold: those that were acknowledged, and perhaps those under way at wrk's end."""

    def __init__(self, store: Store) -> None:
        self.store, self.least = store, store.count()
        self.most = self.least

    def add(self, messages: int, under_way: int) -> None:
        self.least += messages
        self.most += messages + under_way

    def check(self, name: str) -> None:
        """Raises Wrong where that is not so; what was under way is settled."""
        stored = self.store.count()
        if not self.least <= stored <= self.most:
            raise Wrong(f"{name}: {stored:,} messages are stored; {self.least:,} to {self.most:,} should be")
        self.least = self.most = stored


class Bench:
    """One engine: two stores that were seeded alike, and who answers from them."""

    def __init__(self, engine: str, stores: Stores, options: Options) -> None:
        self.engine, self.options = engine, options
        self.ours, self.theirs = stores.new(), stores.new()
        for store in (self.ours, self.theirs):
            progress(f"{engine}: seeding {options.seeded(engine)[1]:,} messages")
            store.seed(*options.seeded(engine))
        self.key = self.ours.run("manage.py", "create_api_key", "bench")
        self.operations = of_sample(self.ours.contents("sample", options.seeded(engine)[0]))
        self.ledgers = {"service": Ledger(self.ours), "yardstick": Ledger(self.theirs)}

    def load(self, served: Served, operation: Operation, seconds: float, look: bool = False) -> Load:
        load = loaded(served, operation, seconds, look)
        if operation.name == "create message":
            self.ledger(served).add(load.requests, CONNECTIONS)
        return load

    def ledger(self, served: Served) -> Ledger:
        return self.ledgers["yardstick" if served.name == "yardstick" else "service"]

    def turns(self, workers: int) -> tuple[str, str]:
        """How the yardstick's writers wait for each other on SQLite: what is faster; and what to say of it."""
        create = self.operations[0]
        with ExitStack() as stack:
            server = self.options.yardstick_server
            both = {
                turns: stack.enter_context(yardstick(self.theirs, workers, server, turns)) for turns in TURNS_ON_SQLITE
            }
            rates: dict[str, list[float]] = {turns: [] for turns in both}
            for served in both.values():
                self.load(served, create, WARM_UP_SECONDS, look=True)
            for number in range(self.options.rounds):
                progress(f"sqlite: how the yardstick's writers wait, {workers} worker(s), round {number + 1}")
                for turns in sorted(both, reverse=bool(number % 2)):
                    rates[turns].append(self.load(both[turns], create, self.options.seconds).rate)
        medians = {turns: median(found) for turns, found in rates.items()}
        taken = max(medians, key=lambda turns: medians[turns])
        said = ", ".join(f"{TURNS_ON_SQLITE[turns]} {rate:,.0f}/s" for turns, rate in medians.items())
        return taken, f"Yardstick on SQLite, {workers} worker(s): {said}. The faster is taken."

    def rounds(self, workers: int, notes: list[str]) -> Iterator[tuple[str, Rounds]]:
        """What was found of each operation."""
        turns = "queue"
        if self.engine == "sqlite":
            turns, said = self.turns(workers)
            notes.append(said)
        with ExitStack() as stack:
            everybody = [
                stack.enter_context(service(self.ours, workers)),
                stack.enter_context(service(self.ours, workers, self.key)),
                stack.enter_context(yardstick(self.theirs, workers, self.options.yardstick_server, turns)),
            ]
            self.compare(*everybody)
            for operation in self.operations:
                rounds = Rounds({served.name: [] for served in everybody})
                for served in everybody:
                    self.load(served, operation, WARM_UP_SECONDS, look=True)
                for number in range(self.options.rounds):
                    progress(f"{self.engine}: {operation.name}, {workers} worker(s), round {number + 1}")
                    for served in everybody[:: -1 if number % 2 else 1]:
                        rounds.loads[served.name].append(self.load(served, operation, self.options.seconds))
                yield operation.name, rounds
        for name, ledger in self.ledgers.items():
            ledger.check(name)

    def compare(self, anonymous: Served, keyed: Served, theirs: Served) -> None:
        """Looks at the first answers. Raises Wrong where they differ, or the key is none that is needed."""
        request = self.operations[1].requests[0]
        if anonymous.ask(request) != keyed.ask(request):
            raise Wrong("the service answers otherwise to who has a key")
        status, _ = replace(keyed, headers={}).call(request)
        if status != 401:
            raise Wrong(f"the service that requires keys answers {status} without one")
        compare(anonymous.ask, theirs.ask, self.operations)
        for served in (anonymous, theirs):
            self.ledger(served).add(1, 0)


def run(options: Options) -> str:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for engine in options.engines:
        with stores_of(engine) as stores:
            bench = Bench(engine, stores, options)
            for workers in WORKERS:
                for operation, rounds in bench.rounds(workers, notes):
                    for name in ("service", "service with API key"):
                        rows.append(row(engine, workers, options, operation, name, rounds))
    notes.append(f"The yardstick is served by {WORKER_CLASSES[options.yardstick_server]}.")
    return "\n".join([table(HEADINGS, rows), "", *(f"- {note}" for note in notes)])


def row(engine: str, workers: int, options: Options, operation: str, name: str, rounds: Rounds) -> tuple[str, ...]:
    ratios = rounds.ratios(name)
    is_anonymous = name == "service"
    target = TARGETS[engine].get(operation) if is_anonymous else None
    return (
        operation if is_anonymous else f"{operation}, API key",
        engine,
        str(workers),
        str(CONNECTIONS),
        f"{options.seeded(engine)[1]:,}",
        f"{rounds.median(name, lambda load: load.rate):,.0f}",
        f"{rounds.median('yardstick', lambda load: load.rate):,.0f}",
        f"{median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        at_least(target, median(ratios)),
        rounds.times(name),
        rounds.times("yardstick"),
    )
