"""The part `http`: requests per second of the service and the yardstick under the same load.

Each round loads the service and the yardstick once. Every second round has the reverse order. The ratio is the median
of the rounds' ratios, and the other figures are medians of the rounds. The service and the yardstick have separate
stores with the same rows. The run checks each response of the warm-up. At the end, it compares the number of stored
messages with the number of acknowledged creates.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median

from bench.load import CONNECTIONS, Load, run_load
from bench.operations import Operation, WrongResult, compare, sample_operations
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
# The values of YARDSTICK_TURNS (bench/yardstick/storage.py), and the verb for each in the notes.
TURNS_ON_SQLITE = {"queue": "queue", "polling": "poll"}

# The lowest permitted ratio of the service's requests per second to the yardstick's.
TARGETS = {
    "sqlite": {"create message": 0.75, "retrieve message": 1.0, "list of 20": 1.0},
    "postgresql": {"create message": 0.6, "list of 20": 0.9},
    "mongodb": {"create message": 0.5, "list of 20": 0.5},
}


@dataclass
class Rounds:
    """The results of one operation in all rounds, by server name."""

    loads: dict[str, list[Load]] = field(default_factory=dict)

    def median(self, name: str, what: Callable[[Load], float]) -> float:
        return median(map(what, self.loads[name]))

    def ratios(self, name: str) -> list[float]:
        pairs = zip(self.loads[name], self.loads["yardstick"], strict=True)
        return [load.rate / of_yardstick.rate for load, of_yardstick in pairs]

    def times(self, name: str) -> str:
        return f"{self.median(name, lambda load: load.p50):.1f}, {self.median(name, lambda load: load.p99):.1f}"


class Ledger:
    """The permitted numbers of messages in a store, from `least` to `most`.

    The bounds differ, because the store may contain the requests that were in flight when wrk stopped.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.least = store, store.count()
        self.most = self.least

    def add(self, messages: int, in_flight: int) -> None:
        self.least += messages
        self.most += messages + in_flight

    def check(self, name: str) -> None:
        """Raise WrongResult if the number of stored messages is out of bounds. Set both bounds to this number."""
        stored = self.store.count()
        if not self.least <= stored <= self.most:
            raise WrongResult(f"{name}: {stored:,} messages are stored instead of {self.least:,} to {self.most:,}")
        self.least = self.most = stored


class Bench:
    """One engine and two stores with the same rows: one for the service and one for the yardstick."""

    def __init__(self, engine: str, stores: Stores, options: Options) -> None:
        self.engine, self.options = engine, options
        self.service_store, self.yardstick_store = stores.new(), stores.new()
        for store in (self.service_store, self.yardstick_store):
            progress(f"{engine}: seeding {options.seeded(engine)[1]:,} messages")
            store.seed(*options.seeded(engine))
        self.key = self.service_store.run("manage.py", "create_api_key", "bench")
        self.operations = sample_operations(self.service_store.contents("sample", options.seeded(engine)[0]))
        self.ledgers = {"service": Ledger(self.service_store), "yardstick": Ledger(self.yardstick_store)}

    def load(self, served: Served, operation: Operation, seconds: float, check: bool = False) -> Load:
        load = run_load(served, operation, seconds, check)
        if operation.name == "create message":
            self.ledger(served).add(load.requests, CONNECTIONS)
        return load

    def ledger(self, served: Served) -> Ledger:
        return self.ledgers["yardstick" if served.name == "yardstick" else "service"]

    def turns(self, workers: int) -> tuple[str, str]:
        """Measure both ways in which the yardstick's writers can wait for each other on SQLite.

        Return the faster way, and a note for the results.
        """
        create = self.operations[0]
        with ExitStack() as stack:
            server = self.options.yardstick_server
            both = {
                turns: stack.enter_context(yardstick(self.yardstick_store, workers, server, turns))
                for turns in TURNS_ON_SQLITE
            }
            rates: dict[str, list[float]] = {turns: [] for turns in both}
            for served in both.values():
                self.load(served, create, WARM_UP_SECONDS, check=True)
            for number in range(self.options.rounds):
                progress(f"sqlite: writers of the yardstick, {workers} worker(s), round {number + 1}")
                for turns in sorted(both, reverse=bool(number % 2)):
                    rates[turns].append(self.load(both[turns], create, self.options.seconds).rate)
        medians = {turns: median(found) for turns, found in rates.items()}
        faster = max(medians, key=lambda turns: medians[turns])
        rates_of_both = ", ".join(f"{rate:,.0f}/s if they {TURNS_ON_SQLITE[turns]}" for turns, rate in medians.items())
        count = f"{workers} worker{'s' if workers > 1 else ''}"
        return faster, f"Writers of the yardstick on SQLite, {count}: {rates_of_both}. The run used the faster."

    def rounds(self, workers: int, notes: list[str]) -> Iterator[tuple[str, Rounds]]:
        """Yield the name and the results of each operation. Append notes for the results to `notes`."""
        turns = "queue"
        if self.engine == "sqlite":
            turns, note = self.turns(workers)
            notes.append(note)
        with ExitStack() as stack:
            subjects = [
                stack.enter_context(service(self.service_store, workers)),
                stack.enter_context(service(self.service_store, workers, self.key)),
                stack.enter_context(yardstick(self.yardstick_store, workers, self.options.yardstick_server, turns)),
            ]
            self.compare(*subjects)
            for operation in self.operations:
                rounds = Rounds({served.name: [] for served in subjects})
                for served in subjects:
                    self.load(served, operation, WARM_UP_SECONDS, check=True)
                for number in range(self.options.rounds):
                    progress(f"{self.engine}: {operation.name}, {workers} worker(s), round {number + 1}")
                    for served in subjects[:: -1 if number % 2 else 1]:
                        rounds.loads[served.name].append(self.load(served, operation, self.options.seconds))
                yield operation.name, rounds
        for name, ledger in self.ledgers.items():
            ledger.check(name)

    def compare(self, anonymous: Served, keyed: Served, by_yardstick: Served) -> None:
        """Compare the first responses of the three servers.

        Raises WrongResult if they differ, or if the second server accepts a request without an API key.
        """
        request = self.operations[1].requests[0]
        if anonymous.ask(request) != keyed.ask(request):
            raise WrongResult("the service responds differently to a client with a key")
        status, _ = replace(keyed, headers={}).call(request)
        if status != 401:
            raise WrongResult(f"the service that requires keys responds {status} without a key")
        compare(anonymous.ask, by_yardstick.ask, self.operations)
        for served in (anonymous, by_yardstick):
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
    notes.append(f"`{WORKER_CLASSES[options.yardstick_server]}` served the yardstick.")
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
