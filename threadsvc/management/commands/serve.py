"""`manage.py serve`: migrates the databases and serves, with settings from the environment (docs/settings.md)."""

import ipaddress
import resource
import socket
import sys
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command
from django.db import DatabaseError, connections
from django.utils.module_loading import import_string
from gunicorn import glogging
from gunicorn.app.base import BaseApplication
from gunicorn.http import message, parser

from threadsvc import __version__
from threadsvc.checks import url_setting
from threadsvc.engines.base import error_reason
from threadsvc.management import expected_tables
from threadsvc.observability import exporter
from threadsvc.observability.logs import log_what_python_prints

# In bytes. gunicorn's option allows at most 8190, which is too little for a URL of 8 KiB, or 0 for no limit. Without a
# limit, one client could fill the memory. The assignment to gunicorn's constant below therefore raises the maximum.
MAX_REQUEST_LINE = 65536
MAX_OPEN_FILES = 65536
message.MAX_REQUEST_LINE = MAX_REQUEST_LINE


class ServerLog(glogging.Logger):
    """Writes gunicorn's own events to our log.

    Leaves out the parts of requests that gunicorn quotes: paths, queries, and headers that contain keys.
    """

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        self._access_log_enabled = False  # threadsvc.observability.requests logs each response

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from "):
            msg, args = "%s: %s", (msg.partition(": ")[0], type(sys.exc_info()[1]).__name__)
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Error handling request"):
            msg, args = "Error handling request", ()
        super().exception(msg, *args, **kwargs)


class Server(BaseApplication):
    """gunicorn, configured with Django's settings instead of its own files and options."""

    def __init__(self, metrics: exporter.Started | None) -> None:
        self.metrics = metrics
        super().__init__()

    def load_config(self) -> None:
        # The service may refuse a request before it reads the body. If it then closed the connection, a client that is
        # still sending, such as a proxy, would miss the response. Therefore gunicorn reads and discards the body, for
        # at most five seconds.
        parser._DRAIN_MAX_BYTES = settings.MAX_THREAD_BODY_BYTES
        options = {
            "bind": [f"{bracketed(settings.HOST)}:{settings.PORT}"],
            "workers": settings.WEB_CONCURRENCY,
            "worker_class": "threadsvc.worker.Worker",
            "threads": settings.THREADS_PER_WORKER,
            "post_worker_init": lambda worker: import_string(settings.ON_WORKER_START)(),
            "graceful_timeout": settings.SHUTDOWN_SECONDS,
            # Workers are forked from a process that has loaded everything, so they start fast and share memory.
            "preload_app": True,
            "limit_request_line": MAX_REQUEST_LINE,
            "logger_class": ServerLog,
            # Ignore headers for the scheme and the path, because any client on this machine could send them.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            # gunicorn's control socket, in the home directory, accepts commands. The service does not use it.
            "control_socket_disable": True,
        }
        if self.metrics:
            options |= metrics_hooks(self.metrics)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from threadsvc import urls  # noqa: F401  # loaded once, before the workers are forked from this process
        from threadsvc.wsgi import application

        return application


def missing_tables(alias: str) -> list[str]:
    """Return the tables that this database should have but does not have.

    Tables can be missing even after `migrate`, because Django records a migration as applied even if a router skips its
    operations. For example, this happens if THREADS_DATABASE_URL changes later.
    """
    there = connections[alias].introspection.table_names()
    return [table for table in expected_tables(alias) if table not in there]


class Command(BaseCommand):
    help = "Migrates the databases and serves the API, its documentation and the admin until SIGTERM or SIGINT."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--anonymous-on-loopback",
            action="store_true",
            help="do not require API keys if HOST is a loopback address, no proxy is configured, and "
            "THREADSVC_ALLOW_ANONYMOUS is not set",
        )

    def handle(self, *args: Any, anonymous_on_loopback: bool, **options: Any) -> None:
        check_address(settings.HOST, settings.PORT)
        if settings.TLS and not settings.TRUSTED_PROXIES:
            raise CommandError(
                "THREADSVC_TLS=1 needs THREADSVC_TRUSTED_PROXIES, the address of the proxy that terminates TLS"
            )
        if anonymous_on_loopback and not settings.ANONYMOUS_IS_DECIDED:
            # Behind a proxy, requests to a loopback address can also come from other machines.
            is_behind_proxy = settings.TLS or settings.TRUSTED_PROXIES
            settings.ALLOW_ANONYMOUS = is_loopback(settings.HOST) and not is_behind_proxy
        for alias in settings.DATABASES:
            name = url_setting(alias)
            try:
                call_command("migrate", database=alias, verbosity=0, interactive=False)
                missing = missing_tables(alias)
            except (DatabaseError, OSError) as error:
                raise CommandError(f"cannot use the database of {name}: {error_reason(error)}") from error
            if missing:
                raise CommandError(
                    f"the database of {name} has no table {missing[0]}, although its migrations are recorded as "
                    "applied. Did THREADS_DATABASE_URL change?"
                )
        close_connections()
        raise_limit_of_files()
        metrics = start_metrics()
        self.stdout.write(banner())
        self.stdout.flush()  # otherwise each worker would inherit the buffered output and print it again
        log_what_python_prints()
        Server(metrics).run()


def start_metrics() -> exporter.Started | None:
    """Start the process that exposes metrics, or return None if no port is set. Raises CommandError."""
    if not settings.METRICS_PORT:
        return None
    try:
        return exporter.start(settings.METRICS_PORT, settings.DATA_DIR)
    except OSError as error:
        where = f"{exporter.METRICS_HOST} port {settings.METRICS_PORT}"
        reason = error.strerror or str(error)
        raise CommandError(
            f"cannot serve metrics on {where}: {reason}. Set THREADSVC_METRICS_PORT to another port."
        ) from error


def metrics_hooks(metrics: exporter.Started) -> dict[str, Any]:
    """Return gunicorn hooks that update the metrics when a worker starts or ends, and when the service ends."""
    from prometheus_client.multiprocess import mark_process_dead

    from threadsvc.observability.metrics import start_worker

    return {
        "post_fork": lambda server, worker: start_worker(metrics.directory),
        "child_exit": lambda server, worker: mark_process_dead(worker.pid),
        "on_exit": lambda server: metrics.end(),
    }


def raise_limit_of_files() -> None:
    """Raise the limit of open files as far as allowed.

    Each connection is an open file, and a worker that reaches the limit cannot accept more connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def close_connections() -> None:
    """Close all connections and pools before workers are forked.

    A child must not share a connection, and it does not have the threads of a pool.
    """
    connections.close_all()
    connection: Any
    for connection in connections.all():
        connection.close_pool()


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def check_address(host: str, port: int) -> None:
    """Raise CommandError if the service cannot listen on this address.

    Without this check, gunicorn would retry for five seconds and log each attempt.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"{host} port {port}"
            raise CommandError(f"cannot listen on {where}: {reason}. Set HOST or PORT to another address.") from error


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def banner() -> str:
    # A browser cannot open 0.0.0.0 or ::, which mean all interfaces, so the banner shows the loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.HOST, settings.HOST)
    at = f"http://{bracketed(host)}:{settings.PORT}"
    lines = [
        f"threadsvc {__version__}",
        f"  Start here  {at}/",
        f"  API         {at}/v1/threads",
        f"  API docs    {at}/docs  and  {at}/redoc",
        f"  Admin       {at}/admin/",
        "  Admin user  .venv/bin/python manage.py createsuperuser",
        f"  Data        {settings.DATA_DIR}",
    ]
    if settings.METRICS_PORT:
        lines.insert(-1, f"  Metrics     http://{exporter.METRICS_HOST}:{settings.METRICS_PORT}/metrics")
    if settings.ALLOW_ANONYMOUS:
        why = "THREADSVC_ALLOW_ANONYMOUS is 1" if settings.ANONYMOUS_IS_DECIDED else "HOST is a loopback address"
        lines += [
            f"  API keys    not required ({why}): any client that reaches this address",
            "              can read and write everything in the tenant default",
        ]
    else:
        lines.append("  API keys    required; create one: .venv/bin/python manage.py create_api_key NAME")
    return "\n".join(lines)
