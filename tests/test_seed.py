"""The command `manage.py seed`: its rows, options, errors and progress bar."""

import json
import os
import pty
import subprocess
import sys
import termios
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, connection, database_url, environment, manage, migrate
from tests.stored import stored

pytestmark = pytest.mark.process


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with an empty, migrated database."""
    migrate(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an empty, migrated database, for tests that store nothing."""
    directory = tmp_path_factory.mktemp("untouched") / "data"
    migrate(directory)
    return directory


def rows(data: Path, model: str) -> list[dict[str, Any]]:
    return stored(database_url(data, environment(data)), model)


def test_stores_and_reports_the_requested_numbers(data: Path) -> None:
    seeded = manage(data, "seed", "--threads", "30", "--messages", "700")
    assert seeded.returncode == 0
    assert seeded.stdout.startswith("Stored 30 threads with 700 messages in ")
    threads = {thread["id"]: thread for thread in rows(data, "thread")}
    messages = rows(data, "message")
    assert (len(threads), len(messages)) == (30, 700)
    lengths = Counter(message["thread_id"] for message in messages)
    positions = sorted((message["thread_id"], message["position"]) for message in messages)
    assert positions == [(thread, i + 1) for thread in sorted(threads) for i in range(lengths[thread])]
    assert min(lengths.values()) >= 1
    assert {message["role"] for message in messages} == {"user", "assistant", "tool_call", "tool_output"}
    assert all(message["created_at"] >= threads[message["thread_id"]]["created_at"] for message in messages)


# One engine is enough, because the generated texts do not depend on the engine.
@pytest.mark.engine("sqlite")
def test_conversations_resemble_real_ones(data: Path) -> None:
    manage(data, "seed", "--threads", "80", "--messages", "1200", "--seed", "3")
    messages = rows(data, "message")
    texts = "".join(part["text"]["value"] for m in messages for part in m["content"] if part["type"] == "text")
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in set(texts)}
    assert scripts >= {"LATIN", "CJK", "HIRAGANA", "ARABIC", "DEVANAGARI", "CYRILLIC", "GREEK", "HANGUL"}
    # The texts also have characters that need two UTF-16 code units each, such as emoji.
    assert {"é", "🍚", "🙂", "\n"} <= set(texts)
    assert not {"{", "}"} & set(texts)
    kinds = {part["type"] for message in messages for part in message["content"]}
    assert kinds == {"text", "image_file", "image_url"}
    tools = {json.dumps(file["tools"]) for message in messages for file in message["attachments"]}
    assert tools == {"[]", '[{"type": "file_search"}]', '[{"type": "code_interpreter"}]'}
    assert max(len(message["attachments"]) for message in messages) > 1
    for model in (messages, rows(data, "thread")):
        with_metadata = [row for row in model if row["metadata"]]
        assert 0 < len(with_metadata) < len(model)
    # A reply to a user and its tool messages form one run, which has its own id. User messages have no run.
    assert {(m["assistant_id"], m["run_id"]) for m in messages if m["role"] == "user"} == {("", None)}
    runs: dict[str, list[tuple[str, int]]] = {}
    for message in messages:
        if message["role"] != "user":
            assert message["assistant_id"].startswith("asst_")
            runs.setdefault(message["run_id"], []).append((message["thread_id"], message["position"]))
    assert all(run.startswith("run_") for run in runs)
    # A run has one message, or three with tool messages. It has two if the thread ends within the run.
    assert {1, 3} <= {len(places) for places in runs.values()} <= {1, 2, 3}
    for places in runs.values():
        first = min(places)
        assert sorted(places) == [(first[0], first[1] + i) for i in range(len(places))]


def test_one_thread_can_have_all_messages(data: Path) -> None:
    assert manage(data, "seed", "--threads", "1", "--messages", "2100").returncode == 0
    ((thread, count),) = Counter(message["thread_id"] for message in rows(data, "message")).items()
    assert ([row["id"] for row in rows(data, "thread")], count) == ([thread], 2100)


@pytest.mark.once
def test_same_seed_gives_the_same_rows_in_another_store(data: Path, tmp_path: Path) -> None:
    migrate(tmp_path / "other")
    options = ("seed", "--threads", "9", "--messages", "120", "--seed", "42")
    for directory in (data, tmp_path / "other"):
        assert manage(directory, *options).returncode == 0
    for model in ("thread", "message"):
        assert rows(data, model) == rows(tmp_path / "other", model)
    manage(data, "seed", "--threads", "9", "--messages", "120", "--seed", "43")
    assert len(rows(data, "thread")) == 18


def test_repeated_seed_is_refused_and_changes_nothing(data: Path) -> None:
    options = ("seed", "--threads", "5", "--messages", "50", "--seed", "1")
    manage(data, *options)
    again = manage(data, *options)
    assert again.returncode == 1
    assert again.stderr == "CommandError: threads of --seed 1 are already in this store; use another number\n"
    assert len(rows(data, "message")) == 50


@pytest.mark.once
def test_threads_belong_to_the_requested_tenant(data: Path) -> None:
    manage(data, "seed", "--threads", "2", "--messages", "2", "--tenant", "acme")
    assert {thread["tenant"] for thread in rows(data, "thread")} == {"acme"}


@pytest.mark.stateless
@pytest.mark.parametrize("option", [("--threads", "0"), ("--messages", "-1"), ("--messages", "many"), ("--seed", "x")])
def test_invalid_option_is_refused_and_stores_nothing(untouched: Path, option: tuple[str, str]) -> None:
    refused = manage(untouched, "seed", *option)
    assert refused.returncode == 2
    assert f"argument {option[0]}" in refused.stderr
    assert rows(untouched, "thread") == []


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--threads", "10", "--messages", "3"), "3 messages are too few for 10 threads"),
        (("--tenant", "x" * 65), "--tenant takes 1 to 64 characters"),
        (("--tenant", ""), "--tenant takes 1 to 64 characters"),
    ],
)
def test_unusable_options_are_a_one_line_error(untouched: Path, options: tuple[str, ...], words: str) -> None:
    refused = manage(untouched, "seed", *options)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert words in refused.stderr


@pytest.mark.engine("sqlite", "postgresql")
def test_missing_tables_are_a_one_line_error(tmp_path: Path) -> None:
    refused = manage(tmp_path / "empty", "seed")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    migrate = "migrate" if connection.alias == "default" else f"migrate --database {connection.alias}"
    assert f"`manage.py {migrate}` creates the tables" in refused.stderr


@pytest.mark.once
def test_terminal_gets_a_progress_bar_with_the_rate(data: Path) -> None:
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "manage.py", "seed", "--threads", "3", "--messages", "30"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(data), stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(reader, 4096):
                shown += piece
        except OSError:  # Linux raises an error at the end of a terminal's output
            pass
    os.close(reader)
    assert process.returncode == 0
    assert b"100%|" in shown
    assert b"messages/s" in shown
    assert b"Stored 3 threads with 30 messages" in shown
