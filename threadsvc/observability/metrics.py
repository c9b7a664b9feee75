"""The metrics of a worker. Imported only if THREADSVC_METRICS_PORT is set, because the import opens files.

Each worker writes its own files. threadsvc/observability/exporter.py exposes the sums.
"""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from django.db import connections
from django.db.backends.utils import CursorWrapper
from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("threadsvc_http_requests_total", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "threadsvc_http_request_duration_seconds",
    "From when a thread takes a request up to its answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_PROGRESS = Gauge(
    "threadsvc_http_requests_in_progress", "Requests that are being answered.", multiprocess_mode="livesum"
)
ERRORS = Counter("threadsvc_errors_total", "Answers of 500 and above, by what they mean.", ["kind"])
DATABASE_SECONDS = Histogram(
    "threadsvc_database_duration_seconds",
    "What a database was asked for, waiting included.",
    ["database", "operation"],
    buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
)

KINDS = {503: "database_unavailable", 507: "disk_full"}
FAULT = "fault"


def prepare() -> None:
    """Initialize the metrics, once, in the process that forks the workers."""
    for kind in (*KINDS.values(), FAULT):
        ERRORS.labels(kind)  # start at 0, so that an alert sees the first error as an increase
    for alias in connections:
        DATABASE_SECONDS.labels(alias, "query")
    for engine in {type(connection) for connection in connections.all()}:
        time_operations(engine)


def start_worker(directory: Path) -> None:
    """Open the worker's files when it starts, so that no request fails to open them."""
    # The directory may be missing, because systemd removes a user's files in shared memory when the user logs out.
    directory.mkdir(mode=0o700, exist_ok=True)
    IN_PROGRESS.inc(0)


def count_response(method: str, route: str, status: int, seconds: float) -> None:
    """Count and time a response."""
    REQUESTS.labels(method, route, status).inc()
    REQUEST_SECONDS.labels(method, route).observe(seconds)
    if status >= 500:
        ERRORS.labels(KINDS.get(status, FAULT)).inc()


def time_operations(engine: Any) -> None:
    """Make the connections of an engine measure the time of their `timed_methods` and cursors."""
    for name, operation in engine.timed_methods.items():
        setattr(engine, name, timed(getattr(engine, name), operation))
    engine.make_cursor = lambda connection, cursor: TimedCursor(cursor, connection)


class TimedCursor(CursorWrapper):
    """Measures the time of statements.

    Does not use an `execute_wrapper`: if one is installed, `fetch_all` no longer skips Django's cursor.
    """

    def _execute(self, *arguments: Any) -> Any:
        return observed(self.db, "query", super()._execute, *arguments)  # type: ignore[misc]  # not in the stubs

    def _executemany(self, *arguments: Any) -> Any:
        return observed(self.db, "query", super()._executemany, *arguments)  # type: ignore[misc]  # not in the stubs


def timed(method: Callable[..., Any], operation: str) -> Callable[..., Any]:
    @wraps(method)
    def call(connection: Any, *arguments: Any) -> Any:
        return observed(connection, operation, method, connection, *arguments)

    return call


def observed(connection: Any, operation: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function and measure its time.

    If it runs inside another timed operation, only that operation is measured. For example, BEGIN runs inside "begin".
    """
    if connection.is_timed:
        return function(*arguments)
    connection.is_timed = True
    started = time.perf_counter()
    try:
        return function(*arguments)
    finally:
        connection.is_timed = False
        DATABASE_SECONDS.labels(connection.alias, operation).observe(time.perf_counter() - started)
