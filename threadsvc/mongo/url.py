"""A mongodb:// URL -> a Django DATABASES entry, with what the promises of the store ask of the server."""

import re
from typing import Any
from urllib.parse import unquote

from django.core.exceptions import ImproperlyConfigured

# Milliseconds. A server that is away is told to clients as 503 within two seconds; one that answers, but slowly, may
# take as long as a statement may on PostgreSQL.
TIMEOUTS = {
    "serverSelectionTimeoutMS": 800,
    "connectTimeoutMS": 1500,
    "waitQueueTimeoutMS": 1500,
    "heartbeatFrequencyMS": 2000,
    "socketTimeoutMS": 30_000,
    "wTimeoutMS": 10_000,
}

# What is not for the URL to change: a write is acknowledged by most of a replica set, from its journal, and what was
# written is what is read next.
PROMISES = {"w": "majority", "journal": True}
PROMISED = {"w": "majority", "journal": "true", "j": "true", "readpreference": "primary"}

_NAME = re.compile(r"mongodb(?:\+srv)?://[^/?#]+/(?P<name>[^/?#]*)(?:\?(?P<options>[^#]*))?")
_IS_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


def mongodb_entry(setting: str, url: str) -> dict[str, Any]:
    """The entry for `mongodb://[user:password@]host[,host...]/name[?option=value&...]`, or `mongodb+srv://`.

    Raises ImproperlyConfigured, whose message never holds the URL.
    """
    try:
        import djongo  # noqa: F401
        from pymongo.errors import PyMongoError
        from pymongo.uri_parser import parse_uri, split_options
    except ImportError as error:
        message = f"{setting}: MongoDB needs djongo5 and pymongo: pip install -r requirements.txt"
        raise ImproperlyConfigured(message) from error

    match = _NAME.fullmatch(url)
    name = unquote(match["name"]) if match else ""
    if not match or not _IS_NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"{setting}: must be mongodb://host[:port]/name, with name of A-Z, a-z, 0-9, _ and -"
        )
    try:
        options = split_options(match["options"], validate=True, warn=False) if match["options"] else {}
    except (PyMongoError, ValueError) as error:
        names = ", ".join(re.findall(r"(?:^|[&;])([^=&;]+)", match["options"]))
        raise ImproperlyConfigured(
            f"{setting}: an option that pymongo does not know, or a wrong value: {names}"
        ) from error
    try:
        if url.startswith("mongodb://"):  # the hosts of mongodb+srv:// are in the DNS, which may be away for now
            parse_uri(url, warn=False)
    except (PyMongoError, ValueError) as error:
        raise ImproperlyConfigured(
            f"{setting}: not a MongoDB URL that can be read (its hosts, user or password)"
        ) from error
    given = {option.lower(): str(value).lower() for option, value in options.items()}
    for option, promised in PROMISED.items():
        if given.get(option, promised) != promised:
            raise ImproperlyConfigured(
                f"{setting}: {option}={given[option]} would break promises; it is {promised} here"
            )
    timeouts = {option: value for option, value in TIMEOUTS.items() if option.lower() not in given}
    client = {"host": url, "appname": "threadsvc", "uuidRepresentation": "standard", **timeouts, **PROMISES}
    return {"ENGINE": "threadsvc.mongo", "NAME": name, "CLIENT": client}
