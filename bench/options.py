"""What a run is asked to do, and how far it is."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Growth(NamedTuple):
    """A store to compare: threads with messages of everyday number, and one long thread beside them."""

    threads: int
    messages: int
    long: int


SMALL, LARGE = Growth(100, 1_000, 1_000), Growth(100_000, 900_000, 100_000)


@dataclass(frozen=True)
class Sizes:
    """How much each part does."""

    threads: int = 1_000
    messages: int = 30_000
    block: int = 300  # requests in process before somebody else's turn
    blocks: int = 15
    small: Growth = SMALL
    large: Growth = LARGE
    memory: tuple[int, ...] = (20_000, 200_000)  # requests after which a worker is looked at
    starts: int = 5
    commands: int = 1_000_000  # messages that the commands move
    room: int = 200_000  # messages whose room is measured
    written: int = 250  # messages of each writer to one thread


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
    room=2_000,
    written=20,
)


@dataclass(frozen=True)
class Options:
    engines: list[str]
    seconds: float = 5  # of load a turn
    rounds: int = 3
    yardstick_server: str = "ours"
    stores: Path | None = None
    sizes: Sizes = field(default_factory=Sizes)

    def block(self, engine: str) -> int:
        """How many requests in process are one block; few, where a server answers slowly."""
        return min(self.sizes.block, 30) if engine == "mongodb" else self.sizes.block

    def seeded(self, engine: str) -> tuple[int, int]:
        """How many threads and messages are in a store to begin with.

        The server that stands in for MongoDB looks through all messages for those of a thread: it gets few, or it would
        measure that alone.
        """
        at_most = (100, 3_000) if engine == "mongodb" else (self.sizes.threads, self.sizes.messages)
        return min(self.sizes.threads, at_most[0]), min(self.sizes.messages, at_most[1])


def progress(text: str) -> None:
    """On stderr: stdout is the document."""
    print(text, file=sys.stderr, flush=True)
