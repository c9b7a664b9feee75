"""Bulk commands: the fast path for ordinary values produces the same results as the exact path."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from messages_app.store.bulk import select
from messages_app.transfer.reader import ObjectReader
from tests import engines
from tests.conftest import ROOT, connection, environment, migrate
from tests.rows import new_thread, store_rows

SECOND = 1707856370
TEXTS = ["", "Hi", "\0", "a\0b", "\ud800", "é🙂\u2028", " \n\t", "x" * 64, "x" * 65, "x" * 257, "x" * 512, "x" * 513]
ODD: list[Any] = [None, True, 0, -1, 1.5, 10**12, 2**63, 10**30, "", "5", [], {}, [[]], {"a": None}, [None]]
PARTS: list[Any] = [
    *({"type": "text", "text": {"value": text, "annotations": []}} for text in TEXTS),
    {"type": "text", "text": {"value": "no annotations"}},
    {"type": "text", "text": {"value": "null", "annotations": None}},
    {"type": "text", "text": {"value": "some", "annotations": [{"type": "file_citation"}]}},
    {"type": "text", "text": {"value": "odd", "annotations": 0}},
    {"type": "text", "text": {"value": "more", "more": ""}},
    {"type": "text", "text": {"value": "more", "more": "than that"}},
    {"type": "text", "text": {"value": "x" * 200_000}},
    {"type": "text", "text": {"value": "key"}, "image_url": None},
    {"type": "text", "text": "Hi"},
    {"type": "text"},
    {"type": ["text"], "text": {}},
    {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
    {"type": "image_file", "image_file": {"file_id": ""}},
    {"type": "refusal", "refusal": "No."},
    *ODD,
]
FILES: list[Any] = [
    {"file_id": "f", "tools": [{"type": "file_search"}, {"type": "code_interpreter"}]},
    {"tools": [], "file_id": "é"},
    {"file_id": "f"},
    {"file_id": "f", "tools": None},
    {"file_id": "f", "tools": [{"type": "other"}]},
    {"file_id": "f", "more": 1},
    {"file_id": "\ud800"},
    *ODD,
]
PAIRS: list[Any] = [
    *({text: text} for text in TEXTS),
    {"b": "1", "a": "2"},
    {"": ""},
    {"k": 5},
    {str(i): "" for i in range(16)},
    {str(i): "" for i in range(17)},
]


def lists_of(items: list[Any]) -> Callable[[Random], Any]:
    return lambda rng: [rng.choice(items) for _ in range(rng.choice([0, 1, 1, 2, 11]))]


def one_of(*values: Any) -> Callable[[Random], Any]:
    return lambda rng: rng.choice(values)


IDENTITY: dict[str, Callable[[Random], Any]] = {
    "_id": one_of(
        "65cbd1f2b1b1b1b1b1b10001", "65CBD1F2B1B1B1B1B1B10001", "65cbd1f2", "65cbd1f2b1b1b1b1b1b1000\n", *ODD
    ),
    # Valid times are neither very early nor very late, because other tests search for the oldest and newest threads.
    "created_at": one_of(SECOND, 253402300800, None, True, -1, 1.5, "5", 10**12, 2**63, 10**30, []),
    "id": lambda rng: rng.choice(["", "a\0b", "\ud800", "x" * 65, None, 5, [], f"é {rng.getrandbits(96)}"]),
    "metadata": one_of(*PAIRS, *ODD),
    "object": one_of("thread.message", "thread", *ODD),
    "unknown": one_of("something", *ODD),
    "status": one_of("completed", "in_progress", *ODD),
}
OF_THREAD = {**IDENTITY, "tenant": one_of("other", *TEXTS, *ODD), "object": one_of("thread")}
OF_MESSAGE = {
    **IDENTITY,
    "role": one_of("assistant", "tool_call", "system", *ODD),
    "content": lambda rng: rng.choice([*ODD, *(lists_of(PARTS)(rng) for _ in range(len(ODD)))]),
    "attachments": lambda rng: rng.choice([*ODD, *(lists_of(FILES)(rng) for _ in range(len(ODD)))]),
    "file_ids": lambda rng: rng.choice([*ODD, *(lists_of(["f", "", 5])(rng) for _ in range(len(ODD)))]),
    "assistant_id": one_of("asst", *TEXTS, *ODD),
    "run_id": one_of("run", *TEXTS, *ODD),
    "thread_id": one_of("of_another", *ODD),
    "messages": one_of(*ODD),
}


def with_changes(rng: Random, value: dict[str, Any], choices: dict[str, Callable[[Random], Any]]) -> dict[str, Any]:
    """Replace or remove up to two keys of an object, in place, and return the object."""
    for key in rng.sample(sorted(choices), rng.choice([0, 0, 1, 1, 2])):
        if rng.random() < 0.1:
            value.pop(key, None)
        else:
            value[key] = choices[key](rng)
    return value


def random_line(rng: Random, key: str, tenant: str) -> dict[str, Any]:
    messages: list[Any] = [
        with_changes(
            rng,
            {
                "_id": f"{rng.getrandbits(96):024x}",
                "assistant_id": rng.choice([None, "asst_1"]),
                "attachments": [],
                "content": [text_part(rng.choice(["Hi", "línea\u2028 👩‍🚀"]))],
                "created_at": SECOND + rng.randrange(10**6),
                "id": f"msg_{key}_{rng.randrange(50)}",
                "metadata": {},
                "object": "thread.message",
                "role": "user",
                "run_id": None,
            },
            OF_MESSAGE,
        )
        for _ in range(rng.choice([0, 1, 1, 2]))
    ]
    if rng.random() < 0.05:
        messages.append(rng.choice(ODD))
    line = {
        "_id": f"{rng.getrandbits(96):024x}",
        "created_at": SECOND + rng.randrange(10**6),
        "id": f"thread_{key}",
        "messages": messages,
        "metadata": rng.choice([{}, {"k": "v"}]),
        "object": "thread",
        "tenant": tenant,
    }
    return with_changes(rng, line, OF_THREAD) if rng.random() < 0.3 else line


def import_result(file: Path, content: bytes, **options: Any) -> tuple[list[str], list[str], str]:
    """Import lines. Return the lines on stdout, the lines on stderr, and the error.

    The first line on stdout is left out, because it contains a duration.
    """
    file.write_bytes(content)
    out, err, failed = io.StringIO(), io.StringIO(), ""
    try:
        call_command("import_threads", str(file), stdout=out, stderr=err, **options)
    except CommandError as error:
        failed = str(error)
    return out.getvalue().partition(" in ")[2].splitlines()[1:], err.getvalue().splitlines(), failed


def as_export_lines(lines: list[Any]) -> bytes:
    """Return the lines in the format of an export. Escape lines that UTF-8 cannot encode."""

    def as_line(line: Any) -> bytes:
        try:
            return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            return json.dumps(line).encode()

    return b"".join(as_line(line) + b"\n" for line in lines)


def as_exact_lines(lines: list[Any]) -> bytes:
    """Return the lines in a format that requires the exact path: with spaces, and with an unknown key."""
    with_more = []
    for line in lines:
        messages = [{**each, "nothing": ""} if isinstance(each, dict) else each for each in line["messages"]]
        with_more.append({**line, "messages": messages, "nothing": ""})
    return b"".join(json.dumps(line).encode() + b"\n" for line in with_more)


@pytest.mark.parametrize("seed", range(4 if engines.chosen == "sqlite" or engines.is_long else 2))
def test_fast_and_exact_import_accept_and_store_the_same(tmp_path: Path, seed: int) -> None:
    run, file = uuid4().hex, tmp_path / "lines"
    tenant = f"tenant-{run}"
    rng = Random(seed)
    lines = [random_line(rng, f"{run[:16]}_{number}", tenant) for number in range(400)]
    fast, exact = as_export_lines(lines), as_exact_lines(lines)
    fast_result = import_result(file, fast, dry_run=True)
    assert fast_result == import_result(file, exact, dry_run=True)
    # The comparison needs both refused and accepted lines.
    assert 50 < len(fast_result[1]) < 350
    import_result(file, fast, tenant=tenant)
    again = import_result(file, exact, tenant=tenant, update=True)
    assert again[1] == import_result(file, fast, tenant=tenant)[1]
    assert not any(" updated (" in line for line in again[0]), again[0]


@pytest.mark.stateless
@pytest.mark.parametrize(
    "text",
    [
        '{"a":"é","b":[1,-2,true,null,{}]}',
        '{"a":1,"a":2}',
        '{"a":' + "9" * 5000 + ',"a":2}',
        '{"a":18446744073709551616}',
        '{"a":1.5,"b":1e30,"c":-0,"d":-0.0,"e":1E400}',
        '{"a":NaN}',
        '{"a":"\\ud800","b":"\\u00e9","c":"\\/"}',
        '{"a":"\t"}',
        '{"a":' + "[" * 300 + "]" * 300 + "}",
        '{"a":' + "[" * 5000 + "]" * 5000 + "}",
        '{"a":1}}',
        '{"a":1',
    ],
)
def test_fast_and_exact_reader_read_the_same(text: str) -> None:
    fast, exact = (list(ObjectReader(io.BytesIO(line.encode()))) for line in (f"{text}\n{{}}\n", f"{text} \n{{}}\n"))
    assert repr(fast) == repr(exact)


def test_rows_are_stored_as_django_stores_them() -> None:
    at = datetime(2024, 2, 13, 20, 32, 50, 120, tzinfo=UTC)  # the microseconds must be stored too
    threads = [new_thread(at, metadata={"a.$x": "é", "": "2"}) for _ in range(2)]
    values: dict[str, Any] = {
        "position": 1,
        "role": "assistant",
        "content": [text_part('línea\u2028 "\\ 👩‍🚀 \x7f')],
        "attachments": [{"file_id": "f", "tools": [{"type": "file_search"}]}],
        "assistant_id": "asst",
        "metadata": {"k": "v"},
        "created_at": at,
    }
    ids = [uuid4().hex, uuid4().hex]
    by_django = Message(id=ids[0], object_id=ids[0][:24], thread=threads[0], run_id=None, **values)
    by_store = Message.from_values(id=ids[1], object_id=ids[1][:24], thread_id=threads[1].id, run_id=None, **values)
    Thread.objects.bulk_create(threads[:1])
    Message.objects.bulk_create([by_django])
    assert store_rows(threads[1:], [by_store]) == 1
    assert [row._state.adding for row in (*threads, by_django, by_store)] == [False] * 4
    assert as_stored("message", ids[0]) == as_stored("message", ids[1])
    assert as_stored("thread", threads[0].id) == as_stored("thread", threads[1].id)
    if connection.features.supports_transactions:
        assert [thread.pairs.count() for thread in threads] == [0, 2]
    columns = [field.attname for field in Message._meta.concrete_fields]
    messages = Message.objects.filter(id__in=ids).order_by("id")
    assert select(messages, columns) == list(messages.values_list(*columns))
    assert select(messages.filter(id="none"), columns) == []


def as_stored(model: str, public_id: str) -> dict[str, Any]:
    """Return a row as the driver reads it, without the columns that identify it."""
    with connection.cursor() as cursor:
        columns = ["metadata", "created_at", "deleted_at"]
        if model == "message":
            columns += ["position", "role", "content", "attachments", "assistant_id", "run_id"]
        table = f"messages_app_{model}"
        names = ", ".join(f'"{table}"."{column}"' for column in columns)
        cursor.execute(f'SELECT {names} FROM "{table}" WHERE "{table}"."id" = %s', [public_id])
        return dict(zip(columns, cursor.fetchone(), strict=True))


@pytest.mark.process
@pytest.mark.engine("sqlite")
def test_memory_does_not_grow_with_the_number_of_messages(tmp_path: Path) -> None:
    peaks = {}
    for messages in (5_000, 50_000):
        directory, other, file = (tmp_path / f"{name}{messages}" for name in ("data", "other", "lines"))
        migrate(directory)
        migrate(other)
        peaks[messages] = [
            peak_mb(directory, "seed", "--threads", str(messages // 10), "--messages", str(messages)),
            peak_mb(directory, "export_threads", str(file)),
            peak_mb(other, "import_threads", str(file)),
        ]
    # A command that keeps all 45,000 messages in memory would need about 70 MB more. The limit of 30 MB allows for
    # SQLite's cache of 16 MB, because only the large run fills it.
    assert all(large - small < 30 for small, large in zip(*peaks.values(), strict=True)), peaks


def peak_mb(directory: Path, *arguments: str) -> float:
    """Run a command and return its peak memory in MB."""
    command = [sys.executable, "manage.py", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(directory), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss / 1000
