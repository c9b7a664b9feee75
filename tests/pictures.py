"""Take the screenshots for the README and the documentation, with `python -m tests.pictures` (scripts/pictures).

The service has the same data in every run. To add a picture, write a function that opens its page, and add the function
to PICTURES.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Page

from tests.browser import Browser
from tests.servers import Unavailable, free_port

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs/images"
# The service listens on a free port. The pictures show this address instead, which is the default.
ORIGIN = "http://127.0.0.1:8000"
OPERATOR, PASSWORD = "ann", "correct horse battery"
SECONDS_TO_START = 30
MAX_BYTES = 200_000


class Picture(NamedTuple):
    visit: Callable[[Page], None]
    # Options of Playwright's browser context, such as the window size.
    options: dict[str, Any] = {}


def front(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Copy").first.wait_for()


def create_message(page: Page) -> None:
    """Show a request and its response on /docs."""
    page.goto("/docs")
    call = page.locator("[id$=-create_message]")
    call.locator(".opblock-summary-control").click()
    oldest = "fetch('/threads?order=asc&limit=1').then(answer => answer.json())"
    call.get_by_placeholder("thread_id").fill(page.evaluate(oldest)["first_id"])
    call.get_by_role("button", name="Execute").click()
    call.locator(".live-responses-table").wait_for()
    page.evaluate(USE_FIXED_VALUES)
    call.locator("tr[data-param-name=thread_id]").evaluate("element => element.scrollIntoView()")


# This script replaces new ids and times with fixed values, so the picture is the same in every run.
USE_FIXED_VALUES = r"""() => {
  const texts = document.createTreeWalker(document.querySelector(".live-responses-table"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data
      .replace(/msg_\w{26}/, "msg_01m8244hrvnhpt8jxvvk124ebw")
      .replace(/^"[0-9a-f]{24}"$/, '"6b0323664b778f6267c84d52"')
      .replace(/^\d{10}$/, "1795367782");
  }
}"""


def threads(page: Page) -> None:
    log_in(page)
    page.goto("/admin/messages_app/thread/?q=viewpoint")
    page.locator(".hit").first.wait_for()


def thread(page: Page) -> None:
    """Open a thread from a search result."""
    log_in(page)
    page.goto("/admin/messages_app/thread/?q=read_logs")
    page.locator(".hit").first.click()
    page.locator("article:target").wait_for()
    page.evaluate("scrollTo(0, 0)")


def log_in(page: Page) -> None:
    page.goto("/admin/login/?next=/admin/")
    page.get_by_label("Username").fill(OPERATOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


# A window of 1280x1340 pixels instead of the default 1280x800, so that request and response fit.
TALLER = {"viewport": {"width": 1280, "height": 1340}, "device_scale_factor": 0.75}
PICTURES = {
    "front": Picture(front),
    "create-message": Picture(create_message, TALLER),
    "threads": Picture(threads),
    "thread": Picture(thread),
    "thread-dark": Picture(thread, {"color_scheme": "dark"}),
}


@contextmanager
def service() -> Iterator[int]:
    """Start a service with sample conversations and yield its port.

    The service does not inherit this process's environment, so the developer's settings do not change the pictures.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        settings = {"THREADSVC_DATA_DIR": directory, "PORT": str(port), "WEB_CONCURRENCY": "2"}
        settings["THREADSVC_ALLOW_ANONYMOUS"] = "1"
        variables = {"PATH": os.environ["PATH"], "DJANGO_SUPERUSER_PASSWORD": PASSWORD, **settings}
        manage = [sys.executable, "manage.py"]
        account = ["createsuperuser", "--noinput", f"--username={OPERATOR}", "--email=ann@shop.example", "-v0"]
        for command in (["migrate", "-v0"], ["seed", "--threads", "60", "--messages", "900", "--seed", "7"], account):
            subprocess.run([*manage, *command], cwd=ROOT, env=variables, check=True)
        server = subprocess.Popen([*manage, "serve"], cwd=ROOT, env=variables, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz")
            yield port
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.1)
    sys.exit(f"{url} does not respond")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with service() as port, Browser(f"--host-resolver-rules=MAP 127.0.0.1:8000 127.0.0.1:{port}") as browser:
        for name, picture in PICTURES.items():
            path = IMAGES / f"{name}.png"
            with browser.open(ORIGIN, **picture.options) as page:
                picture.visit(page)
                page.screenshot(path=path, animations="disabled", caret="hide")
            size = path.stat().st_size
            print(f"{path.relative_to(ROOT)}: {size:,} bytes", flush=True)
            if size > MAX_BYTES:
                sys.exit(f"larger than {MAX_BYTES:,} bytes: show less, or scale it down")


if __name__ == "__main__":
    try:
        main()
    except Unavailable as error:
        sys.exit(f"threadsvc: {error}")
