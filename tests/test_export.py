"""`manage.py export_threads`, and the JSON lines that the command and the admin write."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from messages_app.store.exports import threads_oldest_first
from messages_app.transfer import export_lines, json_lines
from tests.conftest import ROOT, connection, environment, manage, migrate
from tests.rows import delete_message, delete_thread, new_message, new_thread, store_rows

AT = datetime(2024, 2, 13, 20, 32, 50, tzinfo=UTC)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return f"tenant-{uuid4().hex}"


@pytest.fixture
def store(tenant: str) -> Callable[..., Thread]:
    """Return a function that stores a thread with one message per text."""

    def store(*texts: str, **fields: Any) -> Thread:
        thread = new_thread(**{"at": AT, "tenant": tenant, **fields})
        messages = [
            new_message(at=AT, thread=thread, position=position, role="user", content=[text_part(text)])
            for position, text in enumerate(texts, start=1)
        ]
        store_rows([thread], messages)
        return thread

    return store


def export(file: Path, tenant: str) -> str:
    """Run the export command and return its output."""
    output = io.StringIO()
    call_command("export_threads", str(file), tenant=tenant, stdout=output)
    return output.getvalue()


def texts_of(line: str) -> list[str]:
    return [message["content"][0]["text"]["value"] for message in json.loads(line)["messages"]]


def test_line_has_all_data_of_a_thread_with_sorted_keys(tmp_path: Path) -> None:
    object_ids = [uuid4().hex[:24] for _ in range(3)]
    tenant = f"Zoë \u2028 {uuid4().hex}"
    thread = Thread(
        id="thread_of " + uuid4().hex, object_id=object_ids[0], tenant=tenant, created_at=AT,
        metadata={"b": "", "a.$x": 'a "quoted"\n👩‍🚀', "": "empty"},
    )  # fmt: skip
    parts = [
        text_part("línea\u2028 \\ \x7f"),
        {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
    ]
    files = [{"file_id": "file-1", "tools": [{"type": "file_search"}]}, {"file_id": "file-1", "tools": []}]
    ids = [uuid4().hex, uuid4().hex]
    store_rows(
        [thread],
        [
            Message(id=ids[0], object_id=object_ids[1], thread=thread, position=1, role="assistant", content=parts,
                    attachments=files, assistant_id="asst", run_id="run", metadata={"k": "v"}, created_at=AT),
            Message(id=ids[1], object_id=object_ids[2], thread=thread, position=2, role="tool_output",
                    content=[text_part("")], created_at=AT + timedelta(seconds=1)),
        ],
    )  # fmt: skip
    assert export(tmp_path / "threads.jsonl", tenant).startswith("Exported 1 threads in ")
    assert (tmp_path / "threads.jsonl").read_bytes().decode() == (
        f'{{"_id":"{object_ids[0]}","created_at":1707856370,"id":"{thread.id}","messages":['
        f'{{"_id":"{object_ids[1]}","assistant_id":"asst",'
        '"attachments":[{"file_id":"file-1","tools":[{"type":"file_search"}]},{"file_id":"file-1","tools":[]}],'
        '"content":[{"text":{"annotations":[],"value":"línea\u2028 \\\\ \x7f"},"type":"text"},'
        '{"image_url":{"detail":"low","url":"https://x"},"type":"image_url"}],'
        f'"created_at":1707856370,"id":"{ids[0]}","metadata":{{"k":"v"}},"object":"thread.message","role":"assistant",'
        '"run_id":"run"},'
        f'{{"_id":"{object_ids[2]}","assistant_id":null,"attachments":[],'
        '"content":[{"text":{"annotations":[],"value":""},"type":"text"}],'
        f'"created_at":1707856371,"id":"{ids[1]}","metadata":{{}},"object":"thread.message","role":"tool_output",'
        '"run_id":null}],'
        '"metadata":{"":"empty","a.$x":"a \\"quoted\\"\\n👩‍🚀","b":""},"object":"thread",'
        f'"tenant":"{tenant}"}}\n'
    )


def test_export_is_oldest_first_without_deleted_rows(tmp_path: Path, tenant: str, store: Callable[..., Thread]) -> None:
    # Two of these threads were created in the same second. Their ids contain milliseconds and determine their order.
    third = store(at=AT + timedelta(milliseconds=2))
    second = store("1", "2", "3", at=AT + timedelta(milliseconds=1))
    first = store("0", at=AT - timedelta(days=1))
    delete_thread(store("deleted").id)
    store("another tenant's", tenant=f"other-{tenant}")
    delete_message(Message.objects.get(thread=second, position=2).id)
    export(tmp_path / "threads.jsonl", tenant)
    written = (tmp_path / "threads.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in written] == [first.id, second.id, third.id]
    assert list(map(texts_of, written)) == [["0"], ["1", "3"], []]


def test_long_threads_are_written_completely_in_pieces(
    monkeypatch: pytest.MonkeyPatch, tenant: str, store: Callable[..., Thread]
) -> None:
    lengths = [3, 0, 25, 1, 11, 2, 10, 0]
    threads = [store(*map(str, range(length)), at=AT + timedelta(days=i)) for i, length in enumerate(lengths)]
    expected = "".join(export_lines(threads))
    assert [texts_of(line) for line in expected.splitlines()] == [list(map(str, range(length))) for length in lengths]
    monkeypatch.setattr(json_lines, "MESSAGES_PER_READ", 10)
    monkeypatch.setattr(json_lines, "MAX_THREADS_AT_ONCE", 3)
    monkeypatch.setattr(json_lines, "PIECE_CHARACTERS", 1000)
    pieces = list(export_lines(threads_oldest_first(tenant)))
    assert "".join(pieces) == expected
    assert [piece.endswith("\n") for piece in pieces].count(True) == len(threads)
    assert max(piece.count('"thread.message"') for piece in pieces) <= 11
    assert len(pieces) > len(threads) + 5


def test_export_of_60_threads_costs_at_most_16_queries(tenant: str, store: Callable[..., Thread]) -> None:
    for i in range(60):
        store("a", "b", at=AT + timedelta(days=i))
    with CaptureQueriesContext(connection) as queries:
        assert len(list(export_lines(threads_oldest_first(tenant)))) == 60
    # The export reads the threads in batches of 1, 2, 4, 8, 16 and 32, with two queries for each batch. The other
    # queries read pages of threads.
    assert len(queries) <= 16


def test_file_is_private_and_compressed_if_its_name_ends_in_gz(
    tmp_path: Path, tenant: str, store: Callable[..., Thread]
) -> None:
    store("a" * 1000)
    for name in ("threads.jsonl", "threads.jsonl.gz", "again.gz"):
        export(tmp_path / name, tenant)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.gz", "threads.jsonl", "threads.jsonl.gz"]
    assert stat.S_IMODE((tmp_path / "threads.jsonl").stat().st_mode) == 0o600
    compressed = (tmp_path / "threads.jsonl.gz").read_bytes()
    assert len(compressed) < 600
    assert gzip.decompress(compressed) == (tmp_path / "threads.jsonl").read_bytes()
    assert compressed == (tmp_path / "again.gz").read_bytes()


@pytest.fixture
def failing_after() -> Callable[[int], Any]:
    """Return a function that creates a context in which the database fails after a given number of queries."""
    left = 0

    def execute(call: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OperationalError("the server closed the connection\nunexpectedly")
        return call(sql, params, many, context)

    def after(queries: int) -> Any:
        nonlocal left
        left = queries
        return connection.execute_wrapper(execute)

    return after


def test_failed_export_keeps_the_previous_file(
    tmp_path: Path, tenant: str, store: Callable[..., Thread], failing_after: Callable[[int], Any]
) -> None:
    store("a")
    store("b")
    (tmp_path / "threads.jsonl").write_text("the export of yesterday")
    for queries in (0, 2, 3):
        with failing_after(queries), pytest.raises(CommandError) as refused:
            export(tmp_path / "threads.jsonl", tenant)
        assert str(refused.value) == "cannot read the threads: the server closed the connection"
    assert [path.name for path in tmp_path.iterdir()] == ["threads.jsonl"]
    assert (tmp_path / "threads.jsonl").read_text() == "the export of yesterday"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/threads.jsonl", "No such file or directory"),
        ("/dev/full", "No space left on device"),
        (".", "Is a directory"),
    ],
)
def test_unwritable_file_is_reported_in_one_line(
    tmp_path: Path, tenant: str, store: Callable[..., Thread], name: str, reason: str
) -> None:
    store("a")
    path = str(tmp_path / name) if name != "." else str(tmp_path)
    with pytest.raises(CommandError) as refused:
        call_command("export_threads", path, tenant=tenant)
    assert str(refused.value) == f"cannot write {path}: {reason}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stateless
@pytest.mark.parametrize("command", ["export_threads", "import_threads"])
@pytest.mark.parametrize("tenant", ["", "x" * 65, "caf\udce9"])
def test_invalid_tenant_is_refused(command: str, tenant: str) -> None:
    with pytest.raises(CommandError, match=r"^--tenant (takes 1 to 64 characters|is not UTF-8)$"):
        call_command(command, tenant=tenant)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with three stored threads."""
    directory = tmp_path_factory.mktemp("seeded") / "data"
    migrate(directory)
    assert manage(directory, "seed", "--threads", "3", "--messages", "40", "--seed", "3").returncode == 0
    return directory


@pytest.mark.once
@pytest.mark.process
def test_standard_output_has_only_the_exported_lines(seeded: Path) -> None:
    result = manage(seeded, "export_threads")
    assert result.returncode == 0
    assert [len(json.loads(line)["messages"]) for line in result.stdout.splitlines()] == [9, 12, 19]
    assert result.stderr.startswith("Exported 3 threads in ")


@pytest.mark.once
@pytest.mark.process
def test_closed_output_pipe_fails_without_a_message(seeded: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "manage.py", "export_threads"],
        cwd=ROOT, env=environment(seeded), stdout=write, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("messages", [3, 2500])
def test_thread_deleted_during_the_export_is_left_out(store: Callable[..., Thread], messages: int) -> None:
    kept, deleted = store("kept"), store(*("x" for _ in range(messages)))
    statements = 0

    def delete_after_the_first(execute: Any, sql: str, *more: Any) -> Any:
        nonlocal statements
        statements += 1
        # Before the second statement, the export has already read the messages, or the first page of them.
        if statements == 2:
            delete_thread(deleted.id)
            Message.objects.filter(thread=deleted.id, position__gt=1).delete()
        return execute(sql, *more)

    with connection.execute_wrapper(delete_after_the_first):
        assert "".join(export_lines([deleted])) == ""
    assert json.loads("".join(export_lines([deleted, kept])))["id"] == kept.id
