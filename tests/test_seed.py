"""`manage.py seed`."""

import os
import pty
import sqlite3
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, environment, manage


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with an empty, migrated database."""
    assert manage(tmp_path / "data", "migrate", "-v0").returncode == 0
    return tmp_path / "data"


def rows(data: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data / "threadsvc.db")) as connection:
        return connection.execute(sql).fetchall()


def test_makes_what_it_is_asked_for_and_says_so(data: Path) -> None:
    seeded = manage(data, "seed", "--threads", "30", "--messages", "700")
    assert seeded.returncode == 0
    assert seeded.stdout.startswith("Made 30 threads with 700 messages in ")
    assert rows(data, "SELECT count(*) FROM messages_app_thread") == [(30,)]
    assert rows(data, "SELECT count(*) FROM messages_app_message") == [(700,)]
    gaps = "SELECT thread_id FROM messages_app_message GROUP BY thread_id HAVING max(position) <> count(*)"
    assert rows(data, gaps) == []
    roles = {role for (role,) in rows(data, "SELECT DISTINCT role FROM messages_app_message")}
    assert roles == {"user", "assistant", "tool_call", "tool_output"}
    assert rows(data, "SELECT count(DISTINCT thread_id) FROM messages_app_message") == [(30,)]
    late = "SELECT count(*) FROM messages_app_message m JOIN messages_app_thread t ON t.id = m.thread_id"
    assert rows(data, f"{late} WHERE m.created_at < t.created_at") == [(0,)]


def test_same_seed_makes_the_same_rows_elsewhere(data: Path, tmp_path: Path) -> None:
    manage(tmp_path / "other", "migrate", "-v0")
    options = ("seed", "--threads", "9", "--messages", "120", "--seed", "42")
    for directory in (data, tmp_path / "other"):
        assert manage(directory, *options).returncode == 0
    for table in ("messages_app_thread", "messages_app_message"):
        sql = f"SELECT * FROM {table} ORDER BY id"
        assert rows(data, sql) == rows(tmp_path / "other", sql)
    manage(data, "seed", "--threads", "9", "--messages", "120", "--seed", "43")
    assert rows(data, "SELECT count(*) FROM messages_app_thread") == [(18,)]


def test_same_seed_a_second_time_is_refused_and_changes_nothing(data: Path) -> None:
    options = ("seed", "--threads", "5", "--messages", "50", "--seed", "1")
    manage(data, *options)
    again = manage(data, *options)
    assert again.returncode == 1
    assert again.stderr == "CommandError: threads of --seed 1 are in this store already; take another number\n"
    assert rows(data, "SELECT count(*) FROM messages_app_message") == [(50,)]


def test_threads_go_to_the_tenant_that_is_named(data: Path) -> None:
    manage(data, "seed", "--threads", "2", "--messages", "2", "--tenant", "acme")
    assert rows(data, "SELECT DISTINCT tenant FROM messages_app_thread") == [("acme",)]


@pytest.mark.parametrize("option", [("--threads", "0"), ("--messages", "-1"), ("--messages", "many"), ("--seed", "x")])
def test_bad_option_is_refused_before_anything_is_made(data: Path, option: tuple[str, str]) -> None:
    refused = manage(data, "seed", *option)
    assert refused.returncode == 2
    assert f"argument {option[0]}" in refused.stderr
    assert rows(data, "SELECT count(*) FROM messages_app_thread") == [(0,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--threads", "10", "--messages", "3"), "3 messages are too few for 10 threads"),
        (("--tenant", "x" * 65), "--tenant takes 1 to 64 characters"),
        (("--tenant", ""), "--tenant takes 1 to 64 characters"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(data: Path, options: tuple[str, ...], words: str) -> None:
    refused = manage(data, "seed", *options)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert words in refused.stderr


def test_store_without_tables_is_one_line(tmp_path: Path) -> None:
    refused = manage(tmp_path / "empty", "seed")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "`manage.py migrate` makes the tables" in refused.stderr


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left(data: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "manage.py", "seed", "--threads", "3", "--messages", "30"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(data), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux tells the end of a terminal
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"100%|" in shown
    assert b"messages/s" in shown
    assert b"Made 3 threads with 30 messages" in shown
