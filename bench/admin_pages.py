"""Measure the server time of every admin page on SQLite, in a large and a small store.

    .venv/bin/python bench/admin_pages.py [DATA_DIR]

The large store has 1,000,000 messages in 50,000 threads. The small store has 1,000 messages in 50 threads. To use your
own large store, pass its data directory, which must be migrated and seeded. The program adds an account "bench" to it.
Without DATA_DIR, the program creates the large store, which takes several minutes.

Prints one table. Each row has these values of one page:

- the number of queries
- the median and the longest response time of RUNS requests to the large store, in milliseconds
- the median in the small store, and the ratio of the two medians

If the ratio is near 1, the size of the store does not affect the page. Exits with 1 if a page of the large store took
longer than LIMIT_MS.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
LIMIT_MS = 300
SIZES = {"large": (50_000, 1_000_000), "small": (50, 1_000)}


def manage(directory: Path, *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "THREADSVC_DATA_DIR": str(directory)})


def seeded(directory: Path, size: str) -> Path:
    threads, messages = SIZES[size]
    manage(directory, "migrate", "-v0")
    manage(directory, "seed", "--seed", "7", "--threads", str(threads), "--messages", str(messages))
    return directory


def measure_in_process(directory: Path) -> dict[str, Any]:
    """Measure the pages of a store in a child process. Return the results by description of the page."""
    variables = {
        **os.environ,
        "THREADSVC_DATA_DIR": str(directory),
        "THREADSVC_ALLOWED_HOSTS": "testserver",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, __file__, "--measure"], env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def pages() -> dict[str, str]:
    """Return one path for each kind of page. The keys are descriptions of the pages."""
    from django.db.models import Count, Max

    from messages_app.models import Message, Thread

    threads, messages = "/admin/messages_app/thread/", "/admin/messages_app/message/"
    longest = Message.objects.order_by().values_list("thread").annotate(number=Count("id")).order_by("-number")[0][0]
    last = Message.objects.filter(thread=longest).aggregate(Max("position"))["position__max"]
    middle = Message.by_time.order_by("created_at", "id")[Message.objects.count() // 2]
    old = Thread.objects.order_by("created_at", "id")[0]
    day = f"{middle.created_at:%Y-%m-%d}"
    after = f"{int(middle.created_at.timestamp())}_{middle.id}"
    customer = next(t.metadata["customer"] for t in Thread.objects.all()[:100] if "customer" in t.metadata)
    return {
        "index": "/admin/",
        "threads": threads,
        "threads, in the middle": f"{threads}?after={after}",
        "threads of a day": f"{threads}?since={day}&until={day}",
        "threads of a tenant": f"{threads}?tenant=default",
        "threads by a common pair": f"{threads}?metadata=channel%3Dweb",
        "threads by a rare pair": f"{threads}?q=customer%3D{customer}",
        "threads by two pairs": f"{threads}?metadata=channel%3Dweb&q=customer%3D{customer}",
        "threads by id": f"{threads}?q={old.id}",
        "threads by _id": f"{threads}?q={old.object_id}",
        "threads by a common word": f"{threads}?q=the",
        "threads by a rare word": f"{threads}?q=Valpara%C3%ADso+okonomiyaki",
        "threads by a word that is nowhere": f"{threads}?q=nowhere-to-be-found",
        "threads by a word of the JSON": f"{threads}?q=annotations",
        "transcript, first page": f"{threads}{longest}/change/",
        "transcript, middle": f"{threads}{longest}/change/?from={last // 2}",
        "transcript, last page": f"{threads}{longest}/change/?upto={last}",
        "thread, before it is deleted": f"{threads}{longest}/delete/",
        "messages": messages,
        "messages, in the middle": f"{messages}?after={after}",
        "messages of a day": f"{messages}?since={day}&until={day}",
        "messages of a role": f"{messages}?role=tool_call",
        "messages with files": f"{messages}?has_files=yes",
        "messages of a run": f"{messages}?run_id=run_none",
        "messages by id": f"{messages}?q={middle.id}",
        "messages by _id": f"{messages}?q={middle.object_id}",
        "messages by a word that is nowhere": f"{messages}?q=nowhere-to-be-found",
        "messages by a word of the JSON": f"{messages}?q=annotations",
        "messages: role, files and a word": f"{messages}?role=assistant&has_files=yes&q=nowhere",
        "message": f"{messages}{middle.id}/change/",
        "message as JSON": f"{messages}{middle.id}/json/",
        "message, before it is deleted": f"{messages}{middle.id}/delete/",
    }


def measure() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "threadsvc.settings")
    django.setup()
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    user, _ = User.objects.get_or_create(username="bench", defaults={"is_staff": True, "is_superuser": True})
    client = Client()
    client.force_login(user)
    found = {}
    for name, address in pages().items():
        with CaptureQueriesContext(connection) as captured:
            client.get(address)
        queries = len(captured)
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            answer = client.get(address)
            times.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200, (address, answer.status_code)
        found[name] = {"ms": median(times), "most": max(times), "queries": queries}
    print(json.dumps(found))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else seeded(Path(scratch) / "large", "large")
        small = measure_in_process(seeded(Path(scratch) / "small", "small"))
        large = measure_in_process(given)
    print(f"{'page':36} {'queries':>7} {'ms':>7} {'slowest':>8} {'ms, small':>10} {'ratio':>6}")
    for name, page in large.items():
        other = small[name]
        print(
            f"{name:36} {page['queries']:>7} {page['ms']:>7.1f} {page['most']:>8.1f} {other['ms']:>10.1f}"
            f" {page['ms'] / other['ms']:>6.2f}"
        )
    if any(page["most"] > LIMIT_MS for page in large.values()):
        sys.exit(f"a page took longer than {LIMIT_MS} ms")


if __name__ == "__main__":
    measure() if "--measure" in sys.argv else main()
