"""Converts a postgresql:// URL to a DATABASES entry with a pool of connections and time-outs."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

MAX_STATEMENT_SECONDS = 3600

# How long a server may send nothing, not even a TCP acknowledgement, before it counts as down.
UNRESPONSIVE_SECONDS = 2

# How long a request may wait for a connection. A request may need two connections, and must get its 503 within two
# seconds.
POOL_SECONDS = 0.9

LIBPQ_OPTIONS = {
    "application_name": "threadsvc",
    "connect_timeout": UNRESPONSIVE_SECONDS,
    # TCP itself reports an unreachable machine only after a quarter of an hour.
    "tcp_user_timeout": UNRESPONSIVE_SECONDS * 1000,
    "keepalives_idle": 30,
    "keepalives_interval": UNRESPONSIVE_SECONDS,
}

# The number of executions on a connection after which psycopg prepares a statement. Only `fetch_all` passes the
# values separately, so only its statements repeat with the same text. Django's cursors insert the values into the SQL.
RUNS_BEFORE_PREPARED = 3

# The purge thread needs a connection in addition to the connections of requests.
PURGERS = 1

# Options that belong in another part of the URL, and options that Django sets.
NOT_OPTIONS = {"dbname", "user", "password", "port", "client_encoding", "replication"}


def postgresql_entry(
    setting: str, parsed: dict[str, Any], options: dict[str, Any], seconds: float, threads: int
) -> dict[str, Any]:
    """Return the entry for the output of `dj_database_url` and the options of the URL.

    `seconds` is the time-out of a statement, including its waits for locks. After this time, the request is rolled back
    and gets 503. `threads` is the number of requests that a process handles at a time. Raises ImproperlyConfigured.
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
    prepared = str(options.pop("prepared_statements", 1))  # dj_database_url returns numbers as int
    if prepared not in ("0", "1"):
        raise ImproperlyConfigured(f"{setting}: ?prepared_statements= of postgresql:// takes 0 or 1")
    known = {keyword.keyword.decode() for keyword in psycopg.pq.Conninfo.get_defaults()} - NOT_OPTIONS
    for option, value in options.items():
        if option not in known or isinstance(value, list):
            there_are = "there are timeout, prepared_statements and libpq's own"
            raise ImproperlyConfigured(
                f"{setting}: {option!r} is no option of postgresql://, or given twice; {there_are}"
            )
    # The server ends a transaction that is idle for twice the statement time-out, because it would keep its locks.
    # Transactions of the service are never idle for so long.
    limits = f"-c statement_timeout={seconds * 1000:.0f} -c idle_in_transaction_session_timeout={seconds * 2000:.0f}"
    return {
        **parsed,
        "ENGINE": "threadsvc.engines.postgresql",
        "CONN_MAX_AGE": 0,  # return each connection to the pool after the request
        "OPTIONS": {
            **LIBPQ_OPTIONS,
            "prepare_threshold": RUNS_BEFORE_PREPARED if prepared == "1" else None,
            **options,
            # If an option is set twice, the last value counts, so the options in the URL override the limits.
            "options": f"{limits} {options.get('options', '')}".strip(),
            "pool": pool_options(threads + PURGERS, POOL_SECONDS),
        },
    }
