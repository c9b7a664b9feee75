"""Chromium, controlled with Playwright, for page tests and screenshots.

Playwright runs an event loop in the calling thread, and Django refuses database queries in a thread with an event loop.
While a browser is open, tests must therefore read and write data through the service.
"""

import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.resources import files
from types import TracebackType
from typing import Any, Literal, Self

from playwright.sync_api import ConsoleMessage, Error, Page, Request, ViewportSize, sync_playwright

from tests.servers import Unavailable, install

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SECONDS_TO_WAIT = 15


def find_program() -> str:
    """Return the path of Debian's Chromium. Install Chromium if it is missing. Raise Unavailable if that fails."""
    if not shutil.which("chromium"):
        install("chromium")
    if program := shutil.which("chromium"):
        return program
    raise Unavailable("Debian's chromium was installed, but is not on the PATH")


class Browser:
    """A context manager that runs Chromium. Raises Unavailable if Chromium is missing or does not start."""

    def __init__(self, *flags: str) -> None:
        self.program, self.flags = find_program(), [*FLAGS, *flags]

    def __enter__(self) -> Self:
        self.playwright = sync_playwright().start()
        try:
            self.chromium = self.playwright.chromium.launch(executable_path=self.program, args=self.flags)
        except Error as error:
            self.playwright.stop()
            raise Unavailable(f"{self.program} did not start: {error.message.splitlines()[0]}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.chromium.close()
        self.playwright.stop()

    @contextmanager
    def open(self, origin: str, refusals: Collection[int] = (), **options: Any) -> Iterator[Page]:
        """Yield a page for this origin, with its own cookies, storage and permissions.

        At the end, raise AssertionError if the browser console contains errors or warnings, if a request failed, or if
        a request was sent to another origin. Responses with a status in `refusals` are not errors. `options` are passed
        to Playwright's new context.
        """
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", "base_url": origin, **options}
        context = self.chromium.new_context(**options)
        context.set_default_timeout(SECONDS_TO_WAIT * 1000)
        problems: list[str] = []

        def on_console(message: ConsoleMessage) -> None:
            refusal = re.match(r"Failed to load resource: the server responded with a status of (\d+)", message.text)
            if message.type in ("error", "warning") and not (refusal and int(refusal[1]) in refusals):
                problems.append(f"{message.type} at {message.location['url']}: {message.text}")

        def on_request(request: Request) -> None:
            if not request.url.startswith((f"{origin}/", "data:", "blob:")):
                problems.append(f"request to another origin: {request.url}")

        def on_failure(request: Request) -> None:
            # Chromium reports ERR_ABORTED when it leaves the page or starts a download. Neither is a problem.
            if request.failure != "net::ERR_ABORTED":
                problems.append(f"request failed: {request.method} {request.url}: {request.failure}")

        context.on("console", on_console)
        context.on("weberror", lambda error: problems.append(f"error in a script: {error.error}"))
        context.on("request", on_request)
        context.on("requestfailed", on_failure)
        try:
            yield context.new_page()
        except BaseException as error:
            for problem in problems:
                error.add_note(problem)
            raise
        finally:
            context.close()
        assert not problems, "\n".join(problems)


def serious_problems(page: Page, *rules: str) -> list[str]:
    """Return the problems that axe-core rates as serious or critical, with one string per element."""
    # Wait until all transitions have ended. Otherwise axe-core would check intermediate colours.
    page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => null)))")
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    options = {"preload": False, "resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = page.evaluate("options => axe.run(options)", options)
    return [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
