"""The running service that the fuzz tests send requests to.

A target provides ids, an API key and an admin session for requests. It sends the requests and checks the responses.
"""

import http.client
import json
import re
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, suppress
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlencode, urljoin, urlsplit

from django.contrib.admin.utils import quote

from tests.conftest import Served, manage
from tests.fuzz.drafts import Draft

# The timeout for a response. It is generous, because only a failing request takes this long.
SECONDS_TO_WAIT = 30

PASSWORD = "a long password"
# The maximum number of pages that the crawl of the admin visits.
MAX_PAGES = 60


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Finding(AssertionError):
    """Raised if a response breaks a rule. The message contains the rule, the request and the response."""

    def __init__(self, promise: str, sent: bytes, received: bytes) -> None:
        super().__init__(f"{promise}\n  sent:     {sent[:3000]!r}\n  received: {received[:3000]!r}")


class Page(HTMLParser):
    """The links on a page, and the names and values of its form fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a" and (link := found.get("href")):
            self.links.append(link)
        if tag in ("input", "select", "textarea", "button") and (name := found.get("name")):
            self.fields.setdefault(name, found.get("value") or "")


class Target:
    """A running service for fuzz tests.

    Counts responses by status. Status 0 means that the service closed the connection without a response.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self.counts: Counter[int] = Counter()
        self.counting = threading.Lock()
        self.connections: deque[socket.socket] = deque()  # open connections for later requests
        self.log_is_read_to = 0
        self.operators = 0
        wanted = int(served.environment["WEB_CONCURRENCY"])
        served.wait_until(lambda: len(self.worker_pids()) == wanted)
        self.workers = self.worker_pids()
        self.openapi: dict[str, Any] = served.call("GET", "/openapi.json").body
        # The values that replace the names in braces in a request.
        self.values: dict[str, str] = {"key": ""}
        self.renew()
        self.pages = dict(self.admin_pages())

    def close(self) -> None:
        while self.connections:
            self.connections.pop().close()
        self.served.kill()

    # Objects that requests refer to.

    def renew(self) -> None:
        """Create a thread with a message that has a file. Replace the API key or the admin session if it is invalid."""
        if self.served.call("GET", "/threads", Authorization=f"Bearer {self.values['key']}").status == 401:
            # An admin request may have revoked the previous key.
            self.values["key"] = manage(self.served.directory, "create_api_key", "fuzzer").stdout.strip()
        key = {"Authorization": f"Bearer {self.values['key']}"}
        thread_id = self.served.call("POST", "/threads", **key).body["id"]
        body = {"role": "user", "content": "x", "file_ids": ["file"], "metadata": {"key": "value"}}
        message = self.served.call("POST", f"/threads/{thread_id}/messages", body, **key)
        assert message.status == 200, message
        self.values |= {"thread_id": thread_id, "message_id": message.body["id"], "file_id": "file"}
        self.values |= {f"{name}_in_admin": quote(self.values[name]) for name in ("thread_id", "message_id")}
        self.is_spent = False
        if "cookie" not in self.values or self.admin("/admin/").status != 200:
            self.log_in()

    def log_in(self) -> None:
        # Create a new operator each time, because a request may have deleted the previous one.
        self.operators += 1
        name = f"operator{self.operators}"
        created = manage(
            self.served.directory,
            "createsuperuser",
            "--noinput",
            f"--username={name}",
            "--email=",
            DJANGO_SUPERUSER_PASSWORD=PASSWORD,
        )
        assert created.returncode == 0, created.stderr
        token = re.search(r"csrftoken=(\w+)", self.admin("/admin/login/").headers["set-cookie"])
        assert token
        self.values["csrf"] = token[1]
        self.values["cookie"] = f"csrftoken={token[1]}"
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
        answer = self.admin("/admin/login/", urlencode(form))
        assert answer.status == 302, answer
        cookies = dict(re.findall(r"(csrftoken|sessionid)=(\w+)", answer.headers["set-cookie"]))
        self.values |= {"csrf": cookies["csrftoken"], "session": cookies["sessionid"]}
        self.values["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())

    def admin(self, path: str, form: str | None = None) -> Answer:
        with closing(http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=SECONDS_TO_WAIT)) as connection:
            headers = {"Cookie": self.values.get("cookie", "")}
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request("GET" if form is None else "POST", path, form, headers)
            response = connection.getresponse()
            return Answer(response.status, merged(response.getheaders()), response.read())

    def admin_pages(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Crawl the admin. Yield the path and the form fields of each page."""
        waiting, visited = ["/admin/", "/admin/login/"], {"/admin/logout/"}
        while waiting and len(visited) < MAX_PAGES:
            path = waiting.pop(0)
            if path in visited:
                continue
            visited.add(path)
            answer = self.admin(path)
            if answer.status != 200 or "text/html" not in answer.headers["content-type"]:
                continue
            page = Page(answer.body.decode())
            yield self.with_names(path), {name: self.with_names(value) for name, value in page.fields.items()}
            for link in page.links:
                found = urlsplit(urljoin(path, link))
                one_of_many = found.query and any(each.startswith(f"{found.path}?") for each in {*visited, *waiting})
                if not found.netloc and found.path.startswith("/admin/") and not one_of_many:
                    waiting.append(found._replace(fragment="").geturl())

    def with_names(self, text: str) -> str:
        """Replace ids with names in braces, so that fill_in can insert current ids."""
        for name, value in self.values.items():
            if "_id" in name:
                text = text.replace(value, f"{{{name}}}")
        return text

    def fill_in(self, text: bytes) -> bytes:
        for name, value in self.values.items():
            text = text.replace(f"{{{name}}}".encode(), value.encode())
        return text

    # Requests.

    def send(self, draft: Draft) -> None:
        """Send a request and check the responses. Raises Finding."""
        request = draft.as_bytes(self.fill_in)
        answers = [self.ask(request)] if draft.is_framed else self.call(request)
        if draft.method == b"DELETE" and any(answer.status == 200 for answer in answers):
            self.is_spent = True

    def call(self, request: bytes) -> list[Answer]:
        """Send bytes that can contain any number of requests, shut down the sending side, and return all responses."""
        with self.served.connect() as connection:
            received = b""
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    received += piece
            except TimeoutError:
                raise Finding("every request gets a response, or its connection is closed", request, received) from None
            except OSError:
                # The service may close the connection before it has read all bytes. Check the responses until then.
                pass
        answers = list(answers_in(received, is_head=request.startswith(b"HEAD ")))
        self.check(request, answers, received)
        return answers

    def ask(self, request: bytes) -> Answer:
        """Send one complete request, on an open connection if there is one. Return the response. Raises Finding."""
        answer = None
        with suppress(IndexError):
            answer = self.answer_on(self.connections.pop(), request)
        if answer is None:  # no connection was open, or the service closed it without a response
            answer = self.answer_on(self.served.connect(), request)
        if answer is None:
            raise Finding("every request gets a response", request, b"")
        self.check(request, [answer], b"%d %r %s" % (answer.status, str(answer.headers).encode(), answer.body))
        return answer

    def answer_on(self, connection: socket.socket, request: bytes) -> Answer | None:
        """Send a request on a connection. Return the response, or None if the service closed the connection."""
        response = http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode("latin-1"))
        try:
            # The service may respond and close the connection before it has read the whole request.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            response.begin()
            body = response.read()
        except TimeoutError:
            connection.close()
            raise Finding("every request gets a response in time", request, b"") from None
        except (OSError, http.client.HTTPException):
            connection.close()
            return None
        if response.will_close:
            connection.close()
        else:
            self.connections.append(connection)
        return Answer(response.status, merged(response.getheaders()), body)

    # Checks.

    def check(self, request: bytes, answers: list[Answer], received: bytes) -> None:
        """Count the responses and check each one. Raises Finding."""
        with self.counting:
            self.counts.update([answer.status for answer in answers] or [0])
        for answer in answers:
            promise = broken_promise(request, answer)
            if promise:
                raise Finding(promise, request, received)

    def assert_healthy(self) -> None:
        """Assert that the service responds, that no worker was replaced, and that the log has no unexpected errors."""
        assert self.served.call("GET", "/healthz").status == 200
        assert self.worker_pids() == self.workers, f"a worker died: {self.served.log.read_text()[-6000:]}"
        with self.served.log.open("rb") as log:
            log.seek(self.log_is_read_to)
            new = log.read()
            self.log_is_read_to = log.tell()
        for text in (b"Traceback", b"Error handling request", b"database unavailable", b"WORKER TIMEOUT"):
            assert text not in new, new.decode(errors="replace")[-6000:]

    def worker_pids(self) -> list[int]:
        return sorted(self.served.children())


def merged(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return the headers as a dictionary. Join the values of headers with the same name, such as Set-Cookie."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
    return found


def answers_in(received: bytes, is_head: bool) -> Iterator[Answer]:
    """Yield the responses in the received bytes. Bytes that are not HTTP are yielded as a response with status 599."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] ([1-9]\d\d) .*", line)
        if not match:
            yield Answer(599, {}, received)
            return
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        status, length = int(match[1]), int(headers.get("content-length", "0"))
        if status < 200 or status in (204, 304) or len(rest) < length:
            length = 0
        # A response to HEAD has no body, unless gunicorn could not parse the request.
        if is_head and rest[:5] in (b"", b"HTTP/"):
            length = 0
        if status >= 200:
            yield Answer(status, headers, rest[:length])
        received = rest[length:]


def broken_promise(request: bytes, answer: Answer) -> str | None:
    """Return the rule that a response breaks, or None if it breaks no rule."""
    if answer.status >= 500:
        return "no request gets a 5xx"
    target = unquote_to_bytes(request.partition(b"\r\n")[0])
    if "x-request-id" not in answer.headers:
        return "every response has an x-request-id"
    if b"Traceback (most recent call last)" in answer.body:
        return "no response has a traceback"
    is_page = b"admin" in target
    # These paths redirect to the pages /docs and /redoc.
    is_slash = any(path in target for path in (b"/docs/", b"/redoc/"))
    if 300 <= answer.status < 400 and not (is_page or is_slash) and b"favicon" not in target and answer.status != 304:
        return "no path of the API redirects"
    if answer.status < 400:
        return None
    content_type = answer.headers.get("content-type", "")
    if content_type != "application/json":
        is_for_browsers = answer.status == 404 and b"text/html" in request and not is_of_api(target)
        is_html = content_type.startswith("text/html")
        return None if is_html and (is_page or is_for_browsers) else "errors are JSON"
    if answer.body and not is_error(answer.body):
        return "errors have the detail that the contract specifies"
    return None


def is_of_api(target: bytes) -> bool:
    return target.partition(b" ")[2].startswith((b"/v1", b"/threads"))


def is_error(body: bytes) -> bool:
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return False
    if isinstance(detail, str):
        return True
    return isinstance(detail, list) and detail != [] and all(map(is_item, detail))


def is_item(item: Any) -> bool:
    steps = isinstance(item, dict) and item.get("loc")
    return (
        isinstance(steps, list)
        and steps[:1] in (["body"], ["query"], ["header"])
        and isinstance(item.get("msg"), str)
        and isinstance(item.get("type"), str)
    )


def summary(counts: Counter[int], seconds: float) -> str:
    """Return one line with the number of responses, their rate, and the number of responses in each status class."""
    classes = Counter({f"{number}xx": 0 for number in range(2, 6)})
    for status, count in counts.items():
        classes[f"{status // 100}xx" if status else "closed without a response"] += count
    of_each = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    total = sum(counts.values())
    return f"{total} responses in {seconds:.0f} s ({total / seconds:.0f}/s): {of_each}"
