"""`manage.py backup` and `manage.py restore`, with and without a running service."""

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
    """Add data to a database so that a backup takes some time."""
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


Acknowledged = list[tuple[str, float]]  # each message's id, and the time of its response


@contextmanager
def writers(service: Served, threads: list[str]) -> Iterator[tuple[Acknowledged, list[int]]]:
    """Run one writer per thread. Yield the acknowledged messages and the statuses of refused requests."""
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
    """Keep a read transaction open, so that later writes stay in the write-ahead log."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        yield


@contextmanager
def killed(tmp_path: Path, until: Callable[[], bool], *arguments: str) -> Iterator[None]:
    """Start a command and kill it as soon as `until` returns true."""
    command = [sys.executable, "manage.py", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path / "data")) as process:
        end = time.monotonic() + 20
        while not until():
            assert process.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < end
        process.kill()
    assert process.returncode == -signal.SIGKILL
    yield


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of the tests' own database."""
    file = tmp_path / "backup.db"
    call_command("backup", str(file), "--database", "default", stdout=io.StringIO())
    return file


@pytest.fixture
def data(tmp_path: Path, backup: Path) -> Path:
    """A data directory whose database is a copy of the fixture `backup`."""
    (tmp_path / "data").mkdir()
    shutil.copy(backup, database_of(tmp_path))
    return tmp_path / "data"


@on_sqlite
def test_backup_has_all_writes_acknowledged_before_it_began(serve: Callable[..., Served], tmp_path: Path) -> None:
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
    # The backup has removed its temporary files.
    assert names(file.parent) == ["copy.db"]
    # The writers continued during the backup.
    assert len(acknowledged) > len(before)
    assert refused == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.process
@on_sqlite
def test_killed_backup_keeps_the_previous_file(tmp_path: Path, data: Path) -> None:
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
def test_running_service_continues_with_the_restored_data(serve: Callable[..., Served], tmp_path: Path) -> None:
    service, file, data = serve(), tmp_path / "copy.db", tmp_path / "data"
    kept = service.call("POST", "/threads", {"messages": [GOOD] * 3, "metadata": {"mark": "kept"}}, **JSON).body["id"]
    before = service.call("GET", f"/threads/{kept}/messages").body
    assert manage(data, "backup", str(file)).returncode == 0
    later = service.new_thread()
    assert service.call("DELETE", f"/threads/{kept}").status == 200
    restored = manage(data, "restore", str(file), "--yes")
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "1 threads, 3 messages, 0 accounts" in restored.stdout
    # Send enough requests to reach every worker, because each worker has its own database connections.
    for _ in range(8):
        assert service.call("GET", f"/threads/{later}").status == 404
        assert service.call("GET", f"/threads/{kept}/messages").body == before
        assert [row["id"] for row in service.call("GET", "/threads?metadata[mark]=kept").body["data"]] == [kept]
    for position in (4, 5, 6):
        created = service.call("POST", f"/threads/{kept}/messages", GOOD, **JSON).body["id"]
        assert service.stored("message", id=created)[0]["position"] == position
    assert_sound(database_of(tmp_path))
    (old,) = data.glob("threadsvc.db.before-restore-*")
    assert f"The old content is in {old}." in restored.stdout
    assert ids(old, "thread") >= {later}
    # A restore of the previous database undoes the first restore.
    assert manage(data, "restore", str(old), "--yes", "--discard").returncode == 0
    assert service.call("GET", f"/threads/{later}").status == 200
    assert service.stop() == 0
    # Both restores have removed their temporary files. Ignore the WAL files. They may remain, because the last worker
    # to end is not always the last to close the database.
    ours = set(names(data)) - {"threadsvc.db-wal", "threadsvc.db-shm"}
    assert ours == {"secret_key", "threadsvc.db", old.name, "threadsvc.db.turn"}


@on_sqlite
def test_restore_loses_no_concurrent_write(serve: Callable[..., Served], tmp_path: Path) -> None:
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
def test_killed_restore_changes_nothing(serve: Callable[..., Served], tmp_path: Path, backup: Path) -> None:
    make_large(backup, megabytes=80)
    service, data = serve(), tmp_path / "data"
    thread = service.new_thread()
    log = Path(f"{database_of(tmp_path)}-wal")
    arguments = ("restore", str(backup), "--yes", "--discard")
    with killed(tmp_path, lambda: 8_000_000 < log.stat().st_size < 70_000_000, *arguments):
        created = service.call("POST", f"/threads/{thread}/messages", GOOD, **JSON)
        assert created.status == 200
    assert ids(database_of(tmp_path)) == {created.body["id"]}
    assert_sound(database_of(tmp_path))
    assert manage(data, *arguments).returncode == 0
    assert service.call("GET", f"/threads/{thread}").status == 404
    assert "ballast" in tables(f"sqlite:///{database_of(tmp_path)}")
    assert_sound(database_of(tmp_path))


@pytest.mark.process
@on_sqlite
def test_restore_fails_cleanly_if_the_database_stays_locked(tmp_path: Path, data: Path) -> None:
    file = tmp_path / "copy.db"
    with closing(sqlite3.connect(database_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        # A backup does not wait until the write transaction ends. A restore waits.
        assert manage(data, "backup", str(file)).returncode == 0
        url = f"sqlite:///{database_of(tmp_path)}?timeout=0.2"
        waited = manage(data, "restore", str(file), "--yes", DATABASE_URL=url)
    expected = f"CommandError: cannot restore {file}: database is locked\n"
    assert (waited.returncode, waited.stdout, waited.stderr) == (1, "", expected)
    assert [name for name in names(data) if "restore" in name] == []


@pytest.mark.process
@on_sqlite
def test_restore_over_a_damaged_database_says_what_to_do(tmp_path: Path, backup: Path) -> None:
    database = database_of(tmp_path)
    database.parent.mkdir()
    database.write_text("garbage")
    refused = manage(tmp_path / "data", "restore", str(backup), "--yes")
    expected = (
        f"CommandError: cannot restore {backup}: file is not a database. Move {database}* away and restore again.\n"
    )
    assert (refused.returncode, refused.stderr) == (1, expected)
    assert database.read_text() == "garbage"
    database.unlink()
    assert manage(tmp_path / "data", "restore", str(backup)).returncode == 0


@pytest.mark.process
@on_sqlite
def test_restore_migrates_a_backup_of_an_older_version(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "data"
    assert manage(old, "migrate", "-v0", "messages_app", "0001").returncode == 0
    file = old / "threadsvc.db"
    before = file.read_bytes()
    # --yes is not needed, because restore asks for confirmation only if it replaces a database.
    restored = manage(new, "restore", str(file))
    assert (restored.returncode, restored.stderr) == (0, "")
    assert restored.stdout.startswith(f"Restored {new / 'threadsvc.db'} in ")
    assert migrations(new / "threadsvc.db") == migrations(Path(connections["default"].settings_dict["NAME"]))
    assert file.read_bytes() == before
    assert [name for name in names(new) if name.startswith(".")] == []


# Refused commands change nothing, so these tests can use the shared test database.


def refusal(command: str, *arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command(command, *arguments, stdout=io.StringIO())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.stateless
def test_backup_refuses_to_overwrite_files(tmp_path: Path, backup: Path) -> None:
    before = backup.read_bytes()
    assert refusal("backup", str(backup)) == f"{backup} exists. Use --overwrite to replace it."
    assert backup.read_bytes() == before
    own = connections["default"].settings_dict["NAME"]
    (tmp_path / "link").symlink_to(own)
    for file in (own, f"{own}-wal", f"{own}-shm", f"{own}-journal", f"{own}.turn", str(tmp_path / "link")):
        assert refusal("backup", file, "--overwrite") == f"{file} is the database itself, or belongs to it"
    for file in (str(tmp_path), "/dev/null"):
        assert refusal("backup", file, "--overwrite") == f"{file} is not a regular file"
    assert refusal("backup", f"{tmp_path}/none/copy.db") == f"there is no directory {tmp_path}/none"
    long = tmp_path / ("x" * 250)
    assert refusal("backup", str(long)).startswith(f"cannot copy {own} to {long}: ")
    assert refusal("restore", own) == f"{own} is the database itself"


@pytest.mark.process
@pytest.mark.stateless
def test_backup_without_a_database_creates_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = manage(data, "backup", str(tmp_path / "copy.db"))
    expected = f"CommandError: there is no database yet: {data}/threadsvc.db\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert names(tmp_path) == ["data"]


def damage(file: Path, how: str) -> None:
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
        case "truncated":
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
        ("empty", "{} is not a backup of threadsvc: it has no table django_migrations"),
        ("damaged", "{} "),
        ("truncated", "{} "),
        (
            "INSERT INTO django_migrations (app, name, applied) VALUES ('messages_app', '9999_more', '2099-01-01')",
            "{} is from a newer version: its migration messages_app.9999_more is unknown",
        ),
        ("DROP TABLE django_session", "{} is not a backup of this database: it has no table django_session"),
        ("PRAGMA page_size = 8192; VACUUM", "{} has a page size of 8192 bytes, but the database has 4096"),
        (
            "PRAGMA foreign_keys = OFF; INSERT INTO auth_user_groups (user_id, group_id) VALUES (77, 77)",
            "{} is damaged: a row of auth_user_groups belongs to one of auth_",
        ),
    ],
)
def test_unusable_backup_is_refused_in_one_line(backup: Path, how: str, reason: str) -> None:
    damage(backup, how)
    assert refusal("restore", str(backup), "--yes", "--database", "default").startswith(reason.format(backup))
    assert names(backup.parent) == ([] if how == "missing" else [backup.name])


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("answer", "reason"),
    [("no\n", "nothing was changed"), ("", "no answer on standard input. Use --yes to restore without confirmation.")],
)
def test_restore_asks_for_confirmation(monkeypatch: pytest.MonkeyPatch, backup: Path, answer: str, reason: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    shown = io.StringIO()
    with pytest.raises(CommandError, match=reason):
        call_command("restore", str(backup), stdout=shown)
    question = shown.getvalue()
    assert question.startswith("This replaces everything in /")
    assert question.count(" threads, ") == 2


@pytest.mark.engine("postgresql", "mongodb")
def test_commands_refuse_other_engines_and_name_their_tool(tmp_path: Path, backup: Path) -> None:
    tool = {"postgresql": "PostgreSQL: use pg_dump", "mongodb": "MongoDB: use mongodump"}[engines.chosen]
    for command in ("backup", "restore"):
        reason = refusal(command, str(tmp_path / "copy.db"))
        assert reason.startswith(f"this command is for SQLite, and THREADS_DATABASE_URL is {tool}")
        assert reason.endswith("(docs/operations.md)")
    assert names(tmp_path) == [backup.name]


@pytest.mark.engine("postgresql", "mongodb")
def test_backup_of_djangos_own_tables_says_what_it_lacks(tmp_path: Path) -> None:
    shown = io.StringIO()
    call_command("backup", str(tmp_path / "copy.db"), "--database", "default", stdout=shown)
    assert shown.getvalue().endswith("Not included: threads and messages (--database threads).\n")
    found = tables(f"sqlite:///{tmp_path}/copy.db")
    assert "auth_user" in found
    assert "messages_app_thread" not in found


@pytest.mark.process
@on_sqlite
def test_backup_to_a_symlink_writes_to_its_target(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "copy.db")
    assert manage(data, "backup", str(tmp_path / "link.db")).returncode == 0
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "elsewhere" / "copy.db").read_bytes().startswith(b"SQLite format 3")
