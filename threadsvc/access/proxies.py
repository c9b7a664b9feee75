"""Determines the client's address behind proxies. Only trusted proxies may forward it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from wsgiref.types import WSGIEnvironment

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Some proxies add a port to the address in X-Forwarded-For, and put an IPv6 address in brackets.
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")


def believe_proxies(environ: WSGIEnvironment, trusted: Sequence[Network]) -> None:
    """Set REMOTE_ADDR to the client's address, and remove forwarding headers of untrusted peers.

    Reads X-Forwarded-For from the right while the address is a trusted proxy, and stops at an invalid address. Keeps
    X-Forwarded-Proto if the peer is a trusted proxy.
    """
    said = environ.pop("HTTP_X_FORWARDED_FOR", "").split(",")
    address = parsed_peer(environ.get("REMOTE_ADDR", ""))
    if address is None or not is_one_of(address, trusted):
        environ.pop("HTTP_X_FORWARDED_PROTO", None)
    if address is None:  # the peer has no IP address, for example on a Unix socket
        return
    while said and is_one_of(address, trusted) and (before := parsed(said.pop())):
        address = before
    environ["REMOTE_ADDR"] = str(address)


def parsed(text: str) -> Address | None:
    """Parse an address with or without a port. Returns None if it is not valid.

    An IPv4-mapped IPv6 address is returned as IPv4.
    """
    text = text.strip(" \t")
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2] or ""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id:  # the scope (%eth0) has a meaning only on the machine that wrote it
        return None
    return address.ipv4_mapped or address


# Cached, because most requests have the same few peers.
parsed_peer = lru_cache(maxsize=4096)(parsed)


def counted_as(text: str) -> str | None:
    """Return the address under which a client is counted.

    For IPv6, this is the /64 network, because one client may own all of it. Returns None if the argument is not an IP
    address, for example for a Unix socket.
    """
    address = parsed(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False).network_address)
    return str(address) if address else None


def is_one_of(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
