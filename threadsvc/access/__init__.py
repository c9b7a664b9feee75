"""Who may do what: hosts, origins, sizes, and the middleware that only people (not API clients) need."""

from collections.abc import Mapping
from typing import Any

# The contract: bodies of these are not read, whatever they are.
BODILESS_METHODS = ("GET", "HEAD", "DELETE")


def is_unmeasured(meta: Mapping[str, Any]) -> bool:
    """Whether a request has a body of which nobody said how long it is (a chunked one)."""
    return "CONTENT_LENGTH" not in meta and "HTTP_TRANSFER_ENCODING" in meta
