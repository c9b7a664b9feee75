"""Kills the service and its database at random moments under writers, and looks for all that was acknowledged.

`python -m tests.torture --engine sqlite --kills 200` (make torture) prints what it sent and found, and ends with 1
where anything is wrong; tests/test_durability.py does the same with few kills.
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

THREADS = 4  # which all writers share
KEYED = 0.5  # the share of writes with an Idempotency-Key, which are sent again until they are answered
MOST_WRITERS = 16  # each has a key of its own in their metadata
LONGEST_LIFE = 0.8  # seconds from the first acknowledgement after a start to the kill
KILLED_AT_START = 0.1  # the share of kills that come before the service has answered anybody
CHECKED_AFTER = 10  # kills

# Generous: what takes as long as this will never come.
SECONDS_TO_WAIT = 30
SECONDS_TO_START = 60


class Answer(NamedTuple):
    status: int
    body: Any
    is_replay: bool


@dataclass
class Write:
    """Something that a writer asked for. `key` is nobody else's; acknowledged where `acked_at`, by time.monotonic()."""

    kind: str
    key: str
    thread: str = ""
    of: "Write | None" = None  # what is deleted
    sent_at: float = 0
    acked_at: float | None = None
    id: str = ""
    deletion: "Write | None" = None


def text_of(key: str) -> str:
    """A text of one to fifteen hundred times that key: mostly short, some over many pages of a database."""
    return f"{key} " * (1, 1, 1, 1, 20, 1500)[crc32(key.encode()) % 6]


def shown_text(message: dict[str, Any]) -> str:
    text: str = message["content"][0]["text"]["value"]
    return text


def as_sent(key: str) -> dict[str, str]:
    return {"role": "user", "content": text_of(key)}


def messages_of(thread_key: str) -> list[str]:
    """The keys of the messages that a thread is made with."""
    return [f"{thread_key}.{number}" for number in range(3)]


class Client:
    """A keep-alive connection to the service, which may be away."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_TO_WAIT)

    def connected(self) -> bool:
        if self.http.sock is None:
            try:
                self.http.connect()
            except OSError:
                self.http.close()
                return False
        return True

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """The answer; None where none came, or not all of it."""
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
    """Does one thing after the other until it is told to stop. Only what has a key is tried again without an answer."""

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
            self.faults.append(f"{self.name} ended: {error!r}")
        finally:
            self.client.http.close()

    def act(self) -> None:
        key = f"w{self.number}-{len(self.writes)}"
        thread = self.rng.choice(self.threads)
        chance = self.rng.random()
        if chance < 0.06:
            said = [as_sent(each) for each in messages_of(key)]
            self.write(Write("thread", key), "/threads", {"messages": said, "metadata": {"mark": key}})
        elif chance < 0.1:
            metadata = {f"w{self.number}": key}
            self.write(Write("metadata", key, thread), f"/threads/{thread}", {"metadata": metadata})
        elif chance < 0.15 and (victim := self.victim()):
            of = f"/threads/{victim.thread}/messages/{victim.id}" if victim.thread else f"/threads/{victim.id}"
            victim.deletion = Write("deletion", key, victim.thread, of=victim)
            self.write(victim.deletion, of)
        else:
            self.write(Write("message", key, thread), f"/threads/{thread}/messages", as_sent(key))

    def victim(self) -> Write | None:
        """One of the last things that it stored, which it has not tried to delete."""
        stored_here = (write for write in self.writes[-20:] if write.kind in ("message", "thread"))
        left = [write for write in stored_here if write.acked_at and not write.deletion]
        return self.rng.choice(left) if left else None

    def write(self, write: Write, path: str, body: Any = None) -> None:
        method = "DELETE" if write.kind == "deletion" else "POST"
        headers = {"Content_Type": "application/json"} if body else {}
        if write.kind in ("message", "thread") and self.rng.random() < self.keyed:
            headers["Idempotency_Key"] = write.key
        self.writes.append(write)
        while not self.stopping.is_set():
            if not self.client.connected():
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
        if write.kind == "message" and shown_text(body) != text_of(write.key):
            self.faults.append(f"{write.key} was acknowledged with another text")


class Service:
    """`manage.py serve` with its workers, in a process group of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.port, self.log = free_port(), directory / "service.log"
        settings = {**SETTINGS, "THREADSVC_DATA_DIR": str(directory / "data"), "PORT": str(self.port)}
        ours = ("THREADSVC_", "DATABASE_URL", "THREADS_DATABASE_URL", "HOST", "PORT", "WEB_CONCURRENCY", "DJANGO_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = {**kept, **settings, **({"THREADS_DATABASE_URL": url} if url else {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # The kernel stops it when this program ends, however it does.
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "manage.py", "serve"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        end = time.monotonic() + SECONDS_TO_START
        client = Client(self.port)
        while not (client.connected() and (answer := client.call("GET", "/readyz")) and answer.status == 200):
            has_ended = self.process is None or self.process.poll() is not None
            if has_ended or time.monotonic() > end:
                raise AssertionError(f"the service did not start: see {self.log}")
            time.sleep(0.02)
        client.http.close()

    def kill(self) -> None:
        """Ends all its processes at once; returns when none is left."""
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
    """What a run did and found; `faults` says what was wrong, and is empty where nothing was."""

    engine: str
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    seconds: float = 0
    slowest_return: float = 0  # seconds from when a database was back to the next acknowledgement
    unavailable: int = 0
    sent: int = 0
    acknowledged: int = 0
    replayed: int = 0  # of those: stored by a request that was never answered
    found: int = 0
    found_unacknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    half: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{number} of the {what}" for what, number in sorted(self.kills.items()))
        rows = [
            ("engine", self.engine),
            ("seed", self.seed),
            ("kills", f"{self.kills.total():,}: {killed}" if killed else "0"),
            ("starts of the service", f"{self.starts:,}"),
            ("seconds", f"{self.seconds:,.0f}"),
            ("slowest 200 of a database's return", f"{self.slowest_return:.1f} s"),
            ("answers 503", f"{self.unavailable:,}"),
            ("writes sent", f"{self.sent:,}"),
            ("acknowledged", f"{self.acknowledged:,}"),
            ("acknowledged when sent again", f"{self.replayed:,}"),
            ("found of those", f"{self.found:,}"),
            ("found of those without an answer", f"{self.found_unacknowledged:,}"),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("out of order", self.out_of_order),
            ("half", self.half),
            ("faults in all", len(self.faults)),
        ]
        return "\n".join(f"{name:36}{value}" for name, value in rows)


class Torture:
    """A service on a fresh database in that directory, its writers, and who kills it."""

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
            self.server.kill()  # sooner than it would stop
            self.server.close()

    # Killing

    def run(self) -> Outcome:
        started = time.monotonic()
        for writer in self.writers:
            writer.start()
        for number in range(1, self.kills + 1):
            self.live()
            self.kill_and_restart(number)
            self.check_latest()
            if number % CHECKED_AFTER == 0:
                self.check_file()
                if sys.stderr.isatty():
                    print(f"\r{number} kills", end="", file=sys.stderr, flush=True)
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(2 * SECONDS_TO_WAIT)
            if writer.is_alive():
                self.fault(f"{writer.name} waits for an answer that does not come")
        self.outcome.seconds = time.monotonic() - started
        self.verify()
        return self.outcome

    def live(self) -> None:
        """Until something is acknowledged, and a random time longer."""
        self.wait_for_acknowledgement()
        time.sleep(self.rng.uniform(0, LONGEST_LIFE))

    def wait_for_acknowledgement(self) -> float:
        """Returns how many seconds that took."""
        before, since = self.acknowledged(), time.monotonic()
        while self.acknowledged() == before:
            if time.monotonic() - since > SECONDS_TO_START:
                raise AssertionError(f"nothing is acknowledged any more: see {self.service.log}")
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
                self.server.stop()  # it acknowledges before it has written: see docs/durability.md
                self.outcome.kills["database (stopped)"] += 1
            else:
                self.server.kill()
                self.outcome.kills["database"] += 1
        if "service" in victims:
            self.service.kill()
            self.outcome.kills["service"] += 1
        if "database" in victims and self.server:
            time.sleep(self.rng.uniform(0, 0.3))  # in which writers meet a service without a database
            self.server.start()
        if "service" in victims:
            self.start_service()
        else:
            self.outcome.slowest_return = max(self.outcome.slowest_return, self.wait_for_acknowledgement())

    def start_service(self) -> None:
        while True:
            self.service.start()
            self.outcome.starts += 1
            if self.kills == 0 or self.outcome.starts == 1 or self.rng.random() >= KILLED_AT_START:
                break
            time.sleep(self.rng.uniform(0, 1))
            self.service.kill()
            self.outcome.kills["service as it started"] += 1
        self.service.wait_until_ready()

    # Looking

    def fault(self, words: str) -> None:
        self.outcome.faults.append(words)

    def get(self, path: str, method: str = "GET", may_miss: bool = False) -> Any:
        """A body of the service that is up; None for a 404 where that may be."""
        end = time.monotonic() + SECONDS_TO_WAIT
        while time.monotonic() < end:
            answer = self.client.call(method, path) if self.client.connected() else None
            if answer and (answer.status == 200 or (may_miss and answer.status == 404)):
                return answer.body if answer.status == 200 else None
            time.sleep(0.02)
        raise AssertionError(f"{method} {path}: {answer}")

    def walk(self, path: str) -> Iterator[dict[str, Any]]:
        """All that a list has, from its oldest on."""
        last, has_more = "", True
        while has_more:
            page = self.get(f"{path}?{urlencode({'order': 'asc', 'limit': 100, 'after': last})}")
            yield from page["data"]
            last, has_more = page["last_id"] or "", page["has_more"]

    def check_latest(self) -> None:
        """What each writer was told last is there; it may go on and delete it meanwhile."""
        for writer in self.writers:
            latest = [write for write in writer.writes[-10:] if write.kind == "message" and write.acked_at][-2:]
            for write in latest:
                message = self.get(f"/threads/{write.thread}/messages/{write.id}", may_miss=True)
                if message is None and not write.deletion:
                    self.fault(f"{write.key} is not there after kill {self.outcome.kills.total()}")
                elif message and shown_text(message) != text_of(write.key):
                    self.fault(f"{write.key} is not what it was after kill {self.outcome.kills.total()}")

    def check_file(self) -> None:
        """What SQLite itself finds in its file."""
        if self.outcome.engine == "sqlite":
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=SECONDS_TO_WAIT)) as database:
                for pragma, good in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                    if (found := database.execute(f"PRAGMA {pragma}").fetchall()) != good:
                        self.fault(f"PRAGMA {pragma}: {found[:3]}")

    def verify(self) -> None:
        """Compares all that was sent with all that is there, over HTTP and in the database."""
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
        self.outcome.found += len(deletions)  # any that was undone is a fault by now

    def verify_messages(self, thread: str, writes: list[Write]) -> None:
        shown = list(self.walk(f"/threads/{thread}/messages"))
        sent = {write.key: write for write in writes if write.kind == "message"}
        times = Counter(self.key_of(message, sent) for message in shown)
        for write in sent.values():
            self.verify_presence(write, times[write.key], write.id in {message["id"] for message in shown})
        self.verify_order([sent[key] for message in shown if (key := self.key_of(message, sent, tell=False))])
        metadata = self.get(f"/threads/{thread}")["metadata"]
        self.verify_metadata(metadata, [write for write in writes if write.kind == "metadata"])

        rows = sorted(stored(self.url, "message", thread_id=thread), key=lambda row: row["position"])
        if [row["position"] for row in rows] != list(range(1, len(rows) + 1)):
            self.fault(f"the positions in {thread} have gaps or repeats")
        visible = [row for row in rows if row["deleted_at"] is None]
        if [(row["id"], shown_text(row)) for row in visible] != [(each["id"], shown_text(each)) for each in shown]:
            self.fault(f"the database has other messages in {thread} than the API shows")
        if any(row["content"] for row in rows if row["deleted_at"] is not None):
            self.fault(f"a deleted message of {thread} still has a text")

    def key_of(self, message: dict[str, Any], sent: dict[str, Write], tell: bool = True) -> str:
        """Who wrote a message; nobody, and a fault, where it is not all that anybody sent."""
        text = shown_text(message)
        key = text.partition(" ")[0]
        if key in sent and text == text_of(key):
            return key
        if tell:
            self.outcome.half += 1
            self.fault(f"{message['id']} is not as it was sent: {text[:40]!r}, {len(text)} characters")
        return ""

    def verify_presence(self, write: Write, times: int, under_its_id: bool) -> None:
        if times > 1:
            self.outcome.doubled += 1
            self.fault(f"{write.key} is there {times} times")
        if write.deletion:
            if write.deletion.acked_at and times:
                self.fault(f"{write.key} was deleted and is back")
            self.outcome.found += 1
        elif write.acked_at is None:
            self.outcome.found_unacknowledged += times > 0
        elif times and under_its_id:
            self.outcome.found += 1
        else:
            self.outcome.lost += 1
            self.fault(f"{write.key} was acknowledged as {write.id} and is not there")

    def verify_order(self, in_order: list[Write]) -> None:
        """What was sent after something else was acknowledged comes after it, whoever sent the two."""
        first_acked = float("inf")
        for write in reversed(in_order):
            if write.sent_at > first_acked:
                self.outcome.out_of_order += 1
                self.fault(f"{write.key} comes before what was acknowledged before it was sent")
            first_acked = min(first_acked, write.acked_at or first_acked)

    def verify_metadata(self, metadata: dict[str, str], writes: list[Write]) -> None:
        """Each writer's pair is the last that was acknowledged, or one that was sent after it."""
        for number in range(len(self.writers)):
            own = [write for write in writes if write.key.startswith(f"w{number}-")]
            last = max((place for place, write in enumerate(own) if write.acked_at), default=-1)
            possible = [write.key for write in own[max(last, 0) :]]
            if (value := metadata.get(f"w{number}")) not in (possible if last >= 0 else [None, *possible]):
                self.outcome.lost += 1
                self.fault(f"the metadata of writer {number} is {value}, not {possible[:1]}")
            self.outcome.found += sum(write.acked_at is not None for write in own)

    def verify_threads(self, writes: list[Write]) -> None:
        """Threads that were made with messages are there with all of them, or not at all."""
        shown: dict[str, list[str]] = {}
        for thread in self.walk("/threads"):
            if thread["id"] not in self.threads:
                shown.setdefault(thread["metadata"].get("mark", ""), []).append(thread["id"])
        for write in writes:
            ids = shown.pop(write.key, [])
            self.verify_presence(write, len(ids), write.id in ids)
            for thread_id in ids:
                rows = sorted(stored(self.url, "message", thread_id=thread_id), key=lambda row: row["position"])
                expected = [(place, text_of(key)) for place, key in enumerate(messages_of(write.key), 1)]
                listed = [shown_text(message) for message in self.walk(f"/threads/{thread_id}/messages")]
                in_rows = [(row["position"], shown_text(row)) for row in rows]
                if in_rows != expected or listed != [text for _, text in expected]:
                    self.outcome.half += 1
                    self.fault(f"{thread_id} of {write.key} has {len(listed)} messages, {len(rows)} of them stored")
        for mark, ids in shown.items():
            self.fault(f"nobody made {ids} with the mark {mark!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8, choices=range(1, MOST_WRITERS + 1), metavar="1..16")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--keyed", type=float, default=KEYED, help="the share of writes with an Idempotency-Key")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="threadsvc-torture-"))
    print(f"engine {given.engine}, seed {given.seed}, in {directory}", flush=True)
    torture = Torture(given.engine, given.kills, given.seed, directory, given.writers, given.keyed)
    try:
        outcome = torture.run()
    finally:
        torture.close()
    print(outcome)
    for words in outcome.faults[:20]:
        print(f"  {words}")
    if outcome.faults:
        print(f"failed; what is left of it is in {directory}, the seed was {given.seed}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
