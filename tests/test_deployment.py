"""The documented installation: nginx with TLS in front of a service that requires keys."""

import http.client
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import pytest
from openai import AuthenticationError, DefaultHttpxClient, OpenAI
from playwright.sync_api import expect

from tests.browser import Browser
from tests.conftest import ROOT, Answer, Served, answer_of, free_port, manage
from tests.servers import Unavailable, is_ci
from tests.servers.nginx import Nginx
from tests.stored import execute

pytestmark = [pytest.mark.engine("sqlite"), pytest.mark.process]

EXAMPLES = ROOT / "docs" / "examples"
HELLO = {"role": "user", "content": "hello"}
V2 = {"OpenAI-Beta": "assistants=v2"}
MEBIBYTE = 1024 * 1024
# The admin account.
NAME, PASSWORD = "ann", "correct horse battery"


class Site:
    """nginx with the example configuration, and the service behind nginx."""

    def __init__(self, nginx: Nginx, service: Served) -> None:
        self.nginx, self.service = nginx, service
        self.origin = f"https://localhost:{nginx.port}"
        code = (
            "from django.core.management import call_command as call; call('create_api_key', 'tests');"
            f"call('createsuperuser', '--noinput', '--username={NAME}', '--email=ann@shop.example')"
        )
        created = manage(service.directory, "shell", "-v0", "-c", code, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
        found = re.search(r"tsk_\S+", created.stdout)
        assert found, created.stderr
        self.key = {"Authorization": f"Bearer {found[0]}"}

    def call(self, method: str, path: str, body: Any = None, source: str = "127.0.0.1", **headers: str) -> Answer:
        """Send a request over TLS from the loopback address `source`."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.nginx.port, timeout=30, context=self.nginx.tls, source_address=(source, 0)
        )
        return answer_of(connection, method, path, body, {"Host": f"localhost:{self.nginx.port}", **headers})

    def log_in(self, password: str, source: str, **headers: str) -> int:
        form = self.call("GET", "/admin/login/", source=source)
        cookie = form.headers["set-cookie"].partition(";")[0]
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.body.decode())
        assert token
        body = urlencode({"username": NAME, "password": password, "csrfmiddlewaretoken": token[1]}).encode()
        form_type = "application/x-www-form-urlencoded"
        headers = {"Cookie": cookie, "Origin": self.origin, "Content-Type": form_type, **headers}
        return self.call("POST", "/admin/login/", body, source, **headers).status


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as started:
        service = Served(
            tmp_path_factory.mktemp("deployed") / "data",
            THREADSVC_TLS="1",
            THREADSVC_TRUSTED_PROXIES="127.0.0.1",
            THREADSVC_ALLOW_ANONYMOUS="0",
        )
        started.callback(service.kill)
        nginx = nginx_for(service.port)
        started.callback(nginx.close)
        yield Site(nginx, service)


def nginx_for(port: int) -> Nginx:
    try:
        return Nginx(port)
    except Unavailable as error:
        return skip_or_fail(error)


def skip_or_fail(error: Unavailable) -> NoReturn:
    reason = f"tests of the installation: {error}"
    if is_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def test_http_redirects_to_https_and_keeps_the_method(site: Site) -> None:
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", site.nginx.http_port, timeout=30)
        answer = answer_of(connection, method, "/v1/threads?limit=2&x=%2F", b"{}", {"Host": "evil.example"})
        assert (answer.status, answer.headers["location"]) == (308, f"{site.origin}/v1/threads?limit=2&x=%2F")


def test_api_needs_a_key_and_has_hsts_and_request_ids(site: Site) -> None:
    answer = site.call("POST", "/v1/threads", {})
    assert (answer.status, answer.body) == (401, {"detail": "Invalid API key"})
    answer = site.call("POST", "/v1/threads", {}, **site.key, **{"X-Request-Id": "mine"})
    assert (answer.status, answer.body["object"]) == (200, "thread")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["x-request-id"] == "mine"
    assert re.fullmatch("[0-9a-f]{32}", site.call("GET", "/healthz").headers["x-request-id"])


def test_nginx_passes_odd_paths_unchanged(site: Site) -> None:
    long_id = "x" * (8192 - len("/threads/"))
    for path in ("//threads", "/threads/", "/threads/a%2Fb", "/v1/threads/../threads", f"/threads/{long_id}"):
        via_nginx, direct = site.call("GET", path, **site.key), site.service.call("GET", path, **site.key)
        assert (via_nginx.status, via_nginx.body) == (direct.status, direct.body)
        assert via_nginx.status == 404


def test_forwarded_scheme_is_trusted_from_nginx_only(site: Site) -> None:
    for source, is_trusted in (("127.0.0.1", True), ("127.0.0.2", False)):
        direct = http.client.HTTPConnection("127.0.0.1", site.service.port, timeout=30, source_address=(source, 0))
        answer = answer_of(direct, "GET", "/", None, {"X-Forwarded-Proto": "https"})
        assert ("strict-transport-security" in answer.headers) == is_trusted
        assert (b"https://127.0.0.1" in answer.body) == is_trusted
    # nginx replaces the client's X-Forwarded-Proto, so this plain HTTP request is redirected.
    connection = http.client.HTTPConnection("127.0.0.1", site.nginx.http_port, timeout=30)
    assert answer_of(connection, "GET", "/", None, {"X-Forwarded-Proto": "https"}).status == 308


def test_clients_cannot_spoof_their_address(site: Site) -> None:
    spoofed = {"X-Forwarded-For": "203.0.113.1, 127.0.0.1", "X-Real-IP": "203.0.113.1", "Forwarded": "for=203.0.113.1"}
    assert site.log_in("wrong", "127.0.0.2", **spoofed) == 200
    (failure,) = re.findall(r'login failure by .*?ip_address: \\"(.*?)\\"', site.service.log.read_text())
    assert failure == "127.0.0.2"
    store_nine_more_failures(site)
    for number in range(8):  # enough requests to reach every worker
        headers = {"X-Forwarded-For": f"203.0.113.{number}"}
        assert site.log_in(PASSWORD, "127.0.0.2", **headers) == 429
    assert site.log_in(PASSWORD, "127.0.0.3", **{"X-Forwarded-For": "127.0.0.2"}) == 302


def test_operator_logs_in_with_cookies_for_https_only(site: Site) -> None:
    try:
        with Browser() as browser, browser.open(site.origin, {429}, ignore_https_errors=True) as page:
            page.goto("/admin/")
            page.get_by_label("Username").fill(NAME)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Conversations"))
            cookies = page.context.cookies()
            page.get_by_role("button", name="Log out").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Logged out")

            for attempt in ("first", "after nine more"):
                page.goto("/admin/")
                page.get_by_label("Username").fill(NAME)
                page.get_by_label("Password").fill("wrong")
                page.get_by_role("button", name="Log in").click()
                if attempt == "first":
                    expect(page.locator(".errornote")).to_contain_text("Please enter the correct username")
                    store_nine_more_failures(site)
            expect(page.locator(".errornote")).to_contain_text("Too many log-ins failed")
            page.get_by_role("link", name="Back to the log-in").click()
            expect(page.get_by_label("Username")).to_be_visible()
    except Unavailable as error:
        skip_or_fail(error)
    assert {cookie["name"] for cookie in cookies} == {"__Host-sessionid", "__Host-csrftoken"}
    for cookie in cookies:
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")


def store_nine_more_failures(site: Site) -> None:
    """Set the failure count as nine more failed logins would. Real logins are slow, because each hashes a password."""
    execute(f"sqlite:///{site.service.directory}/threadsvc.db", "UPDATE axes_accessattempt SET failures_since_start=10")


PAGES = ("/", "/docs", "/redoc", "/admin/login/")


@pytest.mark.parametrize("path", [*PAGES, "/admin/", "/threads", "/static/admin/css/base.css"])
def test_security_headers_forbid_foreign_scripts(site: Site, path: str) -> None:
    headers = site.call("GET", path, **site.key).headers
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    if path in PAGES:
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["script-src"], policy["default-src"], policy["object-src"]) == ("'self'", "'self'", "'none'")


def test_form_of_another_origin_is_refused(site: Site) -> None:
    for origin in ("https://evil.example", site.origin.replace("https", "http"), "null"):
        assert site.log_in(PASSWORD, "127.0.0.4", Origin=origin) == 403


def test_body_over_16_mib_is_413_in_both_shapes(site: Site) -> None:
    body = b'{"metadata": {"size": "16 MiB"}}'.ljust(16 * MEBIBYTE)
    created = site.call("POST", "/threads", body, **site.key, **{"Content-Type": "application/json"})
    assert created.body["metadata"] == {"size": "16 MiB"}
    refusal = {"detail": "Request body too large"}
    for headers, more in (({}, {}), (V2, {"error": error("Request body too large")})):
        answer = site.call("POST", "/threads", body + b" ", **site.key, **headers)
        assert (answer.status, answer.body) == (413, {**refusal, **more})
        assert answer.headers["x-request-id"]
    options = ["--cacert", str(site.nginx.directory / "certificate.pem"), "-H", "Content-Length: 16777217", "-d", "{}"]
    over_http_2 = ["curl", "-sS", "--http2", "-w", " %{http_version} %{http_code}", *options, f"{site.origin}/threads"]
    output = subprocess.run(over_http_2, capture_output=True, text=True).stdout
    assert output == '{"detail":"Request body too large"} 2 413'


def test_refusal_before_the_body_is_read_reaches_the_client(site: Site) -> None:
    # The service refuses this body without reading it, because the body is too large.
    body = b" " * (4 * MEBIBYTE + 1)
    for _ in range(6):
        answer = site.call("POST", "/threads/x/messages", body, **site.key)
        assert (answer.status, answer.body) == (413, {"detail": "Request body too large"})
        answer = site.call("POST", "/threads", body * 3)
        assert (answer.status, answer.body) == (401, {"detail": "Invalid API key"})


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
def test_sdk_works_through_nginx(site: Site) -> None:
    key = site.key["Authorization"].removeprefix("Bearer ")
    with OpenAI(
        base_url=f"{site.origin}/v1",
        api_key=key,
        http_client=DefaultHttpxClient(verify=site.nginx.tls, trust_env=False),
    ) as client:
        thread = client.beta.threads.create(messages=[{"role": "user", "content": "0"}])
        for number in range(1, 10):  # all requests use one connection
            client.beta.threads.messages.create(thread.id, role="user", content=str(number))
        listed: list[Any] = list(client.beta.threads.messages.list(thread.id, order="asc", limit=3))
        assert [message.content[0].text.value for message in listed] == [str(number) for number in range(10)]
        with pytest.raises(AuthenticationError):
            client.with_options(api_key="tsk_none").beta.threads.retrieve(thread.id)


def test_unreachable_service_is_503_with_retry_after() -> None:
    with closing(nginx_for(free_port())) as nginx:
        for headers, more in (({}, {}), (V2, {"error": error("Service Unavailable")})):
            connection = http.client.HTTPSConnection("127.0.0.1", nginx.port, timeout=30, context=nginx.tls)
            answer = answer_of(connection, "POST", "/threads", HELLO, {**headers, "X-Request-Id": "mine"})
            assert (answer.status, answer.body) == (503, {"detail": "Service Unavailable", **more})
            assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("1", "mine")


def error(message: str) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Bad Request"),
        (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 17000), 414, "Request-URI Too Long"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 17000), 400, "Bad Request"),
        (b"POST /threads HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501, "Not Implemented"),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "Method Not Allowed"),
        (b"GET /threadsvc_error HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "Not Found"),
    ],
    ids=lambda value: value.decode()[:20] if isinstance(value, bytes) else "",
)
def test_refusals_of_nginx_are_json(site: Site, request_: bytes, status: int, detail: str) -> None:
    with connect(site.nginx) as connection:
        connection.sendall(request_)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, response.getheader("Content-Type")) == (status, "application/json")
        assert response.read() == b'{"detail":"%s"}' % detail.encode()
        assert response.getheader("X-Request-Id")


# Slow clients

SECONDS = 5


def connect(nginx: Nginx) -> ssl.SSLSocket:
    return nginx.tls.wrap_socket(
        socket.create_connection(("127.0.0.1", nginx.port), timeout=30), server_hostname="localhost"
    )


def test_200_slow_clients_do_not_delay_others(site: Site) -> None:
    thread = site.call("POST", "/threads", {}, **site.key).body["id"]
    body = b'{"role": "user", "content": "slowly"}'
    head = f"POST /threads/{thread}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {site.key['Authorization']}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    in_body = head.encode() + body[: -SECONDS - 1]
    in_head = head.encode()[: -SECONDS - 1]
    with ExitStack() as connections:
        slow = [connections.enter_context(connect(site.nginx)) for _ in range(200)]
        for client in slow[:50]:
            client.sendall(in_head)
        for client in slow[50:]:
            client.sendall(in_body)

        def drip() -> None:
            for second in range(SECONDS):
                time.sleep(1)
                for number, client in enumerate(slow):
                    client.sendall((body if number >= 50 else head.encode())[second - SECONDS - 1 :][:1])

        dripping = threading.Thread(target=drip)
        dripping.start()
        waits = []
        while dripping.is_alive():
            began = time.monotonic()
            answer = site.call("POST", f"/threads/{thread}/messages", HELLO, **site.key)
            waits.append(time.monotonic() - began)
            assert answer.status == 200
        dripping.join()
        assert max(waits) < 1
        assert len(waits) > 3 * SECONDS
        # The slow clients also get a response, once they send the last byte.
        for client in slow[-10:]:
            client.sendall(body[-1:])
            assert client.recv(12) == b"HTTP/1.1 200"
    assert len(site.service.stored("message", thread_id=thread)) == len(waits) + 10


# The other examples


def example_environment() -> dict[str, str]:
    """Return the variables in the example environment, including variables that are commented out."""
    lines = (EXAMPLES / "environment").read_text(encoding="utf-8").splitlines()
    pairs = [line.removeprefix("#").partition("=") for line in lines if re.match(r"#?[A-Z_]+=", line)]
    return {name: value.strip("'") for name, _, value in pairs}


def test_example_environment_passes_check_and_requires_keys(tmp_path: Path) -> None:
    variables = example_environment()
    assert "THREADSVC_ALLOW_ANONYMOUS" not in variables
    assert "THREADSVC_ALLOW_ANONYMOUS" not in (EXAMPLES / "threadsvc.service").read_text(encoding="utf-8")
    del variables["THREADSVC_DATA_DIR"], variables["DATABASE_URL"]
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "INFO", **variables)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_accepts_the_unit_of_the_example(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    text = (EXAMPLES / "threadsvc.service").read_text(encoding="utf-8")
    unit = tmp_path / "threadsvc.service"
    unit.write_text(text.replace("/srv/threadsvc", str(ROOT)), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
