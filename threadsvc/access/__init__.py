"""Who may do what: API keys, rates, hosts, origins, sizes, proxies, log-ins; and middleware for people alone."""

from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

from django.http.request import UnreadablePostError

# Whose threads a request without a key is about: the domain's word for it.
DEFAULT_TENANT = "default"

# The contract: bodies of these are not read, whatever they are.
BODILESS_METHODS = ("GET", "HEAD", "DELETE")


def is_unmeasured(meta: Mapping[str, Any]) -> bool:
    """Whether a request has a body of which nobody said how long it is (a chunked one)."""
    return "CONTENT_LENGTH" not in meta and "HTTP_TRANSFER_ENCODING" in meta


def measure(request: Any, limit: int) -> None:
    """Reads a body that came without a length, so that Django, which takes such a body for an empty one, sees it all.

    Reads no more than one byte over `limit`: that is enough for the 413. Where the server does not promise that the
    input ends with the body, nothing is read, and it stays unmeasured. Raises UnreadablePostError.
    """
    if not request.META.get("wsgi.input_terminated"):
        return
    try:
        body = read_up_to(request.META["wsgi.input"], limit + 1)
    except Exception as error:  # of the server's own kinds: chunks that are none, a client that went away
        raise UnreadablePostError(*error.args) from error
    request._stream = BytesIO(body)
    request.META["CONTENT_LENGTH"] = str(len(body))


def read_up_to(stream: IO[bytes], limit: int) -> bytes:
    pieces, missing = [], limit
    while missing and (piece := stream.read(min(missing, 65536))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
