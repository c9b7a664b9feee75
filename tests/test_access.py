"""Access control: every path with every kind of key, required and optional keys, and two tenants on one service."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from rest_framework.viewsets import ViewSet

from tests.conftest import Answer, Api
from tests.test_paths import METHODS
from tests.test_paths import UNKNOWN_PATHS as NO_PATHS
from threadsvc.access.models import APIKey

UNKNOWN_PATHS = [path for path in NO_PATHS if not path.startswith("/static/")]
INVALID = {"detail": "Invalid API key"}

# The tests generate requests from the routes, so they automatically cover new routes.


def routes(patterns: Any = None, prefix: str = "/") -> Iterator[tuple[str, Any]]:
    """Yield the path template and the view of each route."""
    for pattern in patterns or get_resolver().url_patterns:
        if not isinstance(pattern.pattern, RoutePattern):  # this pattern is the fallback for unknown paths
            continue
        route = prefix + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        if isinstance(pattern, URLPattern):
            yield route, pattern.callback
        elif isinstance(pattern, URLResolver) and route != "/admin/":  # the admin has its own login
            yield from routes(pattern.url_patterns, route)


def is_api(view: Any) -> bool:
    return issubclass(getattr(view, "cls", object), ViewSet)


API = [route for route, view in routes() if is_api(view)]
PAGES = ["/admin/", "/admin/login/", "/static/threadsvc/front.css", "/static/none.js"]
PAGES += [route for route, view in routes() if not is_api(view)]


def allowed(route: str) -> set[str]:
    """Return the methods that a route of the API allows."""
    (view,) = (view for at, view in routes() if at == route)
    methods = {method.upper() for method in view.actions}
    return methods | {"HEAD"} if "GET" in methods else methods


@pytest.fixture(scope="module")
def bodies() -> dict[str, bytes]:
    """Return a valid body for each POST route: the first example in the OpenAPI description."""
    found = {}
    for path, operations in SchemaGenerator().get_schema(request=None, public=True)["paths"].items():
        if "requestBody" in operations.get("post", {}):
            first, *_ = operations["post"]["requestBody"]["content"]["application/json"]["examples"].values()
            found[path] = found[f"/v1{path}"] = json.dumps(first["value"]).encode()
    return found


class Sender:
    """Sends requests with an API key and counts them."""

    def __init__(self) -> None:
        self.api, self.count = Api(), 0

    def __call__(self, method: str, path: str, key: str | None, body: bytes = b"{", **meta: str) -> Answer:
        self.count += 1
        if key is not None:
            meta["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        return self.api.call(method, f"http://testserver{path}", body, **meta)


@pytest.fixture
def send(figures: Callable[[str, int | str], None]) -> Iterator[Sender]:
    sender = Sender()
    yield sender
    figures(f"access: requests to {len(API)} routes and {len(UNKNOWN_PATHS)} other paths", sender.count)


def comparable(answer: Answer) -> tuple[int, str, dict[str, str]]:
    """Return the parts of a response that must match in two responses: all except the request id."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status, json.dumps(answer.body), headers


# Callers


class Tenant(NamedTuple):
    key: str
    thread_id: str
    message_id: str

    def path(self, route: str) -> str:
        return route.format(thread_id=self.thread_id, message_id=self.message_id, file_id="file-1")

    @property
    def stored(self) -> Any:
        thread = f"/threads/{self.thread_id}"
        meta = {"HTTP_AUTHORIZATION": f"Bearer {self.key}"}
        return [Api().get(path, **meta).body for path in ("/threads?order=asc&limit=1", thread, f"{thread}/messages")]


def new_key(**fields: Any) -> str:
    return APIKey(**{"name": "test", **fields}).issue()


def new_tenant(name: str) -> Tenant:
    """Create a tenant with one thread, and one message that has a file. All tenants' threads have the same metadata."""
    key = new_key(tenant=name)
    meta = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
    thread = Api().post("/threads", {"metadata": {"customer": "customer-17"}}, **meta).body["id"]
    message = {"role": "user", "content": f"of {name}", "file_ids": ["file-1"]}
    return Tenant(key, thread, Api().post(f"/threads/{thread}/messages", message, **meta).body["id"])


@pytest.fixture(scope="session")
def acme() -> Tenant:
    return new_tenant("acme")


@pytest.fixture(scope="session")
def other() -> Tenant:
    return new_tenant("other")


STRANGERS = {
    "none": lambda: None,
    "foreign": lambda: "sk-any",
    "unknown": lambda: f"tsk_{'x' * 8}_{'x' * 40}",
    "revoked": lambda: new_key(tenant="acme", revoked_at=timezone.now()),
    "expired": lambda: new_key(tenant="acme", expires_at=timezone.now() - timedelta(seconds=1)),
}


@contextmanager
def keys_required(required: bool = True) -> Iterator[None]:
    with override_settings(ALLOW_ANONYMOUS=not required):
        yield


def test_all_documented_routes_are_tested_under_both_prefixes() -> None:
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    assert sorted(API) == sorted(f"{prefix}{path}" for prefix in ("", "/v1") for path in paths)
    assert {"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/admin"} <= set(PAGES)


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("required", [True, False], ids=["keys required", "anonymous allowed"])
def test_stranger_gets_401_before_any_other_check(
    send: Sender, acme: Tenant, bodies: dict[str, bytes], stranger: str, required: bool
) -> None:
    key = STRANGERS[stranger]()
    before = acme.stored
    with keys_required(required):
        for route, method in product([*API, *UNKNOWN_PATHS], METHODS):
            answer = send(method, acme.path(route), key, bodies.get(route, b"{"))
            if required or (key or "").startswith("tsk_"):
                assert answer.status == 401, (method, route)
                assert answer.body in (INVALID, None)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or answer.body is not None
            else:
                assert answer.status != 401
                # Anonymous requests use the tenant `default`, so they do not find this thread.
                if "{thread_id}" in route and method in allowed(route):
                    assert answer.status == 404, (method, route)
    assert acme.stored == before


@pytest.mark.parametrize("required", [True, False], ids=["keys required", "anonymous allowed"])
def test_key_of_the_tenant_can_use_every_route(
    send: Sender, acme: Tenant, bodies: dict[str, bytes], required: bool
) -> None:
    with keys_required(required):
        for route, method in product(API, METHODS):
            if method != "DELETE":
                answer = send(method, acme.path(route), acme.key, bodies.get(route, b"{"))
                assert answer.status == (200 if method in allowed(route) else 405), (method, route)
        for prefix in ("", "/v1"):
            mine = new_tenant("acme")
            deletable = sorted((route for route in API if "DELETE" in allowed(route)), key=len, reverse=True)
            for route in (route for route in deletable if route.startswith("/v1") == bool(prefix)):
                assert send("DELETE", mine.path(route), mine.key).status == 200, route
        for path, method in product(UNKNOWN_PATHS, METHODS):
            assert send(method, path, acme.key).status == 404, (method, path)


@pytest.mark.parametrize("required", [True, False], ids=["keys required", "anonymous allowed"])
def test_read_only_key_can_read_everything_and_write_nothing(
    send: Sender, acme: Tenant, bodies: dict[str, bytes], required: bool
) -> None:
    read_only, before = new_key(tenant="acme", read_only=True), acme.stored
    with keys_required(required):
        for route, method in product([*API, *UNKNOWN_PATHS], METHODS):
            path, body = acme.path(route), bodies.get(route, b"{")
            answer = send(method, path, read_only, body)
            if route in API and method in allowed(route) - {"GET", "HEAD"}:
                assert (answer.status, answer.body) == (403, {"detail": "Read-only key"}), (method, route)
            else:
                assert comparable(answer) == comparable(send(method, path, acme.key, body)), (method, route)
    assert acme.stored == before


@pytest.mark.parametrize(
    ("required", "shape"),
    [(True, "assistants=v1"), (False, "assistants=v2")],
    ids=["keys required, v1", "anonymous allowed, v2"],
)
def test_object_of_another_tenant_looks_like_a_missing_one(
    send: Sender, acme: Tenant, other: Tenant, bodies: dict[str, bytes], required: bool, shape: str
) -> None:
    def unused(public_id: str) -> str:
        return public_id[:-6] + ("000000" if public_id[-6:] != "000000" else "111111")

    missing_thread, missing_message = unused(acme.thread_id), unused(acme.message_id)
    of_acme = (acme.thread_id, acme.message_id)
    pairs_of_ids = [
        (of_acme, (missing_thread, missing_message)),
        ((other.thread_id, acme.message_id), (other.thread_id, missing_message)),
        ((acme.thread_id, other.message_id), (missing_thread, other.message_id)),
    ]
    queries = [
        "",
        "?limit=0",
        *(f"?{cursor}={{{name}}}&limit=5" for cursor in ("after", "before") for name in ("thread_id", "message_id")),
        "?after={message_id}&before={thread_id}",
    ]
    before = acme.stored
    with keys_required(required):
        for route, method, (existing, missing) in product(API, METHODS, pairs_of_ids):
            bodies_to_send = {bodies.get(route, b"{"), b"{"} if method == "POST" else {b""}
            one_query_only = method != "GET" or route.startswith("/v1")  # only GET without /v1 is sent with every query
            for query, body in product([""] if one_query_only else queries, bodies_to_send):
                path = route + query
                if (existing[0] == other.thread_id or existing[1] == other.message_id) and "{message_id}" not in path:
                    # Without a message id, the request with the second pair uses no id of acme, and the third pair
                    # repeats the first one.
                    continue
                if route.endswith("/threads") and method == "POST":
                    continue  # this request names no stored object
                for_existing, for_missing = (
                    send(method, Tenant("", *names).path(path), other.key, body, HTTP_OPENAI_BETA=shape)
                    for names in (existing, missing)
                )
                text = json.dumps(for_existing.body)
                for existing_id, missing_id in zip(existing, missing, strict=True):
                    text = text.replace(existing_id, missing_id)
                status, _, headers = comparable(for_existing)
                assert (status, text, headers) == comparable(for_missing), (method, path)
                assert "of acme" not in text
                if "{thread_id}" in urlsplit(path).path and existing == of_acme and method in allowed(route):
                    assert for_existing.status in (404, 422), (method, path)
    assert acme.stored == before


@pytest.mark.parametrize("query", ["", "?metadata[customer]=customer-17", "?limit=100&order=asc"])
def test_lists_contain_only_threads_of_the_tenant(query: str) -> None:
    first, second = new_tenant("left"), new_tenant("right")
    for tenant in (first, second):
        meta = {"HTTP_AUTHORIZATION": f"Bearer {tenant.key}"}
        listed = [thread["id"] for thread in Api().get(f"/threads{query}", **meta).body["data"]]
        assert tenant.thread_id in listed
        assert ({first.thread_id, second.thread_id} - {tenant.thread_id}).isdisjoint(listed)


def test_anonymous_requests_use_the_tenant_default(api: Api, thread_id: str) -> None:
    meta = {"HTTP_AUTHORIZATION": f"Bearer {new_key()}"}
    assert api.get(f"/threads/{thread_id}", **meta).status == 200


@pytest.mark.stateless
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("page", PAGES)
def test_pages_and_probes_need_no_key(client: Client, page: str, stranger: str) -> None:
    key = STRANGERS[stranger]()
    meta: Any = {} if key is None else {"HTTP_AUTHORIZATION": f"Bearer {key}"}
    for method in ("get", "head", "post", "put"):
        with keys_required():
            with_required_keys = getattr(client, method)(page, **meta)
        with_optional_keys = getattr(client, method)(page)
        assert with_required_keys.status_code == with_optional_keys.status_code != 401
        assert with_required_keys.headers.get("Content-Type") == with_optional_keys.headers.get("Content-Type")
        for answer in (with_required_keys, with_optional_keys):
            answer.close()


# The Authorization header


@pytest.mark.stateless
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer any",
        "Bearer TSK_x",
        "{key}",
        "Api-Key {key}",
        "Basic x, Bearer {key}",
        "Bearer\t{key}",
        "Bearer \xa0{key}",
        "B\xe9arer x",
        "Bearer é",
        "Bearer " + "x" * 60_000,
    ],
)
def test_foreign_credentials_are_ignored_or_refused(api: Api, authorization: str) -> None:
    meta = {"HTTP_AUTHORIZATION": authorization.format(key=new_key())}
    assert api.get("/threads/x", **meta).status == 404
    with keys_required():
        answer = api.get("/threads/x", **meta)
    assert (answer.status, answer.body) == (401, INVALID)


@pytest.mark.stateless
@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer tsk_",
        "Bearer tsk_\xe9",
        "Bearer tsk_\0",
        "Bearer {key}x",
        "Bearer {cut}",
        "Bearer {key} {key}",
        "Bearer {key}, Bearer {key}",
        "Bearer {key},Bearer any",
        "bearer tsk_" + "x" * 60_000,
        "Bearer {swapped}",
        "Bearer {guessed}",
    ],
)
def test_wrong_key_is_401_even_if_keys_are_not_required(api: Api, authorization: str) -> None:
    key = new_key()
    swapped = key.swapcase().replace("TSK_", "tsk_")
    guessed = key[:-1] + ("a" if key[-1] != "a" else "b")  # an existing prefix with a wrong secret
    meta = {"HTTP_AUTHORIZATION": authorization.format(key=key, cut=key[:-1], swapped=swapped, guessed=guessed)}
    for required in (True, False):
        with keys_required(required):
            answer = api.get("/threads/x", **meta)
        assert (answer.status, answer.body) == (401, INVALID)


@pytest.mark.stateless
@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "Bearer {} "])
def test_authorization_scheme_is_case_insensitive(api: Api, form: str) -> None:
    with keys_required():
        assert api.get("/threads/x", HTTP_AUTHORIZATION=form.format(new_key())).status == 404


@pytest.mark.stateless
@pytest.mark.parametrize("path", ["/threads/x/messages", "/nowhere", "/threads/runs"])
def test_only_the_key_check_comes_before_the_body_limit(api: Api, path: str) -> None:
    large = b" " * (4 * 2**20 + 1)
    read_only, writes = new_key(read_only=True), new_key()
    with keys_required():
        assert api.post(path, large).status == 401
        for key in (read_only, writes):
            answer = api.post(path, large, HTTP_AUTHORIZATION=f"Bearer {key}")
            assert (answer.status, answer.body) == (413, {"detail": "Request body too large"})


@pytest.mark.stateless
def test_cross_origin_write_requires_a_key(api: Api) -> None:
    meta = {"HTTP_ORIGIN": "https://evil.example"}
    assert api.post("/threads/x/messages", {}, **meta).status == 403
    assert api.post("/threads/x/messages", {}, HTTP_AUTHORIZATION=f"Bearer {new_key()}", **meta).status == 422


# Stored keys


@pytest.mark.stateless
def test_keys_are_long_random_and_not_stored() -> None:
    keys = [new_key() for _ in range(50)]
    for key in keys:
        # The secret has 40 characters with 62 possible values each, which makes 238 bits.
        form = re.fullmatch(r"tsk_([0-9A-Za-z]{8})_([0-9A-Za-z]{40})", key)
        assert form
        row = APIKey.objects.get(prefix=form[1])
        assert form[2] not in str(vars(row))
        assert row.hashed_key.startswith("sha512$$")
    assert len({key[13:] for key in keys}) == 50


def test_key_check_is_one_query_and_no_write(api: Api, thread_id: str) -> None:
    meta = {"HTTP_AUTHORIZATION": f"Bearer {new_key()}"}
    with CaptureQueriesContext(connections["default"]) as with_key:
        assert api.get(f"/threads/{thread_id}", **meta).status == 200
    key_queries = [query["sql"] for query in with_key if "access_apikey" in query["sql"]]
    assert len(key_queries) == 1
    assert key_queries[0].startswith("SELECT")
