"""Import an export into each engine in turn. Each new export must be identical, byte for byte."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import engines
from tests.conftest import ROOT, environment
from tests.servers.postgresql import PostgreSQL

# This program runs three commands in one process, because three processes would take a second longer.
MOVE = """
import sys, django
django.setup()
from django.conf import settings
from django.core.management import call_command
call_command("migrate", verbosity=0, database="threads" if "threads" in settings.DATABASES else "default")
call_command("import_threads", sys.argv[1])
call_command("export_threads", sys.argv[2])
"""

TEXTS = [
    "",
    "How does AI work?",
    " leading and trailing \n",
    'a "quoted" back\\slash / and \b\f\r\t controls \x01\x1f\x7f',
    "e\u0301 is not é; \u00a0 \u2028 \u2029 \ufeff \uffff \U0010ffff",
    "👩‍👩‍👧‍👦 flag 🏴󠁧󠁢󠁳󠁣󠁴󠁿, שלום, 你好, नमस्ते",
    "x" * 40_000,
    '{"$oid": "65cbd1f2a1b2c3d4e5f60001"}',
    "]}\n{[",
]
KEYS = ["", "a", "A", "a.b", "$set", "é", "e\u0301", "_id", "k", "🙂", "x y", "0", "\n", "object", "\u2028", "Z"]
IDS = ["msg_abc{}", "msg_ABC{}", "{}", "id with spaces {}", "ключ-{}", "🙂{}", "a?b=c#{}"]
ROLES = ["user", "assistant", "tool_call", "tool_output"]


def awkward_lines(rng: Random) -> str:
    """Return threads of two tenants with unusual values, in the format and order of an export."""
    threads = [awkward_thread(rng, number) for number in range(40)]
    threads.sort(key=lambda thread: (thread["created_at"], thread["id"]))
    return "".join(json_line(thread) for thread in threads)


def json_line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"


def awkward_thread(rng: Random, number: int) -> dict[str, Any]:
    length = rng.choice([0, 1, 2, 5, 30])
    return {
        "_id": f"{rng.getrandbits(96):024x}",
        # The repeated value gives many threads the same second. The others are extreme: 1970, 2038 and 9999.
        "created_at": rng.choice([0, 1707856370, 1707856370, 2**31, 253402300799]),
        "id": rng.choice(["thread_{}", "Thread_{}", "нить-{}"]).format(number),
        "messages": [awkward_message(rng, f"{number}-{i}") for i in range(length)],
        "metadata": awkward_metadata(rng),
        "object": "thread",
        "tenant": rng.choice(["default", "Zoë & Co 🙂"]),
    }


def awkward_message(rng: Random, number: str) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": rng.choice(TEXTS[1:])}}
    detailed = {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "high"}}
    texts = [{"type": "text", "text": {"value": rng.choice(TEXTS), "annotations": []}} for _ in range(rng.randrange(3))]
    tools = [{"type": "code_interpreter"}, {"type": "file_search"}]
    files = [{"file_id": rng.choice(["", "file-2", "é"]), "tools": tools[: rng.randrange(3)]} for _ in range(2)]
    return {
        "_id": f"{rng.getrandbits(96):024x}",
        "assistant_id": rng.choice([None, "asst_1", " "]),
        "attachments": files[: rng.randrange(3)],
        "content": texts + rng.choice([[], [image], [detailed, image]]),
        "created_at": rng.randrange(0, 4_000_000_000),
        "id": rng.choice(IDS).format(number),
        "metadata": awkward_metadata(rng),
        "object": "thread.message",
        "role": rng.choice(ROLES),
        "run_id": rng.choice([None, "run_1", "$run.2"]),
    }


def awkward_metadata(rng: Random) -> dict[str, str]:
    return {key: rng.choice(TEXTS)[:512] for key in rng.sample(KEYS, rng.choice([0, 0, 1, 3, 16]))}


@pytest.mark.process
@pytest.mark.engine("mongodb")
def test_export_is_unchanged_after_a_pass_through_all_engines(tmp_path: Path) -> None:
    lines = awkward_lines(Random(20260826))
    source = tmp_path / "0.jsonl"
    source.write_bytes(lines.encode())
    postgresql = PostgreSQL()
    try:
        assert engines.server
        urls = [
            f"sqlite:///{tmp_path}/first.db",
            postgresql.new_database(),
            engines.server.new_database(),
            f"sqlite:///{tmp_path}/last.db",
        ]
        for number, url in enumerate(urls, start=1):
            target = tmp_path / f"{number}.jsonl"
            settings = environment(
                tmp_path / "data", THREADS_DATABASE_URL=url, DJANGO_SETTINGS_MODULE="threadsvc.settings"
            )
            done = subprocess.run(
                [sys.executable, "-c", MOVE, str(source), str(target)],
                cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("Imported 40 threads with ")
            assert target.read_bytes() == lines.encode(), url
            source = target
    finally:
        postgresql.close()
