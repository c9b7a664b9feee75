"""A postgresql:// URL -> a Django DATABASES entry with a pool of connections and time-outs."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

MAX_STATEMENT_SECONDS = 3600

# How long a server may leave us without any sign of life before it counts as away.
UNRESPONSIVE_SECONDS = 2

# How long a request may wait for a connection: so short that two, one after the other, have their 503 in two seconds.
POOL_SECONDS = 0.9

LIBPQ_OPTIONS = {
    "application_name": "threadsvc",
    "connect_timeout": UNRESPONSIVE_SECONDS,
    # Of a machine that is gone TCP itself would say so after a quarter of an hour.
    "tcp_user_timeout": UNRESPONSIVE_SECONDS * 1000,
    "keepalives_idle": 30,
    "keepalives_interval": UNRESPONSIVE_SECONDS,
}

# After so many runs on a connection the server keeps the plan of a statement whose values come apart from it. Those are
# the few of which `fetch_all` is asked; Django's own have their values in them.
RUNS_BEFORE_PREPARED = 3

# Purging is done by a thread of its own, besides those of requests.
PURGERS = 1

# What the URL has another place for, and what Django sets.
NOT_OPTIONS = {"dbname", "user", "password", "port", "client_encoding", "replication"}


def postgresql_entry(
    setting: str, parsed: dict[str, Any], options: dict[str, Any], seconds: float, threads: int
) -> dict[str, Any]:
    """The entry for what `dj_database_url` has read, with the options that the URL gives.

    `seconds` is how long a statement may take, waits for locks included; what takes longer is undone and answers 503.
    `threads` is how many requests a process works on at a time. Raises ImproperlyConfigured.
    """
    try:
        import psycopg

        from threadsvc.engines.postgresql.pool import pool_options
    except ImportError as error:
        raise ImproperlyConfigured(f"{setting}: PostgreSQL needs psycopg[binary,pool] (requirements.txt)") from error
    if not 0 < seconds <= MAX_STATEMENT_SECONDS:
        raise ImproperlyConfigured(
            f"{setting}: ?timeout=SECONDS of postgresql:// takes more than 0 and up to {MAX_STATEMENT_SECONDS}"
        )
    prepared = str(options.pop("prepared_statements", 1))  # a number, where it was one
    if prepared not in ("0", "1"):
        raise ImproperlyConfigured(f"{setting}: ?prepared_statements= of postgresql:// takes 0 or 1")
    known = {keyword.keyword.decode() for keyword in psycopg.pq.Conninfo.get_defaults()} - NOT_OPTIONS
    for option, value in options.items():
        if option not in known or isinstance(value, list):
            there_are = "there are timeout, prepared_statements and libpq's own"
            raise ImproperlyConfigured(
                f"{setting}: {option!r} is no option of postgresql://, or given twice; {there_are}"
            )
    # A transaction that is not ended keeps its locks; nothing of ours thinks for that long in one.
    limits = f"-c statement_timeout={seconds * 1000:.0f} -c idle_in_transaction_session_timeout={seconds * 2000:.0f}"
    return {
        **parsed,
        "ENGINE": "threadsvc.engines.postgresql",
        "CONN_MAX_AGE": 0,  # after each request a connection goes back to the pool
        "OPTIONS": {
            **LIBPQ_OPTIONS,
            "prepare_threshold": RUNS_BEFORE_PREPARED if prepared == "1" else None,
            **options,
            "options": f"{limits} {options.get('options', '')}".strip(),  # of two that are the same the later counts
            "pool": pool_options(threads + PURGERS, POOL_SECONDS),
        },
    }
