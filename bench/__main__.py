"""Measure the service and a yardstick, and print the results as Markdown (docs/performance.md).

Exits with 1 if a response is wrong or a message is lost. A missed target is marked, but does not change the exit
status. The stores are in the directory for temporary files (TMPDIR), so the run measures the disk of that directory.
"""

import argparse
import importlib
import importlib.util
import signal
import sys
from pathlib import Path

from bench import cpu, growth, machine, memory, ratios, scaling, starting
from bench.load import require_wrk
from bench.operations import WrongResult
from bench.options import QUICK, Options, Sizes, progress
from bench.running import WORKER_CLASSES
from bench.tables import at_least, at_most, table
from tests.engines import ENGINES
from tests.servers import Unavailable


def commands(options: Options) -> str:
    """Return the table of bench/commands.py, or a note if that file is missing."""
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
        "above idle",
        "target",
    )
    rows = [
        (
            *(row.command, f"{row.messages:,}", f"{row.rate:,.0f}", at_least(row.target, row.rate)),
            *(f"{row.seconds:.1f}", f"{row.cpu_seconds:.1f}", f"{row.peak_mb:.1f}", f"{row.mb_above_idle:.1f} MB"),
            at_most(bench.MAX_MB_ABOVE_IDLE, row.mb_above_idle),
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
    "scaling": ("Disk space, and two services over one PostgreSQL", scaling.run),
}


def options_from(arguments: argparse.Namespace) -> Options:
    return Options(
        engines=arguments.engine or list(ENGINES),
        seconds=1 if arguments.quick else arguments.seconds,
        rounds=arguments.rounds,
        yardstick_server=arguments.yardstick_server,
        stores=arguments.stores,
        sizes=QUICK if arguments.quick else Sizes(),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # If no part is given, argparse requires that the choices contain the empty list.
    help_of_parts = f"{', '.join(PARTS)} (default: all)"
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=help_of_parts)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated (default: all)")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="loads per server (default: %(default)s)")
    tiny = "use tiny sizes, only to check that the program runs (the figures are meaningless)"
    parser.add_argument("--quick", action="store_true", help=tiny)
    parser.add_argument(
        "--yardstick-server", choices=WORKER_CLASSES, default="ours", help="stock: gunicorn's worker with threads"
    )
    parser.add_argument("--stores", type=Path, help="directory that keeps the large SQLite store for the next run")
    return parser.parse_args()


def main() -> int:
    # SIGTERM stops the run and the processes that it started, like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parse_arguments()
    options = options_from(arguments)
    try:
        require_wrk()
        print(machine.describe(), flush=True)
        for part in arguments.parts or PARTS:
            heading, run = PARTS[part]
            print(f"\n## {heading}\n\n{run(options)}", flush=True)
    except (WrongResult, Unavailable) as error:
        progress(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        progress("bench: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
