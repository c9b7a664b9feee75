"""Chromium, driven by Playwright: for tests of pages, and for the pictures of them.

While one runs, its thread counts as asyncio's, and Django refuses queries in it: what is to be stored or looked at
meanwhile goes through the service that is browsed.
"""

import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

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
SECONDS_TO_WAIT = 15


def find_program() -> str:
    """Debian's Chromium, which is installed where it is missing. Raises Unavailable."""
    if not shutil.which("chromium"):
        install("chromium")
    if program := shutil.which("chromium"):
        return program
    raise Unavailable("Debian's chromium was installed, and is not on the path")


class Browser:
    """One Chromium, as a context manager. Raises Unavailable."""

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
        """A page for addresses of this origin, with cookies, storage and permissions of its own.

        Raises AssertionError at the end where the console had errors or warnings, a request failed, or one went to
        another origin. Answers of the statuses `refusals` are no errors. `options` are those of Playwright's context.
        """
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", "base_url": origin, **options}
        context = self.chromium.new_context(**options)
        context.set_default_timeout(SECONDS_TO_WAIT * 1000)
        found: list[str] = []

        def said(message: ConsoleMessage) -> None:
            refusal = re.match(r"Failed to load resource: the server responded with a status of (\d+)", message.text)
            if message.type in ("error", "warning") and not (refusal and int(refusal[1]) in refusals):
                found.append(f"{message.type} at {message.location['url']}: {message.text}")

        def asked(request: Request) -> None:
            if not request.url.startswith((f"{origin}/", "data:", "blob:")):
                found.append(f"asked another host: {request.url}")

        def failed(request: Request) -> None:
            if request.failure != "net::ERR_ABORTED":  # by the browser, which went on to another page or saves a file
                found.append(f"failed: {request.method} {request.url}: {request.failure}")

        context.on("console", said)
        context.on("weberror", lambda error: found.append(f"error in a script: {error.error}"))
        context.on("request", asked)
        context.on("requestfailed", failed)
        try:
            yield context.new_page()
        except BaseException as error:
            for problem in found:
                error.add_note(problem)
            raise
        finally:
            context.close()
        assert not found, "\n".join(found)
