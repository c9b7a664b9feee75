"""Proxies: trusted and ignored forwarding headers, and `check --deploy` with and without TLS."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started
from django.test import override_settings

from tests.conftest import Api, manage
from threadsvc import settings

pytestmark = pytest.mark.stateless

TRUSTED = [ip_network(each) for each in ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")]


@pytest.fixture(autouse=True)
def proxies() -> Iterator[None]:
    with override_settings(TRUSTED_PROXIES=TRUSTED):
        yield


def environ_of(api: Api, peer: str, **headers: str) -> dict[str, Any]:
    """Return the WSGI environ that Django receives for a request from this peer."""
    environs: list[dict[str, Any]] = []

    def record(environ: dict[str, Any], **kwargs: Any) -> None:
        environs.append(dict(environ))

    request_started.connect(record)
    try:
        assert api.get("/healthz", REMOTE_ADDR=peer, **headers).status == 200
    finally:
        request_started.disconnect(record)
    return environs[0]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        # Each proxy appends its peer's address. The client can forge the addresses on the left, so they do not count.
        ("127.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "198.51.100.1,203.0.113.7 ,\t10.1.2.3", "203.0.113.7"),
        ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("2001:db8::5", "2001:DB9:0::7", "2001:db9::7"),
        ("127.0.0.1", "[2001:db9::7]:443", "2001:db9::7"),
        ("127.0.0.1", "[2001:db9::7]", "2001:db9::7"),
        ("127.0.0.1", "203.0.113.7:5566", "203.0.113.7"),
        ("127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        # If all addresses are trusted proxies, the leftmost one counts as the client.
        ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
        # Headers from untrusted peers are ignored.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
        ("127.0.0.2", "198.51.100.1", "127.0.0.2"),
        # If an address is invalid, the proxy that sent it counts as the client.
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7,", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7, unknown, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "203.0.113.7, _hidden, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "999.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "1.2.3.4.5:80", "127.0.0.1"),
        ("127.0.0.1", "[::1", "127.0.0.1"),
        ("127.0.0.1", "[fe80::1%eth0]", "127.0.0.1"),
        ("127.0.0.1", "fe80::1%\xff", "127.0.0.1"),
        ("127.0.0.1", "\x00\xe9 ٣.1.1.1", "127.0.0.1"),
        ("127.0.0.1", "1" * 100_000, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1," * 50_000 + "203.0.113.7", "203.0.113.7"),
    ],
    ids=lambda value: value[:40],
)
def test_client_is_the_nearest_untrusted_address(api: Api, peer: str, forwarded_for: str, client: str) -> None:
    environ = environ_of(api, peer, HTTP_X_FORWARDED_FOR=forwarded_for)
    assert environ["REMOTE_ADDR"] == client
    assert "HTTP_X_FORWARDED_FOR" not in environ


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("10.0.0.1/8", "is neither an address nor a network"),
        ("10.0.0.0-10.0.0.9", "is neither an address nor a network"),
        ("localhost", "is neither an address nor a network"),
        ("0.0.0.0/0", "matches every client"),
        ("::/0", "matches every client"),
        ("::FFFF:10.0.0.1", "or none"),
        ("fe80::1%eth0", "or none"),
    ],
)
def test_invalid_entry_of_trusted_proxies_is_refused(monkeypatch: pytest.MonkeyPatch, entry: str, message: str) -> None:
    monkeypatch.setenv("THREADSVC_TRUSTED_PROXIES", f" 127.0.0.1, {entry}")
    with pytest.raises(ImproperlyConfigured) as refusal:
        settings.env_networks("THREADSVC_TRUSTED_PROXIES")
    assert f"THREADSVC_TRUSTED_PROXIES: '{entry}'" in str(refusal.value)
    assert message in str(refusal.value)


def test_trusted_peer_without_the_header_is_the_client(api: Api) -> None:
    assert environ_of(api, "127.0.0.1")["REMOTE_ADDR"] == "127.0.0.1"


def test_forwarded_scheme_counts_only_from_trusted_proxies(api: Api) -> None:
    assert environ_of(api, "127.0.0.1", HTTP_X_FORWARDED_PROTO="https")["HTTP_X_FORWARDED_PROTO"] == "https"
    for peer in ("203.0.113.9", "", "unix:"):
        assert "HTTP_X_FORWARDED_PROTO" not in environ_of(api, peer, HTTP_X_FORWARDED_PROTO="https")


def test_forwarded_host_is_never_trusted(api: Api) -> None:
    forwarded = {"HTTP_X_FORWARDED_HOST": "evil.example", "HTTP_X_FORWARDED_PORT": "1", "HTTP_FORWARDED": "host=evil"}
    assert api.post("/threads", REMOTE_ADDR="127.0.0.1", HTTP_ORIGIN="http://evil.example", **forwarded).status == 403


# Settings for TLS. tests/test_deployment.py tests TLS with a real nginx.


def deploy_check(directory: Path, **variables: str) -> str:
    done = manage(directory, "check", "--deploy", "--fail-level", "INFO", **variables)
    assert done.returncode == (1 if "threadsvc.W001" in done.stderr else 0), done.stderr
    return done.stderr


@pytest.mark.process
def test_deploy_check_passes_with_tls_and_warns_without(tmp_path: Path) -> None:
    assert deploy_check(tmp_path, THREADSVC_TLS="1", THREADSVC_TRUSTED_PROXIES="127.0.0.1") == ""
    warnings = deploy_check(tmp_path)
    assert "THREADSVC_TLS is 0" in warnings
    assert "identified 1 issue" in warnings
