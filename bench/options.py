"""The options of a run, and its progress output."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Growth(NamedTuple):
    """The size of a store. `long` is the number of messages in one additional, long thread."""

    threads: int
    messages: int
    long: int


SMALL, LARGE = Growth(100, 1_000, 1_000), Growth(100_000, 900_000, 100_000)


@dataclass(frozen=True)
class Sizes:
    """The sizes of the stores and loads of all parts."""

    threads: int = 1_000
    messages: int = 30_000
    block: int = 300  # requests per block, in process
    blocks: int = 15
    small: Growth = SMALL
    large: Growth = LARGE
    memory: tuple[int, ...] = (20_000, 200_000)  # numbers of requests after which the worker is measured
    starts: int = 5
    commands: int = 1_000_000  # messages that the commands process
    space: int = 200_000  # messages whose disk space is measured
    written: int = 250  # messages that each writer adds to the same thread


QUICK = Sizes(
    threads=60,
    messages=1_800,
    block=20,
    blocks=3,
    small=Growth(10, 100, 100),
    large=Growth(100, 900, 1_000),
    memory=(200, 1_000),
    starts=1,
    commands=1_000,
    space=2_000,
    written=20,
)


@dataclass(frozen=True)
class Options:
    engines: list[str]
    seconds: float = 5  # length of each load
    rounds: int = 3
    yardstick_server: str = "ours"
    stores: Path | None = None
    sizes: Sizes = field(default_factory=Sizes)

    def block(self, engine: str) -> int:
        """Return the number of requests per block. On MongoDB it is at most 30, because the test server is slow."""
        return min(self.sizes.block, 30) if engine == "mongodb" else self.sizes.block

    def seeded(self, engine: str) -> tuple[int, int]:
        """Return the initial number of threads and of messages in a store.

        mongo-java-server scans all messages to find the messages of one thread. In a large store, the run would measure
        only this scan, so stores on MongoDB are small.
        """
        limits = (100, 3_000) if engine == "mongodb" else (self.sizes.threads, self.sizes.messages)
        return min(self.sizes.threads, limits[0]), min(self.sizes.messages, limits[1])


def progress(text: str) -> None:
    """Print a progress line to stderr. Stdout contains only the results."""
    print(text, file=sys.stderr, flush=True)
