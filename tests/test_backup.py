"""`manage.py backup` and `manage.py restore`, under services that go on."""

import io
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from tests import engines
from tests.conftest import ROOT, Served, environment, manage
from tests.stored import stored, tables

GOOD = {"role": "user", "content": "hello", "metadata": {"k": "v"}}
JSON = {"Content_Type": "application/json"}

on_sqlite = pytest.mark.engine("sqlite")


def database_of(tmp_path: Path) -> Path:
    return tmp_path / "data" / "threadsvc.db"


def make_large(database: Path, megabytes: int) -> None:
    """Gives a database so many pages that its copy takes a moment."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE ballast (content BLOB)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (megabytes * 1_000_000,))


def assert_sound(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def assert_gapless(file: Path) -> None:
    positions: dict[str, list[int]] = {}
    for message in stored(f"sqlite:///{file}", "message"):
        positions.setdefault(message["thread_id"], []).append(message["position"])
    for taken in positions.values():
        assert sorted(taken) == list(range(1, len(taken) + 1))


def ids(file: Path, model: str = "message") -> set[str]:
    return {row["id"] for row in stored(f"sqlite:///{file}", model)}


def migrations(file: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as connection:
        return set(connection.execute("SELECT app, name FROM django_migrations"))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


Acknowledged = list[tuple[str, float]]  # ids of messages, and when their answers came


@contextmanager
def writers(service: Served, threads: list[str]) -> Iterator[tuple[Acknowledged, list[int]]]:
    """One writer to each thread meanwhile; what was acknowledged, and the status of what was not."""
    acknowledged: Acknowledged = []
    refused: list[int] = []
    done = False

    def write(thread: str) -> None:
        while not done:
            answer = service.call("POST", f"/threads/{thread}/messages", GOOD, **JSON)
            if answer.status == 200:
                acknowledged.append((answer.body["id"], time.monotonic()))
            else:
                refused.append(answer.status)
                time.sleep(0.05)

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write, thread) for thread in threads]
        try:
            service.wait_until(lambda: len(acknowledged) > 20)
            yield acknowledged, refused
        finally:
            done = True
        for each in writing:
            each.result()


@contextmanager
def old_reader(database: Path) -> Iterator[None]:
    """Somebody who reads meanwhile: what is written then stays in the log beside the database."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        yield


@contextmanager
def killed(tmp_path: Path, until: Callable[[], bool], *arguments: str) -> Iterator[None]:
    """Starts a command, and kills it when that is so."""
    command = [sys.executable, "manage.py", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path / "data")) as process:
        end = time.monotonic() + 20
        while not until():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
        process.kill()
    assert process.returncode == -signal.SIGKILL
    yield


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A backup of the tests' own database."""
    file = tmp_path / "copied.db"
    call_command("backup", str(file), "--database", "default", stdout=io.StringIO())
    return file


@pytest.fixture
def data(tmp_path: Path, copied: Path) -> Path:
    """A data directory that holds a copy of that."""
    (tmp_path / "data").mkdir()
    shutil.copy(copied, database_of(tmp_path))
    return tmp_path / "data"


@on_sqlite
def test_backup_while_others_write_has_all_that_was_acknowledged_before_it_and_no_gap(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    service, file = serve(), tmp_path / "copies" / "copy.db"
    file.parent.mkdir()
    make_large(database_of(tmp_path), megabytes=25)
    threads = [service.new_thread() for _ in range(4)]
    with old_reader(database_of(tmp_path)), writers(service, threads) as (acknowledged, refused):
        began = time.monotonic()
        done = manage(tmp_path / "data", "backup", str(file))
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Wrote {file}: 2")
    assert done.stdout.endswith(" s, checked.\n")
    before = {message for message, at in acknowledged if at < began}
    assert before <= ids(file)
    assert set(threads) <= ids(file, "thread")
    assert_sound(file)
    assert_gapless(file)
    assert names(file.parent) == ["copy.db"]  # needs nothing beside it, and nothing else is left
    assert len(acknowledged) > len(before)  # they went on
    assert refused == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.process
@on_sqlite
def test_backup_that_is_killed_leaves_the_file_that_was_there(tmp_path: Path, data: Path) -> None:
    make_large(database_of(tmp_path), megabytes=60)
    file = tmp_path / "copies" / "copy.db"
    file.parent.mkdir()
    file.write_text("the last good one")

    def is_half_done() -> bool:
        return any(draft.stat().st_size > 1_000_000 for draft in file.parent.glob(".copy.db.*/draft"))

    with killed(tmp_path, is_half_done, "backup", str(file), "--overwrite"):
        assert file.read_text() == "the last good one"
    assert manage(data, "backup", str(file), "--overwrite").returncode == 0
    assert_sound(file)


@on_sqlite
def test_restore_under_a_running_service_that_goes_on_with_what_is_restored(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    service, file, data = serve(), tmp_path / "copy.db", tmp_path / "data"
    kept = service.call("POST", "/threads", {"messages": [GOOD] * 3, "metadata": {"mark": "kept"}}, **JSON).body["id"]
    before = service.call("GET", f"/threads/{kept}/messages").body
    assert manage(data, "backup", str(file)).returncode == 0
    later = service.new_thread()
    assert service.call("DELETE", f"/threads/{kept}").status == 200
    restored = manage(data, "restore", str(file), "--yes")
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "1 threads, 3 messages, 0 accounts" in restored.stdout
    for _ in range(8):  # more than there are processes, each with connections of its own
        assert service.call("GET", f"/threads/{later}").status == 404
        assert service.call("GET", f"/threads/{kept}/messages").body == before
        assert [row["id"] for row in service.call("GET", "/threads?metadata[mark]=kept").body["data"]] == [kept]
    for position in (4, 5, 6):
        made = service.call("POST", f"/threads/{kept}/messages", GOOD, **JSON).body["id"]
        assert service.stored("message", id=made)[0]["position"] == position
    assert_sound(database_of(tmp_path))
    (old,) = data.glob("threadsvc.db.before-restore-*")
    assert f"What was there before is in {old};" in restored.stdout
    assert ids(old, "thread") >= {later}
    # The way back is the same one.
    assert manage(data, "restore", str(old), "--yes", "--discard").returncode == 0
    assert service.call("GET", f"/threads/{later}").status == 200
    assert service.stop() == 0
    # No drafts are left. The log may be: a worker that ends need not be the last to close the database.
    ours = set(names(data)) - {"threadsvc.db-wal", "threadsvc.db-shm"}
    assert ours == {"secret_key", "threadsvc.db", old.name, "threadsvc.db.turn"}


@on_sqlite
def test_restore_while_others_write_loses_none_between_what_is_kept_and_what_comes_after(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    service, file, data = serve(), tmp_path / "copy.db", tmp_path / "data"
    threads = [service.new_thread() for _ in range(4)]
    make_large(database_of(tmp_path), megabytes=20)
    assert manage(data, "backup", str(file)).returncode == 0
    with writers(service, threads) as (acknowledged, refused):
        restored = manage(data, "restore", str(file), "--yes")
        assert (restored.returncode, restored.stderr) == (0, "")
        number = len(acknowledged)
        service.wait_until(lambda: len(acknowledged) > number + 20)
    (old,) = data.glob("threadsvc.db.before-restore-*")
    in_old, in_new = ids(old), ids(database_of(tmp_path))
    assert in_old | in_new == {message for message, _ in acknowledged}
    assert in_old & in_new == set()
    assert min(len(in_old), len(in_new)) > 20
    assert refused == []
    for each in (old, database_of(tmp_path)):
        assert_sound(each)
        assert_gapless(each)


@on_sqlite
def test_restore_that_is_killed_leaves_what_was_there(
    serve: Callable[..., Served], tmp_path: Path, copied: Path
) -> None:
    make_large(copied, megabytes=80)
    service, data = serve(), tmp_path / "data"
    thread = service.new_thread()
    log = Path(f"{database_of(tmp_path)}-wal")
    arguments = ("restore", str(copied), "--yes", "--discard")
    with killed(tmp_path, lambda: 8_000_000 < log.stat().st_size < 70_000_000, *arguments):
        made = service.call("POST", f"/threads/{thread}/messages", GOOD, **JSON)
        assert made.status == 200
    assert ids(database_of(tmp_path)) == {made.body["id"]}
    assert_sound(database_of(tmp_path))
    assert manage(data, *arguments).returncode == 0
    assert service.call("GET", f"/threads/{thread}").status == 404
    assert "ballast" in tables(f"sqlite:///{database_of(tmp_path)}")
    assert_sound(database_of(tmp_path))


@pytest.mark.process
@on_sqlite
def test_restore_that_somebody_keeps_waiting_says_so_and_leaves_nothing(tmp_path: Path, data: Path) -> None:
    file = tmp_path / "copy.db"
    with closing(sqlite3.connect(database_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert manage(data, "backup", str(file)).returncode == 0  # which needs not wait
        url = f"sqlite:///{database_of(tmp_path)}?timeout=0.2"
        waited = manage(data, "restore", str(file), "--yes", DATABASE_URL=url)
    expected = f"CommandError: cannot restore {file}: database is locked\n"
    assert (waited.returncode, waited.stdout, waited.stderr) == (1, "", expected)
    assert [name for name in names(data) if "restore" in name] == []


@pytest.mark.process
@on_sqlite
def test_restore_over_a_database_that_is_damaged_says_what_to_do(tmp_path: Path, copied: Path) -> None:
    database = database_of(tmp_path)
    database.parent.mkdir()
    database.write_text("garbage")
    refused = manage(tmp_path / "data", "restore", str(copied), "--yes")
    expected = (
        f"CommandError: cannot restore {copied}: file is not a database; move {database}* away, and restore again\n"
    )
    assert (refused.returncode, refused.stderr) == (1, expected)
    assert database.read_text() == "garbage"
    database.unlink()
    assert manage(tmp_path / "data", "restore", str(copied)).returncode == 0


@pytest.mark.process
@on_sqlite
def test_backup_of_an_older_version_is_migrated_before_it_replaces_anything(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "data"
    assert manage(old, "migrate", "-v0", "messages_app", "0001").returncode == 0
    file = old / "threadsvc.db"
    was = file.read_bytes()
    restored = manage(new, "restore", str(file))  # nothing is there yet: nothing to ask, nothing to keep
    assert (restored.returncode, restored.stderr) == (0, "")
    assert restored.stdout.startswith(f"Restored {new / 'threadsvc.db'} in ")
    assert migrations(new / "threadsvc.db") == migrations(Path(connections["default"].settings_dict["NAME"]))
    assert file.read_bytes() == was
    assert [name for name in names(new) if name.startswith(".")] == []


# What is refused is refused before anything is touched: here under the tests' own database.


def refused(command: str, *arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command(command, *arguments, stdout=io.StringIO())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.stateless
def test_backup_that_would_overwrite_something_is_refused(tmp_path: Path, copied: Path) -> None:
    was = copied.read_bytes()
    assert refused("backup", str(copied)) == f"{copied} exists; --overwrite replaces it"
    assert copied.read_bytes() == was
    own = connections["default"].settings_dict["NAME"]
    (tmp_path / "link").symlink_to(own)
    for file in (own, f"{own}-wal", f"{own}-shm", f"{own}-journal", f"{own}.turn", str(tmp_path / "link")):
        assert refused("backup", file, "--overwrite") == f"{file} is the database itself, or belongs to it"
    for file in (str(tmp_path), "/dev/null"):
        assert refused("backup", file, "--overwrite") == f"{file} is no file; name one"
    assert refused("backup", f"{tmp_path}/none/copy.db") == f"there is no directory {tmp_path}/none"
    long = tmp_path / ("x" * 250)
    assert refused("backup", str(long)).startswith(f"cannot copy {own} to {long}: ")
    assert refused("restore", own) == f"{own} is the database itself"


@pytest.mark.process
@pytest.mark.stateless
def test_backup_of_nothing_is_refused_and_makes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = manage(data, "backup", str(tmp_path / "copy.db"))
    expected = f"CommandError: there is no database yet: {data}/threadsvc.db\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert names(tmp_path) == ["data"]


def spoil(file: Path, how: str) -> None:
    match how:
        case "text":
            file.write_text("hello " * 1000)
        case "empty":
            file.write_bytes(b"")
        case "damaged":
            size = file.stat().st_size
            with file.open("r+b") as opened:
                opened.seek(4096)
                opened.write(b"\xff" * (size - 4096))
        case "cut off":
            os.truncate(file, file.stat().st_size // 2)
        case "missing":
            file.unlink()
        case sql:
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.executescript(sql)


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "there is no file {}"),
        ("text", "{} cannot be used: file is not a database"),
        ("empty", "{} is no backup of threadsvc: it has no table django_migrations"),
        ("damaged", "{} "),
        ("cut off", "{} "),
        (
            "INSERT INTO django_migrations (app, name, applied) VALUES ('messages_app', '9999_more', '2099-01-01')",
            "{} is of a newer version: its migration messages_app.9999_more is not known here",
        ),
        ("DROP TABLE django_session", "{} is no backup of this database: it has no table django_session"),
        ("PRAGMA page_size = 8192; VACUUM", "{} has pages of 8192 bytes, the database of 4096"),
        (
            "PRAGMA foreign_keys = OFF; INSERT INTO auth_user_groups (user_id, group_id) VALUES (77, 77)",
            "{} is damaged: a row of auth_user_groups belongs to one of auth_",
        ),
    ],
)
def test_file_that_cannot_be_restored_is_refused_in_one_line(copied: Path, how: str, reason: str) -> None:
    spoil(copied, how)
    assert refused("restore", str(copied), "--yes", "--database", "default").startswith(reason.format(copied))
    assert names(copied.parent) == ([] if how == "missing" else [copied.name])


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("answer", "reason"),
    [("no\n", "nothing was changed"), ("", "nobody answered; --yes restores without asking")],
)
def test_restore_asks_first(monkeypatch: pytest.MonkeyPatch, copied: Path, answer: str, reason: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    shown = io.StringIO()
    with pytest.raises(CommandError, match=reason):
        call_command("restore", str(copied), stdout=shown)
    asked = shown.getvalue()
    assert asked.startswith("This replaces all that is in /")
    assert asked.count(" threads, ") == 2


@pytest.mark.engine("postgresql", "mongodb")
def test_other_engine_is_one_line_that_says_what_to_use(tmp_path: Path, copied: Path) -> None:
    tool = {"postgresql": "PostgreSQL: use pg_dump", "mongodb": "MongoDB: use mongodump"}[engines.chosen]
    for command in ("backup", "restore"):
        reason = refused(command, str(tmp_path / "copy.db"))
        assert reason.startswith(f"this command is for SQLite, and THREADS_DATABASE_URL is {tool}")
        assert reason.endswith("(docs/operations.md)")
    assert names(tmp_path) == [copied.name]


@pytest.mark.engine("postgresql", "mongodb")
def test_backup_of_djangos_own_tables_alone_says_what_is_not_in_it(tmp_path: Path) -> None:
    shown = io.StringIO()
    call_command("backup", str(tmp_path / "copy.db"), "--database", "default", stdout=shown)
    assert shown.getvalue().endswith("Not in it: threads and messages (--database threads).\n")
    found = tables(f"sqlite:///{tmp_path}/copy.db")
    assert "auth_user" in found
    assert "messages_app_thread" not in found


@pytest.mark.process
@on_sqlite
def test_backup_to_a_link_fills_the_file_that_it_leads_to(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "copy.db")
    assert manage(data, "backup", str(tmp_path / "link.db")).returncode == 0
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "elsewhere" / "copy.db").read_bytes().startswith(b"SQLite format 3")
