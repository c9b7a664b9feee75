"""The pages of a running service in a real browser, used as a person would use them."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import DESKTOP, PHONE, SCHEMES, Browser, serious_problems
from tests.conftest import Served, manage

pytestmark = pytest.mark.engine("sqlite")

THREAD_ID = re.compile(r"thread_[0-9a-z]{26}")


@pytest.fixture(scope="module")
def origin(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}"


# The front page


def test_front_page_leads_to_everything_there_is(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("threadsvc")
        links = {link.get_attribute("href") for link in page.get_by_role("link").all()}
        assert links == {"/docs", "/redoc", "/admin/", "/openapi.json", "/healthz", "/readyz"}
        for link in sorted(map(str, links)):
            page.goto("/")
            page.get_by_role("navigation").locator(f'a[href="{link}"]').click()
            page.wait_for_url(re.compile(re.escape(f"{origin}{link}")), wait_until="commit")
            assert page.request.get(page.url).status == 200


def test_unknown_page_leads_to_the_pages_that_exist(browser: Browser, origin: str) -> None:
    with browser.open(origin, refusals={404}) as page:
        for name, link in (("Front page", "/"), ("Interactive API reference", "/docs"), ("Admin", "/admin/")):
            response = page.goto("/nowhere")
            assert response is not None
            assert response.status == 404
            expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
            page.get_by_role("link", name=name, exact=True).click()
            page.wait_for_url(re.compile(re.escape(f"{origin}{link}")), wait_until="commit")


@pytest.mark.parametrize("clipboard", ["of the browser", "none, as on plain HTTP from elsewhere"])
def test_copied_commands_make_a_thread_and_a_message(
    browser: Browser, origin: str, served: Served, clipboard: str
) -> None:
    with browser.open(origin, permissions=["clipboard-read", "clipboard-write"]) as page:
        if clipboard != "of the browser":
            page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        page.goto("/")
        commands = [copied(page, button) for button in page.get_by_role("button", name="Copy").all()]
    assert len(commands) == 2
    done = subprocess.run(["sh", "-eu", "-c", "\n".join(commands)], capture_output=True, text=True, timeout=30)
    thread_id, _, answer = done.stdout.partition("\n")
    assert (THREAD_ID.fullmatch(thread_id) is not None, done.stderr) == (True, "")
    message = json.loads(answer)
    assert message["content"] == [{"type": "text", "text": {"value": "How does AI work?", "annotations": []}}]
    assert served.call("GET", f"/threads/{thread_id}/messages").body["data"] == [message]


def copied(page: Page, button: Locator) -> str:
    """Press a button with the keyboard and return the text in the clipboard. Expect a message for screen readers."""
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Copied")
    # Read the clipboard in another page, because a test may have removed the clipboard API from the first page.
    other = page.context.new_page()
    other.goto("/healthz")
    text: str = other.evaluate("navigator.clipboard.readText()")
    other.close()
    return text


def test_front_page_without_scripts_has_no_dead_buttons(browser: Browser, origin: str) -> None:
    with browser.open(origin, java_script_enabled=False) as page:
        page.goto("/")
        expect(page.locator("pre").first).to_contain_text(f'curl -sS -X POST "{origin}/v1/threads"')
        expect(page.get_by_role("button")).to_have_count(0)


# The API's page


def operation(page: Page, operation_id: str, thread_id: str = "") -> Locator:
    """Open an operation on the API page. Fill in the thread id if it is given. Return the operation."""
    found = page.locator(f"[id$=-{operation_id}]")
    found.locator(".opblock-summary-control").click()
    if thread_id:
        found.get_by_placeholder("thread_id").fill(thread_id)
    return found


def executed(call: Locator) -> tuple[int, Any]:
    """Execute a call and return the status and body that the page shows."""
    call.get_by_role("button", name="Execute").click()
    shown = call.locator(".live-responses-table")
    body = json.loads(shown.locator(".response-col_description code").first.inner_text())
    return int(shown.locator("tbody .response-col_status").inner_text().split()[0]), body


def test_newcomer_creates_a_thread_and_a_message_in_docs(browser: Browser, origin: str, served: Served) -> None:
    with browser.open(origin, refusals={422}) as page:
        page.goto("/docs")
        status, thread = executed(operation(page, "create_thread"))
        assert (status, thread["metadata"]) == (200, {"customer": "customer-17"})
        create = operation(page, "create_message", thread["id"])
        status, message = executed(create)
        assert (status, message["role"], message["metadata"]) == (200, "user", {"topic": "ai"})
        assert "status" not in message
        assert served.call("GET", f"/threads/{thread['id']}/messages").body["data"] == [message]

        create.locator("textarea").fill('{"role": "user", "text": "How?"}')
        create.get_by_role("button", name="Clear").click()
        status, refusal = executed(create)
        assert status == 422
        assert [item["loc"] for item in refusal["detail"]] == [["body", "content"], ["body", "text"]]


def test_docs_lists_threads_and_creates_in_the_v2_shape(browser: Browser, origin: str, served: Served) -> None:
    thread_id = served.new_thread()
    with browser.open(origin) as page:
        page.goto("/docs")
        # The empty form must send no filter. Otherwise the list would not contain the new thread.
        status, threads = executed(operation(page, "list_threads"))
        assert (status, threads["data"][0]["id"]) == (200, thread_id)
        create = operation(page, "create_message", thread_id)
        shape, body = create.locator(".opblock-section .examples-select select").all()
        shape.select_option(label="The shape of Assistants v2")
        body.select_option(label="OpenAI-Beta: assistants=v2, an assistant's message")
        status, message = executed(create)
        assert (status, message["role"], message["status"]) == (200, "assistant", "completed")


# The maximum height of an open operation in a desktop browser.
MOST_PIXELS = 2500


def test_link_to_an_operation_of_docs_survives_a_reload(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto("/docs")
        operation(page, "create_message")
        expect(page).to_have_url(f"{origin}/docs#/Messages/create_message")
        page.reload()
        opened = page.locator(".opblock.is-open")
        expect(opened).to_have_count(1)
        expect(opened).to_have_id("operations-Messages-create_message")
        assert page.evaluate("document.documentElement.scrollHeight") <= MOST_PIXELS


def test_docs_shows_code_samples_and_an_example_of_each_status(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto("/docs#/Messages/create_message")
        reference = page.locator(".reference")
        for label, word in (("Python", "OpenAI"), ("JavaScript", "await"), ("Go", "package main"), ("curl", "curl")):
            reference.get_by_role("button", name=label, exact=True).click()
            sample = reference.locator(".highlight-code").first
            expect(sample).to_contain_text(word)
            expect(sample).to_contain_text(f"{origin}/v1")
        statuses = reference.get_by_role("group", name="Responses").get_by_role("button")
        assert statuses.count() == 12
        for status in statuses.all():
            status.click()
            code = reference.locator(".responses-wrapper .highlight-code code")
            expect(code).not_to_contain_text('"string"')
            json.loads(code.inner_text())
        expect(page.locator(".servers option").first).to_have_text("/v1")


def test_link_to_an_operation_of_redoc_survives_a_reload(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto("/redoc#tag/Messages/operation/create_message")
        page.reload()
        create = page.locator("[id='tag/Messages/operation/create_message']")
        expect(create).to_be_in_viewport()
        assert create.evaluate("element => element.offsetHeight") <= MOST_PIXELS
        create.get_by_role("tab", name="Python").click()
        expect(create).to_contain_text(f'OpenAI(base_url="{origin}/v1"')
        create.get_by_role("tab", name="404").click()
        expect(create).to_contain_text("Thread with ID 'thread_01m8244hnpq5dx0k7ta3w9r2ve' not found")


# The admin

THREADS, MESSAGES = "/admin/messages_app/thread/", "/admin/messages_app/message/"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def operator(browser: Browser, origin: str, served: Served) -> Any:
    """A browser's cookies and storage after a login through the login form."""
    # The name is unique, because a test worker may run this fixture more than once with the same database.
    name = f"ann-{uuid4().hex}"
    made = manage(
        served.directory,
        *("createsuperuser", "--noinput", f"--username={name}", "--email=ann@shop.example"),
        DJANGO_SUPERUSER_PASSWORD=PASSWORD,
    )
    assert made.returncode == 0, made.stderr
    with browser.open(origin) as page:
        page.goto(THREADS)
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Threads")
        return page.context.storage_state()


@pytest.fixture(scope="module")
def conversation(served: Served) -> str:
    """The id of a thread with 120 messages. One message contains a script."""
    texts = [f"Message number {number}." for number in range(1, 121)]
    texts[6] = "The platypus is here:\n<script>alert('run')</script><img src=x onerror=alert(1)>"
    parts = [{"role": "user", "content": text} for text in texts]
    made = served.call("POST", "/threads", {"messages": parts[:100], "metadata": {"animal": "platypus & <b>co</b>"}})
    for part in parts[100:]:
        served.call("POST", f"/threads/{made.body['id']}/messages", part)
    thread_id: str = made.body["id"]
    return thread_id


def search(page: Page, **values: str) -> None:
    for label, value in values.items():
        page.get_by_label(label, exact=True).fill(value)
    follow(page.get_by_role("button", name="Search"))


def follow(link: Locator) -> None:
    """Click a link or a button, and wait for the next page."""
    with link.page.expect_navigation():
        link.click()


def rows(page: Page) -> list[str]:
    return page.locator("#result_list .field-id a").all_inner_texts()


def test_operator_finds_a_thread_by_words_and_reads_it(
    browser: Browser, origin: str, served: Served, operator: Any, conversation: str
) -> None:
    with browser.open(origin, storage_state=operator) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a message was run: {dialog.message}"))
        page.goto("/admin/")
        follow(page.get_by_role("link", name="Threads", exact=True))
        search(page, Search="platypus HERE")
        assert rows(page) == [conversation]
        follow(page.locator(".hit"))
        found = page.locator("article:target")
        expect(found.locator(".text")).to_have_text(
            "The platypus is here:\n<script>alert('run')</script><img src=x onerror=alert(1)>", use_inner_text=True
        )
        expect(found.locator("script, img")).to_have_count(0)
        expect(found).to_be_in_viewport()
        message_id = found.get_attribute("id")
        follow(found.get_by_role("link", name="JSON"))
        shown = json.loads(page.locator("pre").inner_text())
        assert shown == served.call("GET", f"/threads/{conversation}/messages/{message_id}").body
        page.go_back()
        follow(found.get_by_role("link", name="open"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Message")
        follow(page.get_by_role("link", name=conversation))
        expect(found).to_have_attribute("id", str(message_id))


def test_operator_pages_through_a_long_thread(browser: Browser, origin: str, operator: Any, conversation: str) -> None:
    def numbers() -> tuple[int, int]:
        texts = page.locator(".transcript header").all_inner_texts()
        found = [int(match[1]) for text in texts if (match := re.search(r"#(\d+)", text))]
        assert found == list(range(found[0], found[-1] + 1))
        return found[0], found[-1]

    with browser.open(origin, storage_state=operator) as page:
        page.goto(f"{THREADS}{conversation}/change/")
        seen = [numbers()]
        for link in ("Later", "Later", "Earlier", "First", "Last"):
            follow(page.get_by_role("link", name=link).first)
            seen.append(numbers())
        assert seen == [(1, 50), (51, 100), (101, 120), (51, 100), (1, 50), (71, 120)]


def test_operator_filters_lists(
    browser: Browser, origin: str, operator: Any, conversation: str, served: Served
) -> None:
    other = served.call("POST", "/threads", {"metadata": {"animal": "wombat"}}).body["id"]
    with browser.open(origin, storage_state=operator) as page:
        page.goto(THREADS)
        assert {conversation, other} <= set(rows(page))
        follow(page.get_by_role("link", name="animal platypus"))
        assert rows(page) == [conversation]
        follow(page.get_by_role("link", name="Clear"))
        search(page, Search="animal=wombat")
        assert rows(page) == [other]
        search(page, Search="", From="2001-01-01", To="2001-01-31")
        expect(page.locator("#pages")).to_have_text("Nothing found.", use_inner_text=True)
        search(page, From="", To="", Metadata="no pair")
        expect(page.locator(".error")).to_have_text("Enter a pair as key=value.")
        page.goto(MESSAGES)
        page.get_by_label("Role").select_option("assistant")
        search(page, Search="platypus")
        assert rows(page) == []
        page.get_by_label("Role").select_option("user")
        search(page)
        assert len(rows(page)) == 1
        search(page, Search="")
        first = rows(page)
        follow(page.get_by_role("link", name="Older"))
        assert len(first) == 50
        assert not set(first) & set(rows(page))
        follow(page.get_by_role("link", name="Newest"))
        assert rows(page) == first


def test_operator_exports_what_is_selected(browser: Browser, origin: str, operator: Any, served: Served) -> None:
    made = [
        served.call("POST", "/threads", {"messages": [{"role": "user", "content": f"quokka {number}"}]}).body["id"]
        for number in range(3)
    ]
    with browser.open(origin, storage_state=operator) as page:
        page.goto(f"{THREADS}?q=quokka")
        for thread_id in made[:2]:
            page.locator(f"input[type=checkbox][value={thread_id}]").check()
        page.locator("select[name=action]").select_option(label="Export selected threads")
        with page.expect_download() as download:
            page.get_by_role("button", name="Go").click()
        lines = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == made[:2]
    assert [line["messages"][0]["content"][0]["text"]["value"] for line in lines] == ["quokka 0", "quokka 1"]


def test_operator_deletes_after_a_question(browser: Browser, origin: str, operator: Any, served: Served) -> None:
    messages = [{"role": "user", "content": f"numbat {number}"} for number in range(3)]
    thread_id = served.call("POST", "/threads", {"messages": messages}).body["id"]
    with browser.open(origin, storage_state=operator) as page:
        page.goto(f"{THREADS}{thread_id}/change/")
        follow(page.get_by_role("link", name="Delete"))
        expect(page.locator("#content")).to_contain_text("Messages: 3")
        follow(page.get_by_role("link", name="No, take me back"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Thread")
        assert served.call("GET", f"/threads/{thread_id}").status == 200
        follow(page.get_by_role("link", name="Delete"))
        page.get_by_role("button", name=re.compile("Yes, I.m sure")).click()
        expect(page.locator(".messagelist .success")).to_contain_text("was deleted")
        assert served.call("GET", f"/threads/{thread_id}").status == 404
        assert thread_id not in rows(page)


# Pages of other origins


@pytest.fixture(scope="module")
def shared(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that accepts requests from pages of `origin`."""
    service = Served(tmp_path_factory.mktemp("shared") / "data", THREADSVC_CORS_ORIGINS=f"https://a.example,{origin}")
    yield service
    service.kill()


# The headers that OpenAI's SDK sends from a browser. A request with these headers needs a preflight request.
SDK_HEADERS = {
    "Authorization": "Bearer any",
    "Content-Type": "application/json",
    "Idempotency-Key": "stainless-node-retry-1",
    "OpenAI-Beta": "assistants=v2",
    "X-Stainless-Lang": "js",
    "X-Stainless-Package-Version": "7.57.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "browser:chrome",
    "X-Stainless-Runtime-Version": "150.0.0",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Timeout": "600",
    "X-Request-Id": "mine",
}
FETCH = """async ([url, options]) => {
    const answer = await fetch(url, options).catch(error => error)
    if (answer instanceof Error) return String(answer)
    const told = Object.fromEntries(["x-request-id", "retry-after"].map(name => [name, answer.headers.get(name)]))
    return [answer.status, told, await answer.json()]
}"""
BLOCKED = "TypeError: Failed to fetch"


@pytest.fixture
def fetch(browser: Browser, origin: str) -> Iterator[Callable[..., Any]]:
    """Yield a function that fetches a URL from a page of `origin`.

    The function returns the status, some headers and the body, or the error as text.
    """
    with closing(browser.chromium.new_context()) as context:
        page = context.new_page()
        # Unlike the HTML pages, this page has no policy that forbids requests to other origins.
        page.goto(f"{origin}/healthz")
        yield lambda url, **options: page.evaluate(FETCH, [url, options])


def test_page_of_an_origin_that_may_uses_the_api_as_an_sdk_does(fetch: Callable[..., Any], shared: Served) -> None:
    at = f"http://127.0.0.1:{shared.port}/v1/threads"
    status, told, thread = fetch(at, method="POST", headers=SDK_HEADERS, body='{"metadata": {"by": "script"}}')
    assert (status, told["x-request-id"], thread["metadata"]) == (200, "mine", {"by": "script"})
    status, told, refusal = fetch(f"{at}/none", headers=SDK_HEADERS)
    assert (status, told["x-request-id"], refusal["detail"]) == (404, "mine", "Thread with ID 'none' not found")
    status, _, gone = fetch(f"{at}/{thread['id']}", method="DELETE", headers=SDK_HEADERS)
    assert (status, gone["deleted"]) == (200, True)


def test_page_gets_no_cookies_to_the_api_and_nothing_of_the_admin(fetch: Callable[..., Any], shared: Served) -> None:
    at = f"http://127.0.0.1:{shared.port}"
    assert fetch(f"{at}/v1/threads")[0] == 200
    assert fetch(f"{at}/v1/threads", credentials="include") == BLOCKED
    for path in ("/admin/login/", "/admin/messages_app/thread/", "/v1/threads/../../admin/"):
        assert fetch(f"{at}{path}") == BLOCKED


def test_page_of_any_other_origin_is_kept_out_by_the_browser(fetch: Callable[..., Any], served: Served) -> None:
    # The page's origin has the host 127.0.0.1, so for the browser, localhost is another origin.
    at = f"http://localhost:{served.port}/v1/threads"
    assert fetch(at) == BLOCKED
    assert fetch(at, method="POST", headers=SDK_HEADERS, body="{}") == BLOCKED


def test_only_allowed_origins_get_a_preflight_response(shared: Served, origin: str) -> None:
    def preflight(path: str, of: str) -> Any:
        asked = {"Origin": of, "Access-Control-Request-Method": "POST"}
        return shared.call("OPTIONS", path, **asked)

    for allowed in (origin, "https://a.example"):
        answer = preflight("/threads", allowed)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "access-control-allow-credentials" not in answer.headers
        assert {"origin"} <= set(answer.headers["vary"].lower().split(", "))
        assert preflight("/admin/", allowed).status == 302
        assert preflight("/threadsx", allowed).status == 404
    for other in ("https://b.example", "https://a.example:444", "http://a.example", "null", "", "http://[", "*"):
        answer = preflight("/threads", other)
        assert (answer.status, answer.body) == (405, {"detail": "Method Not Allowed"})
        assert "access-control-allow-origin" not in answer.headers
        assert shared.call("POST", "/threads", Origin=other).status == 403
    # Without Access-Control-Request-Method, an OPTIONS request is not a preflight request.
    assert shared.call("OPTIONS", "/threads", Origin=origin).status == 405


# Every page

READY = {
    "/": "main",
    "/nowhere": "main",
    "/docs": "#operations-Messages-create_message",
    "/redoc": "[data-section-id*=create_message]",
}


@pytest.mark.parametrize("path", READY)
def test_page_fits_its_window_and_follows_the_colour_scheme(browser: Browser, origin: str, path: str) -> None:
    with browser.open(origin, refusals={404}) as page:
        page.goto(path)
        page.locator(READY[path]).first.wait_for()
        for scheme, window in product(SCHEMES, (DESKTOP, PHONE)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(window)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (scheme, window)
            assert is_dark(page) == (scheme == "dark")
            assert window == PHONE or serious_problems(page) == [], scheme


def is_dark(page: Page) -> bool:
    colour: str = page.evaluate(
        "[document.body, document.documentElement].map(of => getComputedStyle(of).backgroundColor)"
        ".find(colour => colour !== 'rgba(0, 0, 0, 0)') ?? 'rgb(255, 255, 255)'"
    )
    return sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128


def test_admin_fits_its_window_and_follows_the_colour_scheme(
    browser: Browser, origin: str, operator: Any, conversation: str
) -> None:
    change = f"{THREADS}{conversation}/change/"
    paths = ["/admin/", THREADS, f"{THREADS}?q=platypus", change, f"{change}../delete/", MESSAGES]
    paths += ["/admin/access/apikey/", "/admin/access/apikey/add/"]
    with browser.open(origin, storage_state=operator) as page:
        for path in paths:
            page.goto(path)
            for scheme, window in product(SCHEMES, (DESKTOP, PHONE)):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size(window)
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, scheme, window)
                assert is_dark(page) == (scheme == "dark"), (path, scheme)
                assert window == PHONE or serious_problems(page) == [], (path, scheme)
