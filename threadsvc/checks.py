"""The checks of `manage.py check`.

`--database default --database threads` checks whether the databases are available. `--deploy` checks whether
connections to the service are encrypted.
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError, InterfaceError, connections

from threadsvc.engines.base import error_reason


def url_setting(alias: str) -> str:
    """Return the name of the setting that contains a database's URL."""
    return "THREADS_DATABASE_URL" if alias == "threads" else "DATABASE_URL"


@register(Tags.database)
def databases_answer(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each database that is not available.

    The settings report an invalid URL or a missing driver before this check runs.
    """
    problems: list[CheckMessage] = []
    for alias in databases or ():
        try:
            connections[alias].introspection.table_names()
        except (DatabaseError, InterfaceError, OSError) as error:
            problems.append(Error(f"{url_setting(alias)}: {error_reason(error)}", id="threadsvc.E001"))
    return problems


@register(Tags.security, deploy=True)
def tls_is_on(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.TLS:
        return []
    return [
        checks.Warning(
            "THREADSVC_TLS is 0: others on the network can read keys, passwords and messages in transit.",
            hint="Put a proxy with TLS in front (docs/deployment.md), and set THREADSVC_TLS=1.",
            id="threadsvc.W001",
        )
    ]
