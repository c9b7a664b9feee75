"""The front page, and the page for unknown paths."""

import re

import pytest
from django.http import HttpResponse
from django.test import Client, override_settings

from threadsvc import __version__
from threadsvc.access.models import APIKey

pytestmark = pytest.mark.stateless


def front(client: Client, **meta: str) -> str:
    answer = client.get("/", **meta)  # type: ignore[arg-type]  # `meta` contains headers
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
    return answer.content.decode()


def test_front_page_says_what_this_is_and_which_version(client: Client) -> None:
    html = front(client)
    assert "<h1>threadsvc</h1>" in html
    assert "A self-hosted store of conversations" in html
    assert f'<p class="version">{__version__}</p>' in html


@pytest.mark.parametrize("host", ["testserver", "localhost:8000", "LOCALHOST:8001", "127.0.0.1:9", "[::1]:8000"])
@override_settings(ALLOWED_HOSTS=["testserver", "localhost", "127.0.0.1", "[::1]"])
def test_commands_call_the_address_that_the_page_was_asked_for_at(client: Client, host: str) -> None:
    html = front(client, HTTP_HOST=host)
    assert set(re.findall(r'<(?:code|span) class="at">([^<]*)</', html)) == {f"http://{host}"}


def test_commands_send_a_key_only_where_one_is_required(client: Client) -> None:
    assert "Authorization" not in front(client)
    with override_settings(ALLOW_ANONYMOUS=False):
        assert front(client).count('-H "Authorization: Bearer $key"') == 2


def test_commands_speak_tls_where_the_page_came_over_it(client: Client) -> None:
    assert "https://testserver</span>/v1/threads" in client.get("/", secure=True).content.decode()


@pytest.mark.parametrize("host", ["evil.example", '"><script>alert(1)</script>', "$(id)", "a`id`", "a b", ""])
@pytest.mark.parametrize("allowed", [["testserver"], [".example"], ["*"]])
def test_nothing_but_the_name_of_a_host_gets_into_the_commands(client: Client, host: str, allowed: list[str]) -> None:
    with override_settings(ALLOWED_HOSTS=allowed):
        answer = client.get("/", HTTP_HOST=host)
    if host == "evil.example" and allowed != ["testserver"]:
        assert 'http://evil.example</span>/v1/threads"' in answer.content.decode()
    else:
        assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid Host header"})


def unknown(client: Client, path: str = "/nowhere", **meta: str) -> HttpResponse:
    """Request a path as a browser does, and return the response. The default path has no page."""
    return client.get(path, HTTP_ACCEPT="text/html,*/*;q=0.8", **meta)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(("path", "assets"), [("/", 4), ("/nowhere", 3)])
def test_page_loads_everything_from_here_and_nothing_inline(client: Client, path: str, assets: int) -> None:
    answer = unknown(client, path)
    assert "script-src 'self';" in answer["Content-Security-Policy"]
    html = answer.content.decode()
    loaded = re.findall(r'<(?:link|script|img)[^>]* (?:src|href)="([^"]+)"', html)
    assert len(loaded) == assets
    for asset in loaded:
        assert re.match("/[^/]", asset)
        file = client.get(asset)
        assert file.status_code == 200, asset
        assert b"http" not in b"".join(file).replace(b"http://www.w3.org/2000/svg", b"").replace(b"^https?:", b"")
        file.close()
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=", html)


def test_head_is_the_page_without_its_body(client: Client) -> None:
    get, head = client.get("/"), client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"] == get["Content-Type"]


def test_unknown_page_links_to_the_pages_that_exist(client: Client) -> None:
    answer = unknown(client)
    assert answer.status_code == 404
    links = re.findall(r'<a href="([^"]+)"', answer.content.decode())
    assert links == ["/", "/docs", "/redoc", "/admin/"]
    for link in links:
        assert client.get(link, follow=True).status_code == 200


def test_unknown_page_has_the_security_headers_of_other_pages(client: Client) -> None:
    front, missing = client.get("/"), unknown(client)
    assert missing["X-Frame-Options"] == "DENY"
    names = set(front.headers) - {"x-request-id", "Content-Length"}
    assert {name: missing.get(name) for name in names} == {name: front[name] for name in names}
    assert set(missing.headers) - set(front.headers) == {"Vary"}


def test_unknown_page_is_the_same_for_every_path_and_key(client: Client) -> None:
    bare = unknown(client).content
    assert unknown(client, "/<script>alert(1)</script>?q=<b>", HTTP_OPENAI_BETA="assistants=v2").content == bare
    with override_settings(ALLOW_ANONYMOUS=False):
        for authorization in ("", "Bearer sk-any", f"Bearer {APIKey(name='test').issue()}"):
            assert unknown(client, HTTP_AUTHORIZATION=authorization).content == bare
