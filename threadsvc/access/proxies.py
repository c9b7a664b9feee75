"""Who the client is where proxies stand in front: only the named ones are believed about it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from wsgiref.types import WSGIEnvironment

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# As proxies write them in X-Forwarded-For: some add the port, and then an IPv6 address is in brackets.
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")


def believe_proxies(environ: WSGIEnvironment, trusted: Sequence[Network]) -> None:
    """Makes REMOTE_ADDR the client's address; leaves X-Forwarded-Proto where a trusted proxy sent it.

    Walks X-Forwarded-For from its right end as long as who added the next address is trusted, and stops at what is
    none. What other peers send is removed, so that nothing behind this can believe it.
    """
    said = environ.pop("HTTP_X_FORWARDED_FOR", "").split(",")
    address = parsed_peer(environ.get("REMOTE_ADDR", ""))
    if address is None:  # not a TCP peer
        environ.pop("HTTP_X_FORWARDED_PROTO", None)
        return
    if not trusted or not is_one_of(address, trusted):
        environ.pop("HTTP_X_FORWARDED_PROTO", None)
        environ["REMOTE_ADDR"] = str(address)
        return
    while said and is_one_of(address, trusted) and (before := parsed(said.pop())):
        address = before
    environ["REMOTE_ADDR"] = str(address)


def parsed(text: str) -> Address | None:
    """The address that this names, with or without a port; IPv4 in IPv6's clothes is IPv4."""
    text = text.strip(" \t")
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2] or ""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id:  # names an interface of another machine
        return None
    return address.ipv4_mapped or address


# The peers of connections: some proxies, or clients that come back.
parsed_peer = lru_cache(maxsize=4096)(parsed)


def counted_as(text: str) -> str | None:
    """What a client is counted by: its address; of IPv6 the first of its /64, all of which a single client can have.

    None for what is no address, as of a socket that has none.
    """
    address = parsed(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False).network_address)
    return str(address) if address else None


def is_one_of(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
