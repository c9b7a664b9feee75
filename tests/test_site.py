"""The documentation site: errors that fail its build, and the built site in a browser.

These tests need the site that `make docs` builds. They run only if SITE is set to the path of this site, as in
`.ci/run`.
"""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser import DESKTOP, PHONE, SCHEMES, Browser, serious_problems
from tests.conftest import ROOT

if "SITE" not in os.environ:
    pytest.skip("run `make docs`, then these tests with SITE=build/site", allow_module_level=True)

pytestmark = [pytest.mark.stateless, pytest.mark.process]

# Errors that fail the build

HOME = '<a class="md-nav__link" href="">Home</a> <a class="md-nav__link" href="./settings/">Settings</a>'
SETTINGS = '<a class="md-nav__link" href="../">Home</a> <h2 id="rates">Rates</h2> <img src="../front.png">'


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="../">1</a> <a href="../#"></a> <a href="https://openai.com/">2</a> <a href="#rates">3</a>', None),
        ('<a href="../nothing/">1</a>', "../nothing/ does not exist"),
        ('<a href="environment">1</a>', "environment does not exist"),
        ('<img src="../images/front.png">', "../images/front.png does not exist"),
        ('<a href="#limits">1</a>', "#limits has no such anchor"),
        ('<a href="../#limits">1</a>', "../#limits has no such anchor"),
        ('<script src="https://unpkg.com/mermaid"></script>', "loads https://unpkg.com/mermaid from another host"),
        ('<link href="//fonts.example/a.css">', "loads //fonts.example/a.css from another host"),
        ("<p>It has:\n- threads</p>", "put an empty line before this list or table: 'It has:\\n- threads'"),
        ("<p>It has <code>-</code>:\n| a |\n|---|</p>", "put an empty line before this list or table"),
        ("<p>It needs <code>a</code>\n<code>-</code> and\n3 more</p>", None),
    ],
)
def test_mistake_in_a_page_fails_the_build(tmp_path: Path, html: str, problem: str | None) -> None:
    found = problems(tmp_path, {"index.html": HOME, "settings/index.html": SETTINGS + html})
    assert len(found) == (problem is not None)
    assert all(line.startswith(f"/settings/index.html: {problem}") for line in found)


def test_page_outside_of_the_navigation_fails_the_build(tmp_path: Path) -> None:
    pages = {"index.html": HOME, "settings/index.html": SETTINGS, "errors/index.html": "", "404.html": ""}
    assert problems(tmp_path, pages) == ["/errors/index.html: has no line under nav in mkdocs.yml"]


@pytest.mark.parametrize(
    ("markdown", "numbers"),
    [
        ("- a\n  b\n\n    c\n\n        d\n\n```sh\na\n\n  b\n```\n", []),
        ("- a\n\n  b\n", [3]),
        ("- a\n\n      b\n\n1. c\n\n   d\n", [3, 7]),
    ],
)
def test_indent_that_ends_a_list_fails_the_build(tmp_path: Path, markdown: str, numbers: list[int]) -> None:
    builder, page = scripts_docs(), tmp_path / "page.md"
    builder.ROOT = tmp_path
    page.write_text(markdown)
    assert [int(line.split(":")[1]) for line in builder.wrong_indents(page)] == numbers


def problems(site: Path, pages: dict[str, str]) -> list[str]:
    (site / "front.png").touch()
    for path, html in pages.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(html)
    found: list[str] = list(scripts_docs().problems(site))
    return found


def scripts_docs() -> Any:
    """Import `scripts/docs` as a module and return it."""
    path = str(ROOT / "scripts/docs")
    spec = spec_from_file_location("scripts_docs", path, loader=SourceFileLoader("scripts_docs", path))
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The built site


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Path:
    return (ROOT / os.environ["SITE"]).resolve(strict=True)


@pytest.fixture(scope="module")
def origin(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 25, 29)"}
TABLES, CODE = "/settings/", "/tutorial/"


def test_search_finds_a_setting_by_its_name(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto("/")
        page.get_by_role("button", name="Search").first.click()
        page.locator("dialog input").fill("THREADSVC_RATE_LIMIT")
        page.locator("dialog a[href*='/settings/']").click()
        expect(page).to_have_title("Settings - threadsvc")


def test_each_page_fits_its_window_and_is_self_contained(browser: Browser, origin: str, site: Path) -> None:
    pages = sorted("/" + str(file.relative_to(site)).removesuffix("index.html") for file in site.rglob("index.html"))
    assert len(pages) > 30
    with browser.open(origin) as page:
        for path in pages:
            page.goto(path)
            for window in (PHONE, DESKTOP):
                page.set_viewport_size(window)
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, window)


@pytest.mark.parametrize("path", ["/", TABLES, CODE])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("window", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_page_has_no_serious_problem_of_accessibility(
    browser: Browser, origin: str, path: str, scheme: str, window: Any
) -> None:
    with browser.open(origin, viewport=window, color_scheme=scheme) as page:
        page.goto(path)
        expect_scheme(page, scheme)
        assert serious_problems(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_results_of_the_search_have_enough_contrast(
    browser: Browser, origin: str, scheme: Literal["light", "dark"]
) -> None:
    with browser.open(origin, color_scheme=scheme) as page:
        page.goto("/")
        page.get_by_role("button", name="Search").first.click()
        page.locator("dialog input").fill("rate limit")
        page.locator("dialog a").first.wait_for()
        assert serious_problems(page, "color-contrast") == []


def expect_scheme(page: Page, scheme: str) -> None:
    expect(page.locator("body")).to_have_css("background-color", BACKGROUNDS[scheme])


def test_colours_follow_the_system_until_the_switch_chooses_others(browser: Browser, origin: str) -> None:
    with browser.open(origin, color_scheme="dark") as page:
        page.goto("/")
        expect_scheme(page, "dark")
        page.get_by_title("Switch to light mode").click()
        expect_scheme(page, "light")
        page.goto(TABLES)
        expect_scheme(page, "light")
        page.get_by_title("Switch to dark mode").click()
        page.get_by_title("Switch to system preference").click()
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            expect_scheme(page, scheme)


def test_copy_button_copies_the_commands_of_a_session_and_whole_code(browser: Browser, origin: str) -> None:
    with browser.open(origin, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(CODE)
        for language in ("sh", "console", "pycon"):
            block = page.locator(f".language-{language}").first
            block.hover()
            block.get_by_role("button").click()
            text = block.inner_text().strip()
            if language == "console":
                text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
            assert page.evaluate("navigator.clipboard.readText()") == text
            assert text


def test_description_of_the_api_can_be_downloaded(browser: Browser, origin: str) -> None:
    with browser.open(origin) as page:
        page.goto(TABLES)
        link = page.get_by_role("link", name="OpenAPI description").first.get_attribute("href")
        answer = page.request.get(f"{origin}{TABLES}{link}")
        assert answer.text().startswith("openapi: 3.")
