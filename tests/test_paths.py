"""Rules for every request: paths, methods, headers, and errors that the framework raises."""

import pytest
from django.test import Client, override_settings
from django.urls import path

from tests.conftest import Api

UNKNOWN_PATHS = [
    "//",
    "/thread",
    "/threads/",
    "/threads%0A",
    "//threads",
    "/threads//messages",
    "/threads/x/",
    "/threads/x/messages/",
    "/threads/x//messages",
    "/threads/runs",
    "/threads/x/runs",
    "/threads/x/runs/y",
    "/threads/x/runs/y/steps/z",
    "/threads/x/messages/y/",
    "/threads/x/messages//files",
    "/threads/x/messages/y/files/",
    "/threads/x/messages/y/files/z/",
    "/threads/x/messages/y/file",
    "/v1",
    "/v1/",
    "/v1/v1/threads",
    "/v1//threads",
    "/v1/threads/",
    "/v1/threads/runs",
    "/V1/threads",
    "/Threads",
    "/healthz/",
    "/docs//",
    "/openapi.json/",
    "/v1/assistants",
    "/v1/vector_stores/x/files",
    "/files/",
    "/v1/responses",
    "/v1/chat/completions",
    "/models",
    "/static/none.js",
    "/caf%C3%A9",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"]


@pytest.mark.stateless
@pytest.mark.parametrize("unknown", UNKNOWN_PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_unknown_path_is_404_for_every_method(api: Api, method: str, unknown: str) -> None:
    # One of these paths is `//threads`. Without the host in front, Django's client would take `threads` as a host.
    answer = api.call(method, f"http://testserver{unknown}", b"{")
    assert answer.status == 404
    assert answer.body in ({"detail": "Not Found"}, None)
    assert (answer.body is None) == (method == "HEAD")


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("known", "allowed"),
    [
        ("/threads", {"GET", "HEAD", "POST"}),
        ("/threads/x", {"GET", "HEAD", "POST", "DELETE"}),
        ("/threads/x/messages", {"GET", "HEAD", "POST"}),
        ("/v1/threads/x/messages", {"GET", "HEAD", "POST"}),
        ("/threads/x/messages/y", {"GET", "HEAD", "POST", "DELETE"}),
        ("/threads/x/messages/y/files", {"GET", "HEAD"}),
        ("/v1/threads/x/messages/y/files/z", {"GET", "HEAD"}),
        ("/", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
        ("/docs", {"GET", "HEAD"}),
        ("/docs/", {"GET", "HEAD"}),
        ("/redoc", {"GET", "HEAD"}),
        ("/redoc/", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
        ("/openapi.yaml", {"GET", "HEAD"}),
        ("/static/threadsvc/redoc.css", {"GET", "HEAD"}),
    ],
)
def test_wrong_method_is_405_and_names_the_right_ones(api: Api, known: str, allowed: set[str]) -> None:
    for method in set(METHODS) - allowed:
        answer = api.call(method, known, b"{")
        assert answer.status == 405, method
        assert answer.body in ({"detail": "Method Not Allowed"}, None)
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.stateless
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_page_with_a_slash_redirects_permanently(client: Client, page: str) -> None:
    for answer in (client.get(f"{page}/"), client.head(f"{page}/")):
        assert (answer.status_code, answer["Location"], answer.content) == (301, page, b"")
    assert client.get(page).status_code == 200


@pytest.mark.stateless
def test_range_that_a_file_does_not_have_is_told_in_json(api: Api) -> None:
    answer = api.get("/static/threadsvc/redoc.css", HTTP_RANGE="bytes=99999-")
    assert answer.status == 416
    assert "Range" in answer.body["detail"]
    assert answer.headers["content-range"].startswith("bytes */")


def test_head_is_get_without_a_body(api: Api, thread_id: str) -> None:
    get, head = api.get(f"/threads/{thread_id}"), api.call("HEAD", f"/threads/{thread_id}")
    assert (head.status, head.body) == (200, None)
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml", "", "nonsense", "application/json; indent=4", "*/*"]
)
def test_accept_is_ignored(api: Api, thread_id: str, accept: str) -> None:
    answer = api.get(f"/threads/{thread_id}?format=api", HTTP_ACCEPT=accept)
    assert (answer.status, answer.body["id"]) == (200, thread_id)


CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NOT_HTML = [
    None,
    "",
    "*/*",
    "application/json",
    "application/json, text/html",
    "application/json, text/plain, */*",
    "text/html;q=0.5, */*",
    "text/html;q=0, */*;q=0.1",
    "application/xml",
    "nonsense",
    ", ,;",
    "\xff",
]


@pytest.mark.stateless
@pytest.mark.parametrize("accept", [CHROMIUM, FIREFOX, "text/html", "text/html, application/json", "text/*"])
@pytest.mark.parametrize("keys_required", [False, True])
def test_browser_gets_a_page_for_an_unknown_path(client: Client, accept: str, keys_required: bool) -> None:
    with override_settings(ALLOW_ANONYMOUS=not keys_required):
        for path in ("/nowhere", "/docs//", "/healthz/", "/Threads", "/caf%C3%A9"):
            get, head = (call(path, HTTP_ACCEPT=accept) for call in (client.get, client.head))
            assert (get.status_code, head.status_code) == (404, 404)
            assert get["Content-Type"] == head["Content-Type"] == "text/html; charset=utf-8"
            assert get["Vary"] == head["Vary"] == "Accept"
            assert (b"<h1>Page not found</h1>" in get.content, head.content) == (True, b"")


@pytest.mark.stateless
@pytest.mark.parametrize("accept", NOT_HTML)
def test_program_gets_json_for_an_unknown_path(api: Api, accept: str | None) -> None:
    meta = {} if accept is None else {"HTTP_ACCEPT": accept}
    answer = api.get("/nowhere", **meta)
    vary = "Authorization, OpenAI-Beta, Accept"
    assert (answer.status, answer.body, answer.headers["vary"]) == (404, {"detail": "Not Found"}, vary)
    with override_settings(ALLOW_ANONYMOUS=False):
        answer = api.get("/nowhere", **meta)
    assert (answer.status, answer.body, answer.headers["vary"]) == (401, {"detail": "Invalid API key"}, vary)


@pytest.mark.stateless
@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nowhere", "/threads/", "/threads/runs", "/assistants", "/files/x"]
)
def test_unknown_path_of_the_api_is_json_for_browsers_too(api: Api, path: str) -> None:
    answer = api.get(path, HTTP_ACCEPT=CHROMIUM)
    assert (answer.status, answer.body) == (404, {"detail": "Not Found"})


@pytest.mark.stateless
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"GET", "HEAD"}))
def test_unknown_path_is_json_for_other_methods(api: Api, method: str) -> None:
    answer = api.call(method, "/nowhere", HTTP_ACCEPT=CHROMIUM)
    assert (answer.status, answer.body) == (404, {"detail": "Not Found"})


@pytest.mark.stateless
def test_missing_static_file_is_json_for_browsers_too(api: Api) -> None:
    answer = api.get("/static/none.js", HTTP_ACCEPT=CHROMIUM)
    assert (answer.status, answer.body) == (404, {"detail": "Not Found"})


def test_query_string_is_ignored_however_long(api: Api, thread_id: str) -> None:
    many = "&".join(f"k{i}=v" for i in range(3000))
    answer = api.post(f"/threads/{thread_id}/messages?{many}&x=%ff&;", {"role": "user", "content": "x"})
    assert answer.status == 200


def test_bodies_of_reads_and_deletes_are_not_read(api: Api, thread_id: str) -> None:
    path = f"/threads/{thread_id}"
    for target in (path, "/threads?limit=1", f"{path}/messages"):
        assert api.call("GET", target, b"\xff{").status == 200
        assert api.call("HEAD", target, b"{" * 5 * 2**20, "nonsense").status == 200
    for body in (b"\xff{", b"{" * 5 * 2**20):
        thread = api.post("/threads").body["id"]
        assert api.call("DELETE", f"/threads/{thread}", body, "nonsense").status == 200


@pytest.mark.parametrize("good", ["a", "x" * 128, "req_1.2:3/4~!"])
def test_request_id_of_the_client_comes_back(api: Api, good: str) -> None:
    assert api.get("/threads/x", HTTP_X_REQUEST_ID=good).headers["x-request-id"] == good


@pytest.mark.stateless
@pytest.mark.parametrize("bad", [None, "", "x" * 129, "a b", "é", "a\tb"])
def test_other_requests_get_an_id_of_their_own(api: Api, bad: str | None) -> None:
    meta = {} if bad is None else {"HTTP_X_REQUEST_ID": bad}
    ids = {api.get("/nowhere", **meta).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(len(request_id) == 32 for request_id in ids)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "a b", "[", "127.0.0.1:x"])
@pytest.mark.parametrize("target", ["/threads/x", "/nowhere", "/healthz/x", "/docs", "/static/threadsvc/redoc.css"])
def test_foreign_host_is_400_except_for_probes(api: Api, host: str, target: str) -> None:
    answer = api.get(target, HTTP_HOST=host)
    assert (answer.status, answer.body) == (400, {"detail": "Invalid Host header"})


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.7:8000", "", "a b", "[", None])
def test_probes_answer_under_any_host(api: Api, host: str | None) -> None:
    meta = {} if host is None else {"HTTP_HOST": host}
    assert [api.get(path, **meta).status for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize("shape", ["", "assistants=v2"])
def test_no_cache_may_store_a_response_of_the_api(api: Api, thread_id: str, shape: str) -> None:
    meta = {"HTTP_OPENAI_BETA": shape}
    answers = [
        api.post("/threads", **meta),
        api.get("/threads", **meta),
        api.call("HEAD", f"/v1/threads/{thread_id}", **meta),
        api.get("/threads/thread_none", **meta),
        api.get("/threads?limit=0", **meta),
        api.call("PUT", "/threads", **meta),
        api.post("/threads", b" " * (16 * 2**20 + 1), **meta),
        api.get("/threads", HTTP_HOST="evil.example", **meta),
        api.get("/nowhere", **meta),
        api.get("/v1/runs", **meta),
    ]
    with override_settings(ALLOW_ANONYMOUS=False):
        answers.append(api.get("/threads", **meta))
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 422, 405, 413, 400, 404, 404, 401]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["vary"].startswith("Authorization, OpenAI-Beta")


def test_no_cache_may_store_a_page_of_the_admin(client: Client, admin: Client) -> None:
    for page in (client.get("/admin/login/"), admin.get("/admin/"), admin.get("/admin/messages_app/thread/")):
        assert page.status_code == 200
        assert {"no-store", "private"} <= set(page["Cache-Control"].split(", "))


@pytest.mark.stateless
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_own_host_is_accepted(api: Api, host: str) -> None:
    assert api.get("/healthz", HTTP_HOST=host).status == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:8000", 200),
        ("https://LOCALHOST:8000", 200),
        ("https://app.example", 200),
        ("http://localhost:8001", 403),
        ("http://localhost", 403),
        ("https://evil.example", 403),
        ("https://app.example.evil.example", 403),
        ("foo://localhost:8000", 403),
        ("//localhost:8000", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
@override_settings(CSRF_TRUSTED_ORIGINS=["https://app.example"])
def test_write_from_a_page_of_another_origin_is_403(api: Api, thread_id: str, origin: str | None, status: int) -> None:
    meta = {"HTTP_HOST": "localhost:8000", **({} if origin is None else {"HTTP_ORIGIN": origin})}
    for target, body in (("/threads", b"{}"), (f"/threads/{thread_id}/messages", b'{"role":"user","content":"x"}')):
        answer = api.post(target, body, **meta)
        assert answer.status == status
        if status == 403:
            assert answer.body == {"detail": "Origin not allowed"}
    assert api.get(f"/threads/{thread_id}", **meta).status == 200
    assert api.call("PUT", "/threads", **meta).status == 405


def test_api_sets_and_reads_no_cookies(api: Api) -> None:
    answer = api.post("/threads", HTTP_COOKIE="sessionid=abc; csrftoken=def")
    assert (answer.status, "set-cookie" in answer.headers, "Cookie" in answer.headers["vary"]) == (200, False, False)


def broken(request: object) -> None:
    raise RuntimeError("a secret in a traceback")


# The type error is ignored: a view has to return a response, but this view always raises an exception.
urlpatterns = [path("broken", broken)]  # type: ignore[arg-type]
handler500 = "threadsvc.api.errors.server_error"


@pytest.mark.stateless
@override_settings(ROOT_URLCONF="tests.test_paths")
def test_fault_of_ours_is_a_bare_500_with_its_request_id_in_the_log(
    api: Api, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = api.get("/broken", HTTP_X_REQUEST_ID="find-me")
    assert (answer.status, answer.body) == (500, {"detail": "Internal Server Error"})
    assert answer.headers["x-request-id"] == "find-me"
    assert "a secret in a traceback" in caplog.text


def test_health_and_readiness(api: Api) -> None:
    assert api.get("/healthz").body == {"status": "ok"}
    assert api.get("/readyz").body == {"status": "ready"}
