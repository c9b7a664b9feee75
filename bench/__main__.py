"""`python -m bench [PART ...]`: how fast the service is beside a yardstick, as Markdown (docs/performance.md).

Ends with 1 where something answered wrongly or was lost; a target that is missed is only marked. What is stored goes to
the system's directory for temporary files (TMPDIR): that disk is the one that is measured.
"""

import argparse
import importlib
import importlib.util
import signal
import sys
from pathlib import Path

from bench import cpu, growth, machine, memory, ratios, scaling, starting
from bench.load import require_wrk
from bench.operations import Wrong
from bench.options import QUICK, Options, Sizes, progress
from bench.running import WORKER_CLASSES
from bench.tables import at_least, at_most, table
from tests.engines import ENGINES
from tests.servers import Unavailable


def commands(options: Options) -> str:
    """What bench/commands.py finds, which is loaded here alone."""
    if importlib.util.find_spec("bench.commands") is None:
        return "Not measured: there is no bench/commands.py."
    bench = importlib.import_module("bench.commands")
    headings = (
        "command",
        "messages",
        "messages/s",
        "target",
        "seconds",
        "CPU s",
        "peak MB",
        "more than idle",
        "target",
    )
    rows = [
        (
            *(row.command, f"{row.messages:,}", f"{row.rate:,.0f}", at_least(row.target, row.rate)),
            *(f"{row.seconds:.1f}", f"{row.cpu_seconds:.1f}", f"{row.peak_mb:.1f}", f"{row.beyond_idle_mb:.1f} MB"),
            at_most(bench.MB_BEYOND_IDLE, row.beyond_idle_mb),
        )
        for row in bench.measured(options.sizes.commands)
    ]
    return table(headings, rows)


PARTS = {
    "http": ("Requests a second", ratios.run),
    "cpu": ("CPU of a request, in process", cpu.run),
    "growth": ("Small and large stores", growth.run),
    "memory": ("Memory of a worker", memory.run),
    "start": ("Start", starting.run),
    "commands": ("Commands", commands),
    "scaling": ("Room, and two services", scaling.run),
}


def options_of(arguments: argparse.Namespace) -> Options:
    return Options(
        engines=arguments.engine or list(ENGINES),
        seconds=1 if arguments.quick else arguments.seconds,
        rounds=arguments.rounds,
        yardstick_server=arguments.yardstick_server,
        stores=arguments.stores,
        sizes=QUICK if arguments.quick else Sizes(),
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # argparse looks for what no part at all is, an empty list, among the choices.
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; or all")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be given again; without it, all")
    parser.add_argument("--seconds", type=float, default=5, help="of load each turn (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each one gets (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs: figures say nothing")
    parser.add_argument(
        "--yardstick-server", choices=WORKER_CLASSES, default="ours", help="stock: gunicorn's own worker with threads"
    )
    parser.add_argument("--stores", type=Path, help="a directory that keeps the large SQLite store for the next run")
    return parser.parse_args()


def main() -> int:
    # As Ctrl-C does, SIGTERM ends this and what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parsed()
    options = options_of(arguments)
    try:
        require_wrk()
        print(machine.described(), flush=True)
        for part in arguments.parts or PARTS:
            heading, run = PARTS[part]
            print(f"\n## {heading}\n\n{run(options)}", flush=True)
    except (Wrong, Unavailable) as error:
        progress(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        progress("bench: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
