"""Generates requests as bytes: valid requests for operations and pages, with mutated parts and mutated bytes."""

import codecs
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, urlencode

from hypothesis import strategies as st

from tests.fuzz.odd import FRAGMENTS, HEADERS, MEDIA_TYPES, METHODS, MULTIPART, NASTY, TEXTS, VERSIONS

Header = tuple[bytes, bytes]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# These headers determine the end of a request. If one of them is mutated, the number of responses is unknown.
FRAMING_HEADERS = {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"http2-settings"}


class Edit(NamedTuple):
    """A mutation of a request's bytes at position `at`. A position after the end wraps around to the start."""

    kind: str
    at: int
    length: int
    added: bytes

    def apply(self, text: bytes) -> bytes:
        at = self.at % (len(text) + 1)
        before, middle, after = text[:at], text[at : at + self.length], text[at + self.length :]
        match self.kind:
            case "cut":
                return before
            case "drop":
                return before + after
            case "repeat":
                return before + middle * 3 + after
            case "flip":
                return before + bytes(byte ^ 1 << self.length % 8 for byte in middle) + after
            case "insert":
                return before + self.added + middle + after
        return before + self.added


class Draft(NamedTuple):
    """A request before it is sent. `as_bytes` replaces the names in braces with values."""

    method: bytes
    target: bytes
    headers: tuple[Header, ...] = ()
    body: bytes | None = None
    framing: str = "length"
    version: bytes = b"HTTP/1.1"
    edits: tuple[Edit, ...] = ()

    @property
    def is_framed(self) -> bool:
        """Return True if the request ends at the position that its headers specify."""
        head = [self.method, self.target, self.version, *(text for header in self.headers for text in header)]
        return (
            not self.edits
            and self.framing in ("length", "chunked")
            and self.method not in (b"", b"CONNECT")
            and self.version == b"HTTP/1.1"
            and not any(b"\r" in text or b"\n" in text for text in head)
            and not any(name.lower() in FRAMING_HEADERS for name, _ in self.headers)
        )

    def with_header(self, name: bytes, value: bytes) -> "Draft":
        others = tuple(header for header in self.headers if header[0].lower() != name.lower())
        return self._replace(headers=(*others, (name, value)))

    def as_bytes(self, fill_in: Callable[[bytes], bytes]) -> bytes:
        lines = [b" ".join((self.method, fill_in(self.target), self.version))]
        names = {name.lower() for name, _ in self.headers}
        if b"host" not in names:
            lines.append(b"Host: localhost")
        if b"authorization" not in names:
            lines.append(b"Authorization: " + fill_in(b"Bearer {key}"))
        lines += [name + b": " + fill_in(value) for name, value in self.headers]
        body = b"" if self.body is None else fill_in(self.body)
        if self.framing == "length" and self.body is not None and b"content-length" not in names:
            lines.append(b"Content-Length: %d" % len(body))
        elif self.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            body = chunked(body)
        text = b"\r\n".join([*lines, b"", body])
        for edit in self.edits:
            text = edit.apply(text)
        return text


def chunked(body: bytes) -> bytes:
    size = max(1, len(body) // 3)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# Valid requests.

JSON = (b"Content-Type", b"application/json")
FORM = (b"Content-Type", b"application/x-www-form-urlencoded")
BROWSER = (b"Cookie", b"{cookie}")
PAGES = [
    "/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/openapi.yaml",
    "/healthz",
    "/readyz",
    "/favicon.ico",
    "/admin",
    "/static/threadsvc/favicon.svg",
    "/static/admin/css/base.css",
]
ADMIN_QUERIES = ["?q=x", "?o=1", "?p=1", "?_popup=1", "?next=/admin/", "?e=1", "?all="]


def operations(openapi: dict[str, Any]) -> Iterator[Draft]:
    """Yield requests for each operation and server URL: one per example body, and one with all query parameters."""
    for server in openapi["servers"]:
        prefix = server["url"].rstrip("/")
        for path, methods in openapi["paths"].items():
            for method, operation in methods.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                bodies: list[Any] = [example["value"] for example in content.get("examples", {}).values()]
                query = {
                    found["name"]: "asc" if "enum" in found["schema"] else "1"
                    for found in operation["parameters"]
                    if found["in"] == "query"
                }
                for body in bodies or [None]:
                    raw = None if body is None else json.dumps(body).encode()
                    yield Draft(method.upper().encode(), (prefix + path).encode(), (JSON,) if raw else (), raw)
                if query:
                    yield Draft(method.upper().encode(), f"{prefix}{path}?{urlencode(query)}".encode())


def pages(admin: dict[str, dict[str, str]]) -> Iterator[Draft]:
    """Yield a browser's requests: for pages, for admin pages, and for admin forms."""
    for path in PAGES:
        yield Draft(b"GET", path.encode())
    for path, fields in admin.items():
        yield Draft(b"GET", path.encode(), (BROWSER,))
        yield Draft(b"GET", path.encode())
        if "?" not in path:
            for query in ADMIN_QUERIES:
                yield Draft(b"GET", (path + query).encode(), (BROWSER,))
        if fields:
            form = urlencode({**fields, "csrfmiddlewaretoken": "CSRF"}).replace("CSRF", "{csrf}").encode()
            yield Draft(b"POST", path.encode(), (BROWSER, FORM), form)


texts = st.sampled_from(TEXTS) | st.binary(max_size=6).map(quote_from_bytes).map(str.encode)
edits = st.builds(
    Edit,
    st.sampled_from(["cut", "drop", "repeat", "flip", "insert", "insert", "end"]),
    st.integers(0, 4000),
    st.integers(1, 40),
    st.sampled_from(NASTY) | st.binary(max_size=8),
)


# Mutations of one part.


def odd_method(draw: Draw, draft: Draft) -> Draft:
    return draft._replace(method=draw(st.sampled_from(METHODS)))


def odd_version(draw: Draw, draft: Draft) -> Draft:
    return draft._replace(version=draw(st.sampled_from(VERSIONS)))


def odd_step(draw: Draw, draft: Draft) -> Draft:
    path, mark, query = draft.target.partition(b"?")
    steps = path.split(b"/")
    steps[draw(st.integers(0, len(steps) - 1))] = draw(texts)
    return draft._replace(target=b"/".join(steps) + mark + query)


def odd_query(draw: Draw, draft: Draft) -> Draft:
    path, _, query = draft.target.partition(b"?")
    pairs = [pair for pair in query.split(b"&") if pair]
    names = [pair.partition(b"=")[0] for pair in pairs]
    more = b"limit after before order run_id metadata[key] metadata[ q o p e at".split()
    name = draw(st.sampled_from(names + more) | texts)
    return draft._replace(target=path + b"?" + b"&".join([*pairs, name + b"=" + draw(texts)]))


def many_keys(draw: Draw, draft: Draft) -> Draft:
    count = draw(st.sampled_from([900, 1001, 5000]))
    separator = b"&" if b"?" in draft.target else b"?"
    one = draw(st.sampled_from([b"k%d=v", b"metadata[%d]=v", b"limit=%d"]))
    return draft._replace(target=draft.target + separator + b"&".join(one % number for number in range(count)))


def odd_header(draw: Draw, draft: Draft) -> Draft:
    name = draw(st.sampled_from(sorted(HEADERS)))
    return draft.with_header(name, draw(st.sampled_from(HEADERS[name])))


def odd_value(draw: Draw, draft: Draft) -> Draft:
    name = draw(st.sampled_from(sorted(HEADERS)))
    return draft.with_header(name, draw(texts))


def repeated_header(draw: Draw, draft: Draft) -> Draft:
    name = draw(st.sampled_from(sorted(HEADERS)))
    values = [draw(st.sampled_from(HEADERS[name])), draw(st.sampled_from(HEADERS[name]))]
    return draft._replace(headers=(*draft.headers, *[(name, value) for value in values]))


def many_headers(draw: Draw, draft: Draft) -> Draft:
    more = [(b"X-%d" % number, b"x") for number in range(draw(st.sampled_from([90, 101])))]
    return draft._replace(headers=(*draft.headers, *more))


def odd_json(draw: Draw, draft: Draft) -> Draft:
    """Set a known or unknown key to an unusual value."""
    try:
        body = json.loads(draft.body or b"{}")
        pairs = {json.dumps(name).encode(): json.dumps(value).encode() for name, value in body.items()}
    except (ValueError, AttributeError, RecursionError):
        pairs = {}
    known = b"role content file_ids metadata messages attachments assistant_id run_id tool_resources".split()
    unknown = [b'"\\ud800"', b'"\\u0000"', b'""', b"x"]
    name = draw(st.sampled_from([*pairs, *(b'"%s"' % name for name in known), *unknown]))
    pairs[name] = draw(st.sampled_from(FRAGMENTS))
    raw = b"{" + b",".join(name + b":" + value for name, value in pairs.items()) + b"}"
    return draft._replace(body=raw).with_header(*JSON)


def odd_body(draw: Draw, draft: Draft) -> Draft:
    return draft._replace(body=draw(st.sampled_from(FRAGMENTS + MULTIPART) | st.binary(max_size=30)))


def odd_encoding(draw: Draw, draft: Draft) -> Draft:
    body = draft.body or b"{}"
    encodings: list[Callable[[bytes], bytes]] = [
        lambda text: text.decode("latin-1").encode("utf-16"),
        lambda text: text.decode("latin-1").encode("utf-32-be"),
        lambda text: codecs.BOM_UTF8 * 2 + text,
        lambda text: gzip.compress(text, mtime=0),
        lambda text: text.replace(b" ", b"\xa0"),
        lambda text: text * 3,
        lambda text: text + b" " * (5 * 1024 * 1024),
    ]
    return draft._replace(body=draw(st.sampled_from(encodings))(body))


def odd_form(draw: Draw, draft: Draft) -> Draft:
    body = draft.body or b"csrfmiddlewaretoken={csrf}"
    pairs = body.split(b"&")
    names = [pair.partition(b"=")[0] for pair in pairs]
    name = draw(st.sampled_from([*names, b"action", b"_selected_action", b"post", b"_save", b"next", b"index"]) | texts)
    kept = pairs if draw(st.booleans()) else [pair for pair in pairs if pair.partition(b"=")[0] != name]
    return draft._replace(body=b"&".join([*kept, name + b"=" + draw(texts)]))


def odd_media_type(draw: Draw, draft: Draft) -> Draft:
    draft = draft if draft.body else draft._replace(body=draw(st.sampled_from(MULTIPART)))
    return draft.with_header(b"Content-Type", draw(st.sampled_from(MEDIA_TYPES)))


def multipart(draw: Draw, draft: Draft) -> Draft:
    body = draw(st.sampled_from(MULTIPART))
    return draft._replace(body=body).with_header(b"Content-Type", b"multipart/form-data; boundary=x")


def odd_framing(draw: Draw, draft: Draft) -> Draft:
    draft = draft if draft.body else draft._replace(body=b"{}")
    return draft._replace(framing=draw(st.sampled_from(["chunked", "chunked", "none"])))


def odd_bytes(draw: Draw, draft: Draft) -> Draft:
    return draft._replace(edits=(*draft.edits, draw(edits)))


# The mutations for each kind of request. A mutation that is listed twice is chosen twice as often.
# fmt: off
ANYWHERE = [
    odd_method, odd_version, odd_step, odd_step, odd_query, odd_query, many_keys, odd_header, odd_header, odd_value,
    repeated_header, many_headers, odd_media_type, odd_framing, odd_bytes, odd_bytes,
]
# fmt: on
MUTATIONS = {
    "operation": [*ANYWHERE, odd_json, odd_json, odd_json, odd_json, odd_body, odd_encoding],
    "page": [*ANYWHERE, odd_form, odd_form, odd_form, odd_body, multipart],
}
V2 = (b"OpenAI-Beta", b"assistants=v2")


def drafts(openapi: dict[str, Any], admin: dict[str, dict[str, str]]) -> st.SearchStrategy[Draft]:
    """Return a strategy that generates mutated requests to the described operations and to pages."""
    valid = {"operation": list(operations(openapi)), "page": list(pages(admin))}

    @st.composite
    def mutated(draw: Draw) -> Draft:
        kind: str = draw(st.sampled_from(["operation", "operation", "operation", "page"]))
        draft: Draft = draw(st.sampled_from(valid[kind]))
        if kind == "operation" and draw(st.booleans()):
            draft = draft.with_header(*V2)
        for mutate in draw(st.lists(st.sampled_from(MUTATIONS[kind]), max_size=3)):
            draft = mutate(draw, draft)
        return draft

    return mutated()
