"""Kill the service and its database at random moments under load, and check that every acknowledged write is stored.

`python -m tests.torture --engine sqlite --kills 200` (make torture) prints how many writes it sent and found. It exits
with 1 if a check fails. tests/test_durability.py runs the same test with few kills.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zlib import crc32

from tests.engines import ENGINES, start
from tests.servers import Server, children_of, free_port, is_running
from tests.stored import stored

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"WEB_CONCURRENCY": "2", "THREADSVC_ALLOW_ANONYMOUS": "1"}

THREADS = 4  # shared by all writers
# The fraction of creates with an Idempotency-Key. Only these are retried, until they are acknowledged.
KEYED = 0.5
# Each writer changes its own metadata key of the shared threads, and a thread has at most 16 keys.
MAX_WRITERS = 16
MAX_UPTIME = 0.8  # longest time from the first acknowledged write after a start to the next kill, in seconds
KILLED_AT_START = 0.1  # the fraction of starts in which the service is killed before it responds
CHECK_EVERY = 10  # number of kills between two checks of the database file

# Generous timeouts. Only a failed run takes this long.
SECONDS_TO_WAIT = 30
SECONDS_TO_START = 60


class Answer(NamedTuple):
    status: int
    body: Any
    is_replay: bool


@dataclass
class Write:
    """One write, with a unique key.

    Times are from `time.monotonic()`. `acked_at` is None until the service acknowledges the write.
    """

    kind: str
    key: str
    thread: str = ""
    target: "Write | None" = None  # if this write is a deletion, the write that created the object
    sent_at: float = 0
    acked_at: float | None = None
    id: str = ""
    deletion: "Write | None" = None


def text_of(key: str) -> str:
    """Return the key, repeated 1, 20 or 1500 times. Most texts are short, and some fill many database pages."""
    return f"{key} " * (1, 1, 1, 1, 20, 1500)[crc32(key.encode()) % 6]


def text_in(message: dict[str, Any]) -> str:
    text: str = message["content"][0]["text"]["value"]
    return text


def message_body(key: str) -> dict[str, str]:
    return {"role": "user", "content": text_of(key)}


def message_keys(thread_key: str) -> list[str]:
    """Return the keys of the initial messages of a thread."""
    return [f"{thread_key}.{number}" for number in range(3)]


class Client:
    """A keep-alive connection to the service, which may be down."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_TO_WAIT)

    def try_connect(self) -> bool:
        if self.http.sock is None:
            try:
                self.http.connect()
            except OSError:
                self.http.close()
                return False
        return True

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """Return the response, or None if it did not arrive completely."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self.http.request(method, path, None if body is None else json.dumps(body), named)
            response = self.http.getresponse()
            is_replay = response.getheader("Idempotent-Replayed") == "true"
            return Answer(response.status, json.loads(response.read()), is_replay)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            self.http.close()
            return None


class Writer(threading.Thread):
    """Sends one write after the other until `stopping` is set. Retries only writes with an Idempotency-Key."""

    def __init__(self, number: int, port: int, threads: list[str], seed: int, keyed: float) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.number, self.threads, self.keyed = number, threads, keyed
        self.rng, self.client = Random(f"{seed} {number}"), Client(port)
        self.stopping = threading.Event()
        self.writes: list[Write] = []
        self.acknowledged = 0
        self.unavailable = 0
        self.replayed = 0
        self.faults: list[str] = []

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.act()
        except Exception as error:
            self.faults.append(f"{self.name} failed: {error!r}")
        finally:
            self.client.http.close()

    def act(self) -> None:
        key = f"w{self.number}-{len(self.writes)}"
        thread = self.rng.choice(self.threads)
        chance = self.rng.random()
        if chance < 0.06:
            messages = [message_body(each) for each in message_keys(key)]
            self.write(Write("thread", key), "/threads", {"messages": messages, "metadata": {"mark": key}})
        elif chance < 0.1:
            metadata = {f"w{self.number}": key}
            self.write(Write("metadata", key, thread), f"/threads/{thread}", {"metadata": metadata})
        elif chance < 0.15 and (victim := self.victim()):
            path = f"/threads/{victim.thread}/messages/{victim.id}" if victim.thread else f"/threads/{victim.id}"
            victim.deletion = Write("deletion", key, victim.thread, target=victim)
            self.write(victim.deletion, path)
        else:
            self.write(Write("message", key, thread), f"/threads/{thread}/messages", message_body(key))

    def victim(self) -> Write | None:
        """Return a recent acknowledged create that this writer has not tried to delete, or None."""
        creates = (write for write in self.writes[-20:] if write.kind in ("message", "thread"))
        left = [write for write in creates if write.acked_at and not write.deletion]
        return self.rng.choice(left) if left else None

    def write(self, write: Write, path: str, body: Any = None) -> None:
        method = "DELETE" if write.kind == "deletion" else "POST"
        headers = {"Content_Type": "application/json"} if body else {}
        if write.kind in ("message", "thread") and self.rng.random() < self.keyed:
            headers["Idempotency_Key"] = write.key
        self.writes.append(write)
        while not self.stopping.is_set():
            if not self.client.try_connect():
                time.sleep(0.02)
                continue
            write.sent_at = write.sent_at or time.monotonic()
            answer = self.client.call(method, path, body, **headers)
            if answer and answer.status == 200:
                self.acknowledge(write, answer.body)
                self.replayed += answer.is_replay
                return
            if answer and answer.status not in (409, 503):
                self.faults.append(f"{method} {path}: {answer.status} {answer.body}")
            elif answer:
                self.unavailable += answer.status == 503
                time.sleep(0.02)
            if "Idempotency_Key" not in headers:
                return

    def acknowledge(self, write: Write, body: dict[str, Any]) -> None:
        write.acked_at, write.id = time.monotonic(), body["id"]
        self.acknowledged += 1
        if write.kind == "message" and text_in(body) != text_of(write.key):
            self.faults.append(f"{write.key} was acknowledged with a different text")


class Service:
    """`manage.py serve` and its workers, in their own process group."""

    def __init__(self, directory: Path, url: str) -> None:
        self.port, self.log = free_port(), directory / "service.log"
        settings = {**SETTINGS, "THREADSVC_DATA_DIR": str(directory / "data"), "PORT": str(self.port)}
        ours = ("THREADSVC_", "DATABASE_URL", "THREADS_DATABASE_URL", "HOST", "PORT", "WEB_CONCURRENCY", "DJANGO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = {**kept, **settings, **({"THREADS_DATABASE_URL": url} if url else {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # With `setpriv --pdeathsig TERM`, the kernel stops the service when this program ends, even if this program is
        # killed.
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "manage.py", "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        end = time.monotonic() + SECONDS_TO_START
        client = Client(self.port)
        while not (client.try_connect() and (answer := client.call("GET", "/readyz")) and answer.status == 200):
            has_ended = self.process is None or self.process.poll() is not None
            if has_ended or time.monotonic() > end:
                raise AssertionError(f"the service did not start: see {self.log}")
            time.sleep(0.02)
        client.http.close()

    def kill(self) -> None:
        """Kill all processes of the service at once, and wait until all of them have ended."""
        assert self.process is not None
        pids = [self.process.pid]
        with suppress(OSError):
            pids += children_of(self.process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while any(map(is_running, pids)):
            time.sleep(0.002)


@dataclass
class Outcome:
    """The result of a run. `faults` describes each error and is empty if there was none."""

    engine: str
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    seconds: float = 0
    slowest_recovery: float = 0  # longest time from a database's restart to the next acknowledged write
    unavailable: int = 0
    sent: int = 0
    acknowledged: int = 0
    # Number of writes that a request had stored without its response arriving. A retry with the same key then got the
    # response.
    replayed: int = 0
    found: int = 0
    found_unacknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    partial: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{number} of the {what}" for what, number in sorted(self.kills.items()))
        rows = [
            ("engine", self.engine),
            ("seed", self.seed),
            ("kills", f"{self.kills.total():,}: {killed}" if killed else "0"),
            ("starts of the service", f"{self.starts:,}"),
            ("seconds", f"{self.seconds:,.0f}"),
            ("slowest recovery of a database", f"{self.slowest_recovery:.1f} s"),
            ("503 responses", f"{self.unavailable:,}"),
            ("writes sent", f"{self.sent:,}"),
            ("acknowledged", f"{self.acknowledged:,}"),
            ("acknowledged after a retry", f"{self.replayed:,}"),
            ("acknowledged and found", f"{self.found:,}"),
            ("not acknowledged, but found", f"{self.found_unacknowledged:,}"),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out of order", self.out_of_order),
            ("partial", self.partial),
            ("faults in total", len(self.faults)),
        ]
        return "\n".join(f"{name:36}{value}" for name, value in rows)


class Torture:
    """Runs a service on a fresh database and its writers. Kills the service and the database."""

    def __init__(
        self, engine: str, kills: int, seed: int, directory: Path, writers: int = 8, keyed: float = KEYED
    ) -> None:
        self.kills, self.rng = kills, Random(seed)
        self.outcome = Outcome(engine, seed)
        self.server: Server | None = start(engine)
        self.service = Service(directory, self.server.new_database() if self.server else "")
        self.url = self.service.environment.get("THREADS_DATABASE_URL") or f"sqlite:///{directory}/data/threadsvc.db"
        self.client = Client(self.service.port)
        try:
            self.start_service()
            self.threads = [self.new_thread() for _ in range(THREADS)]
        except BaseException:
            self.close()
            raise
        self.writers = [Writer(number, self.service.port, self.threads, seed, keyed) for number in range(writers)]

    def new_thread(self) -> str:
        thread_id: str = self.get("/threads", method="POST")["id"]
        return thread_id

    def close(self) -> None:
        self.client.http.close()
        if self.service.process:
            self.service.kill()
        if self.server:
            self.server.kill()  # the data is no longer needed, and a kill is faster than a stop
            self.server.close()

    # Kills

    def run(self) -> Outcome:
        started = time.monotonic()
        for writer in self.writers:
            writer.start()
        for number in range(1, self.kills + 1):
            self.let_run()
            self.kill_and_restart(number)
            self.check_latest()
            if number % CHECK_EVERY == 0:
                self.check_file()
                if sys.stderr.isatty():
                    print(f"\r{number} kills", end="", file=sys.stderr, flush=True)
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(2 * SECONDS_TO_WAIT)
            if writer.is_alive():
                self.fault(f"{writer.name} still waits for a response")
        self.outcome.seconds = time.monotonic() - started
        self.verify()
        return self.outcome

    def let_run(self) -> None:
        """Let the service run until it acknowledges a write, and then for a random time."""
        self.wait_for_acknowledgement()
        time.sleep(self.rng.uniform(0, MAX_UPTIME))

    def wait_for_acknowledgement(self) -> float:
        """Wait for the next acknowledgement. Return the waiting time in seconds."""
        before, since = self.acknowledged(), time.monotonic()
        while self.acknowledged() == before:
            if time.monotonic() - since > SECONDS_TO_START:
                raise AssertionError(f"no write is acknowledged any more: see {self.service.log}")
            time.sleep(0.005)
        return time.monotonic() - since

    def acknowledged(self) -> int:
        return sum(writer.acknowledged for writer in self.writers)

    def victims(self, number: int) -> set[str]:
        match self.outcome.engine:
            case "postgresql":
                return {"service", "database"} if number % 10 == 0 else {"service" if number % 2 else "database"}
            case "mongodb" if number % 5 == 0:
                return {"database"}
        return {"service"}

    def kill_and_restart(self, number: int) -> None:
        victims = self.victims(number)
        if "database" in victims and self.server:
            if self.outcome.engine == "mongodb":
                # This server is stopped instead of killed, because it acknowledges writes before they are durable
                # (docs/durability.md).
                self.server.stop()
                self.outcome.kills["database (stopped)"] += 1
            else:
                self.server.kill()
                self.outcome.kills["database"] += 1
        if "service" in victims:
            self.service.kill()
            self.outcome.kills["service"] += 1
        if "database" in victims and self.server:
            # The writers continue to send requests while the database is down.
            time.sleep(self.rng.uniform(0, 0.3))
            self.server.start()
        if "service" in victims:
            self.start_service()
        else:
            self.outcome.slowest_recovery = max(self.outcome.slowest_recovery, self.wait_for_acknowledgement())

    def start_service(self) -> None:
        while True:
            self.service.start()
            self.outcome.starts += 1
            if self.kills == 0 or self.outcome.starts == 1 or self.rng.random() >= KILLED_AT_START:
                break
            time.sleep(self.rng.uniform(0, 1))
            self.service.kill()
            self.outcome.kills["service during its start"] += 1
        self.service.wait_until_ready()

    # Checks

    def fault(self, description: str) -> None:
        self.outcome.faults.append(description)

    def get(self, path: str, method: str = "GET", may_miss: bool = False) -> Any:
        """Repeat a request until it gets a 200, and return the body. With `may_miss`, return None for a 404."""
        end = time.monotonic() + SECONDS_TO_WAIT
        while time.monotonic() < end:
            answer = self.client.call(method, path) if self.client.try_connect() else None
            if answer and (answer.status == 200 or (may_miss and answer.status == 404)):
                return answer.body if answer.status == 200 else None
            time.sleep(0.02)
        raise AssertionError(f"{method} {path}: {answer}")

    def walk(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield every row of a list, oldest first."""
        last, has_more = "", True
        while has_more:
            page = self.get(f"{path}?{urlencode({'order': 'asc', 'limit': 100, 'after': last})}")
            yield from page["data"]
            last, has_more = page["last_id"] or "", page["has_more"]

    def check_latest(self) -> None:
        """Check after a kill that each writer's two latest acknowledged messages are stored.

        The writers continue during the check, so they may delete a message before it is checked.
        """
        for writer in self.writers:
            latest = [write for write in writer.writes[-10:] if write.kind == "message" and write.acked_at][-2:]
            for write in latest:
                message = self.get(f"/threads/{write.thread}/messages/{write.id}", may_miss=True)
                if message is None and not write.deletion:
                    self.fault(f"{write.key} is missing after kill {self.outcome.kills.total()}")
                elif message and text_in(message) != text_of(write.key):
                    self.fault(f"{write.key} has changed after kill {self.outcome.kills.total()}")

    def check_file(self) -> None:
        """Run SQLite's integrity checks on the database file."""
        if self.outcome.engine == "sqlite":
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=SECONDS_TO_WAIT)) as database:
                for pragma, good in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                    if (found := database.execute(f"PRAGMA {pragma}").fetchall()) != good:
                        self.fault(f"PRAGMA {pragma}: {found[:3]}")

    def verify(self) -> None:
        """Compare every write that was sent with all stored data, over HTTP and in the database."""
        self.check_file()
        writes = [write for writer in self.writers for write in writer.writes if write.sent_at]
        for writer in self.writers:
            self.outcome.faults += writer.faults
            self.outcome.unavailable += writer.unavailable
            self.outcome.replayed += writer.replayed
        self.outcome.sent = len(writes)
        self.outcome.acknowledged = sum(write.acked_at is not None for write in writes)
        for thread in self.threads:
            self.verify_messages(thread, [write for write in writes if write.thread == thread])
        self.verify_threads([write for write in writes if write.kind == "thread"])
        deletions = [write for write in writes if write.kind == "deletion" and write.acked_at]
        # All acknowledged deletions count as found. If a deleted object exists again, `verify_presence` has recorded a
        # fault.
        self.outcome.found += len(deletions)

    def verify_messages(self, thread: str, writes: list[Write]) -> None:
        shown = list(self.walk(f"/threads/{thread}/messages"))
        sent = {write.key: write for write in writes if write.kind == "message"}
        times = Counter(self.key_of(message, sent) for message in shown)
        for write in sent.values():
            self.verify_presence(write, times[write.key], write.id in {message["id"] for message in shown})
        self.verify_order([sent[key] for message in shown if (key := self.key_of(message, sent, report=False))])
        metadata = self.get(f"/threads/{thread}")["metadata"]
        self.verify_metadata(metadata, [write for write in writes if write.kind == "metadata"])

        rows = sorted(stored(self.url, "message", thread_id=thread), key=lambda row: row["position"])
        if [row["position"] for row in rows] != list(range(1, len(rows) + 1)):
            self.fault(f"the positions in {thread} have gaps or repeats")
        visible = [row for row in rows if row["deleted_at"] is None]
        if [(row["id"], text_in(row)) for row in visible] != [(each["id"], text_in(each)) for each in shown]:
            self.fault(f"{thread} has different messages in the database than in the API")
        if any(row["content"] for row in rows if row["deleted_at"] is not None):
            self.fault(f"a deleted message of {thread} still has its text")

    def key_of(self, message: dict[str, Any], sent: dict[str, Write], report: bool = True) -> str:
        """Return the key at the start of a message's text, or "" if the text differs from the sent text.

        With `report`, also record such a difference as a fault.
        """
        text = text_in(message)
        key = text.partition(" ")[0]
        if key in sent and text == text_of(key):
            return key
        if report:
            self.outcome.partial += 1
            self.fault(f"{message['id']} differs from what was sent: {text[:40]!r}, {len(text)} characters")
        return ""

    def verify_presence(self, write: Write, times: int, has_its_id: bool) -> None:
        if times > 1:
            self.outcome.duplicated += 1
            self.fault(f"{write.key} is stored {times} times")
        if write.deletion:
            if write.deletion.acked_at and times:
                self.fault(f"{write.key} was deleted and exists again")
            self.outcome.found += 1
        elif write.acked_at is None:
            self.outcome.found_unacknowledged += times > 0
        elif times and has_its_id:
            self.outcome.found += 1
        else:
            self.outcome.lost += 1
            self.fault(f"{write.key} was acknowledged as {write.id} and is missing")

    def verify_order(self, in_order: list[Write]) -> None:
        """Check across all writers that each write comes after every write that was acknowledged before it was sent."""
        first_acked = float("inf")
        for write in reversed(in_order):
            if write.sent_at > first_acked:
                self.outcome.out_of_order += 1
                self.fault(f"{write.key} comes before a write that was acknowledged before it was sent")
            first_acked = min(first_acked, write.acked_at or first_acked)

    def verify_metadata(self, metadata: dict[str, str], writes: list[Write]) -> None:
        """Check that each writer's metadata pair is from its last acknowledged write, or from a later write."""
        for number in range(len(self.writers)):
            own = [write for write in writes if write.key.startswith(f"w{number}-")]
            last = max((place for place, write in enumerate(own) if write.acked_at), default=-1)
            possible = [write.key for write in own[max(last, 0) :]]
            if (value := metadata.get(f"w{number}")) not in (possible if last >= 0 else [None, *possible]):
                self.outcome.lost += 1
                self.fault(f"the metadata of writer {number} is {value}, not {possible[:1]}")
            self.outcome.found += sum(write.acked_at is not None for write in own)

    def verify_threads(self, writes: list[Write]) -> None:
        """Check that a thread that was sent together with its messages has all of them, or does not exist."""
        shown: dict[str, list[str]] = {}
        for thread in self.walk("/threads"):
            if thread["id"] not in self.threads:
                shown.setdefault(thread["metadata"].get("mark", ""), []).append(thread["id"])
        for write in writes:
            ids = shown.pop(write.key, [])
            self.verify_presence(write, len(ids), write.id in ids)
            for thread_id in ids:
                rows = sorted(stored(self.url, "message", thread_id=thread_id), key=lambda row: row["position"])
                expected = [(place, text_of(key)) for place, key in enumerate(message_keys(write.key), 1)]
                listed = [text_in(message) for message in self.walk(f"/threads/{thread_id}/messages")]
                in_rows = [(row["position"], text_in(row)) for row in rows]
                if in_rows != expected or listed != [text for _, text in expected]:
                    self.outcome.partial += 1
                    self.fault(
                        f"{thread_id} of {write.key} has {len(listed)} messages in its list and {len(rows)} rows"
                    )
        for mark, ids in shown.items():
            self.fault(f"no writer created {ids} with the mark {mark!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8, choices=range(1, MAX_WRITERS + 1), metavar="1..16")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--keyed", type=float, default=KEYED, help="fraction of creates with an Idempotency-Key")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="threadsvc-torture-"))
    print(f"engine {options.engine}, seed {options.seed}, in {directory}", flush=True)
    torture = Torture(options.engine, options.kills, options.seed, directory, options.writers, options.keyed)
    try:
        outcome = torture.run()
    finally:
        torture.close()
    print(outcome)
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    if outcome.faults:
        print(f"failed: the files are in {directory}, the seed was {options.seed}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
