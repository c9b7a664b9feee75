"""What the documents say is so."""

import json
import re
import shlex
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT, Served
from threadsvc import __version__, settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.stateless
def test_every_setting_stands_in_the_readme_and_every_row_is_a_setting() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    assert documented == {name for name in settings.SETTINGS_READ if not name.endswith("_FILE")}


@pytest.mark.stateless
def test_no_setting_is_read_behind_the_readers_back() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for app in ("threadsvc", "messages_app") for path in (ROOT / app).rglob("*.py")
    )
    readers = (ROOT / "threadsvc/settings.py").read_text(encoding="utf-8").count("os.environ")
    assert (
        source.count("os.environ") == readers + 2
    )  # DJANGO_SETTINGS_MODULE in wsgi.py, where metrics go in exporter.py


def masked(text: str) -> str:
    """Ids and times differ from run to run; the rest of an answer does not."""
    text = re.sub(r"(thread|msg)_[0-9a-z]{26}", r"\1_...", text)
    text = re.sub(r'"_id":"[0-9a-f]{24}"', '"_id":"..."', text)
    return re.sub(r'"created_at":\d{10}', '"created_at":0', text)


def test_first_conversation_of_the_readme_gives_the_answers_it_shows(served: Served) -> None:
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL)
    assert block
    steps = re.findall(r"^\$ (curl .*)\n(.*)$", block[1], re.MULTILINE)
    assert len(steps) == 5
    threads: dict[str, str] = {}  # the README's id -> the one that we got instead
    for command, shown in steps:
        for theirs, ours in threads.items():
            command = command.replace(theirs, ours)
        command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{served.port}")
        got = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        assert masked(got) == masked(shown)
        answer = json.loads(got)
        if answer.get("object") == "thread":
            threads[json.loads(shown)["id"]] = answer["id"]


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
@pytest.mark.parametrize("coming_from", ["OpenAI Assistants", "Rubra"])
def test_lines_for_those_who_come_from_elsewhere_work(served: Served, coming_from: str) -> None:
    section = README.partition(f"## Coming from {coming_from}")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) == 3
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{served.port}"), names)
    with names["client"] as client:
        messages, thread_id = client.beta.threads.messages, names["thread"].id
        (message,) = messages.list(thread_id)
        assert message.content[0].text.value.startswith("How")
        assert (message.status, message.run_id) == ("completed", None)
        (message,) = messages.list(thread_id, extra_headers={"OpenAI-Beta": "assistants=v1"})
        assert "attachments" not in message.to_dict()
        assert message.run_id == ""
        made = messages.create(thread_id, role="user", content="How?", extra_body={"file_ids": ["f"]})
        assert made.file_ids == ["f"]
        listed = client.get("/threads", cast_to=object)
        assert listed["data"][0]["id"] == thread_id


@pytest.mark.stateless
@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCUMENTS])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r'\]\(([^)#]+)\)|(?:src|srcset)="([^"]+)"', path.read_text(encoding="utf-8"))
    for target in (link or source for link, source in links):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.stateless
def test_changelog_names_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.stateless
def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    there = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert len(tests) > 15
    assert {test for test in tests if f"\ndef {test}(" not in there} == set()
    for file in re.findall(r"`(tests/test_\w+\.py)`", text):
        assert (ROOT / file).exists(), file
