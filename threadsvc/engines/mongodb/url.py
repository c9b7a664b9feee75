"""Converts a mongodb:// URL to a DATABASES entry, with the write concern and time-outs that the store needs."""

import re
from typing import Any
from urllib.parse import unquote

from django.core.exceptions import ImproperlyConfigured

# In milliseconds. If the server is down, clients get 503 within two seconds. If the server is slow, a statement may
# take as long as on PostgreSQL.
TIMEOUTS = {
    "serverSelectionTimeoutMS": 800,
    "connectTimeoutMS": 1500,
    "waitQueueTimeoutMS": 1500,
    "heartbeatFrequencyMS": 2000,
    "socketTimeoutMS": 30_000,
    "wTimeoutMS": 10_000,
}

# The URL cannot change these options. A majority of the replica set acknowledges a write after journaling it, and reads
# see all acknowledged writes.
PROMISES = {"w": "majority", "journal": True}
PROMISED = {"w": "majority", "journal": "true", "j": "true", "readpreference": "primary"}

# The options that a URL may have. pymongo's other options change the types of values, or how they are read.
ALLOWED_OPTIONS = {
    *PROMISED,
    *map(str.lower, TIMEOUTS),
    *("replicaset", "directconnection", "loadbalanced", "srvservicename", "srvmaxhosts", "localthresholdms"),
    *("authsource", "authmechanism", "authmechanismproperties", "appname"),
    *("tls", "ssl", "tlscafile", "tlscertificatekeyfile", "tlscertificatekeyfilepassword", "tlscrlfile"),
    *("tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlsinsecure", "tlsdisableocspendpointcheck"),
    *("maxpoolsize", "minpoolsize", "maxidletimems", "maxconnecting", "compressors", "zlibcompressionlevel"),
    *("retrywrites", "retryreads", "servermonitoringmode"),
}

_NAME = re.compile(r"mongodb(?:\+srv)?://[^/?#]+/(?P<name>[^/?#]*)(?:\?(?P<options>[^#]*))?")
_IS_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


def mongodb_entry(setting: str, url: str) -> dict[str, Any]:
    """Return the entry for `mongodb://[user:password@]host[,host...]/name[?option=value&...]`, or `mongodb+srv://`.

    Raises ImproperlyConfigured. The message never contains the URL.
    """
    try:
        import djongo  # noqa: F401
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError
        from pymongo.uri_parser import split_options
    except ImportError as error:
        message = f"{setting}: MongoDB needs djongo5 and pymongo: pip install -r requirements.txt"
        raise ImproperlyConfigured(message) from error

    match = _NAME.fullmatch(url)
    name = unquote(match["name"]) if match else ""
    if not match or not _IS_NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"{setting}: must be mongodb://host[:port]/name, with name of A-Z, a-z, 0-9, _ and -"
        )
    names = re.findall(r"(?:^|[&;])([^=&;]+)", match["options"] or "")
    if any(name.lower() not in ALLOWED_OPTIONS for name in names) or len({*map(str.lower, names)}) < len(names):
        raise ImproperlyConfigured(f"{setting}: has an option that is none here, or one twice: {', '.join(names)}")
    try:
        options = split_options(match["options"], validate=True, warn=False) if match["options"] else {}
    except (PyMongoError, OSError, ValueError) as error:
        raise ImproperlyConfigured(f"{setting}: has an option with a wrong value: {', '.join(names)}") from error
    given = {option.lower(): str(value).lower() for option, value in options.items()}
    for option, promised in PROMISED.items():
        if given.get(option, promised) != promised:
            raise ImproperlyConfigured(
                f"{setting}: {option}={given[option]} would break promises; it is {promised} here"
            )
    timeouts = {option: value for option, value in TIMEOUTS.items() if option.lower() not in given}
    client: dict[str, Any] = {"host": url, "appname": "threadsvc", "uuidRepresentation": "standard"}
    client |= {**timeouts, **PROMISES}
    # MongoClient checks the rest of the URL without connecting. mongodb+srv:// is not checked here, because it needs
    # DNS, which may be unavailable now.
    if url.startswith("mongodb://"):
        try:
            MongoClient(connect=False, **client).close()
        except (PyMongoError, OSError, TypeError, ValueError, KeyError) as error:
            raise ImproperlyConfigured(
                f"{setting}: not a MongoDB URL that can be used (its hosts, user, password, or a file that it names)"
            ) from error
    return {"ENGINE": "threadsvc.engines.mongodb", "NAME": name, "CLIENT": client}
