"""The documentation agrees with the code: examples run, tables are complete, and links work."""

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class

from tests.conftest import ROOT, Served, environment
from threadsvc import __version__, settings

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
SERVICE = "http://127.0.0.1:8000"  # the service's address in every example


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def code_blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), re.DOTALL | re.MULTILINE)


def at(served: Served, example: str) -> str:
    """Return an example with its address replaced by the address of the running service."""
    assert SERVICE in example
    return example.replace(SERVICE, f"http://127.0.0.1:{served.port}")


# Tables


@pytest.mark.stateless
def test_every_setting_has_a_row_and_every_row_is_a_setting() -> None:
    documented = re.findall(r"^\| `([A-Z_]+)` \|", text_of("docs/settings.md"), re.MULTILINE)
    assert sorted(documented) == sorted(name for name in settings.SETTINGS_READ if not name.endswith("_FILE"))


@pytest.mark.stateless
def test_only_the_readers_of_settings_read_the_environment() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for app in ("threadsvc", "messages_app") for path in (ROOT / app).rglob("*.py")
    )
    readers = text_of("threadsvc/settings.py").count("os.environ")
    # Outside settings.py, os.environ has two uses: DJANGO_SETTINGS_MODULE in wsgi.py, and the metrics directory in
    # exporter.py.
    assert source.count("os.environ") == readers + 2


@pytest.mark.stateless
def test_every_type_of_error_has_a_row_and_every_row_is_in_the_code() -> None:
    kind = r"(?:type|value)_error\.[a-z_.]+|json_invalid"
    sources = text_of("messages_app/api/errors.py") + text_of("threadsvc/api/errors.py")
    documented = re.findall(rf"^\| `({kind})` \|", text_of("docs/errors.md"), re.MULTILINE)
    assert len(documented) > 20
    assert sorted(documented) == sorted(set(re.findall(rf'"({kind})"', sources)))
    assert set(re.findall(rf"\b(?:{kind})\b", text_of("docs/errors.md"))) == set(documented)


@pytest.mark.stateless
def test_every_detail_of_the_contract_and_of_the_exceptions_has_a_row() -> None:
    fixed = set(re.findall(r'\{"detail": ?"([^"]+)"\}', text_of("docs/contract/threads-api.md")))
    for path in (*(ROOT / "threadsvc").rglob("*.py"), *(ROOT / "messages_app/api").rglob("*.py")):
        fixed |= set(re.findall(r'default_detail = "([^"]+)"', path.read_text(encoding="utf-8")))
    assert len(fixed) > 12
    documented = re.findall(r"^\| \d{3} \| `([^`]+)` \|", text_of("docs/errors.md"), re.MULTILINE)
    assert {re.sub(r"'[^']*'", "'...'", text) for text in fixed} - set(documented) == set()


OUR_COMMANDS = {
    name: app for name, app in get_commands().items() if app in ("threadsvc", "threadsvc.access", "messages_app")
}
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
COMMANDS = dict(SECTION.findall(text_of("docs/commands.md")))


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def help_of(command: BaseCommand, name: str) -> str:
    return command.create_parser("manage.py", name).format_help()


@pytest.mark.stateless
def test_documented_commands_are_those_of_the_code() -> None:
    assert sorted(COMMANDS) == sorted(OUR_COMMANDS)


@pytest.mark.stateless
@pytest.mark.parametrize("name", sorted(OUR_COMMANDS))
def test_options_of_a_command_are_those_of_its_help(name: str) -> None:
    of_all_commands = options_in(help_of(BaseCommand(), name))
    real = options_in(help_of(load_command_class(OUR_COMMANDS[name], name), name)) - of_all_commands
    (usage,) = re.findall(r"^    manage\.py (.*)$", COMMANDS[name], re.MULTILINE)
    first_cells = "\n".join(re.findall(r"^\| (`.+?) \|", COMMANDS[name], re.MULTILINE))
    assert usage.split()[0] == name
    assert options_in(first_cells) == real
    assert options_in(usage) | {"--no-input"} == real | {"--no-input"}  # an alias that the usage omits


@pytest.mark.stateless
def test_kills_in_the_readme_are_the_sums_of_the_durability_page() -> None:
    runs = re.findall(
        r"^\| (SQLite|PostgreSQL|MongoDB's protocol), seed.* \| ([^|]+) \| [\d,]+ \| ([\d,]+) \|(?: 0 \|){4}$",
        text_of("docs/durability.md"),
        re.MULTILINE,
    )
    killed, acknowledged = Counter[str](), Counter[str]()
    for engine, kills, count in runs:
        killed[engine] += sum(map(int, re.findall(r"\d+", kills)))
        acknowledged[engine] += int(count.replace(",", ""))
    shown = re.findall(r"^ +\| (\w[^|]+) \| ([^|]*\d[^|]*) \| ([\d,]+) \| 0 \|$", text_of("README.md"), re.MULTILINE)
    assert {
        engine: (sum(map(int, re.findall(r"\d+", kills))), int(count.replace(",", "")))
        for engine, kills, count in shown
    } == {engine: (killed[engine], acknowledged[engine]) for engine in killed}
    assert len(shown) == 3


# Examples


def masked(text: str) -> str:
    """Mask the ids and times in a text, because only ids and times differ between runs."""
    text = re.sub(r"(thread|msg)_[0-9a-z]{26}", r"\1_...", text)
    text = re.sub(r'"_id":"[0-9a-f]{24}"', '"_id":"..."', text)
    return re.sub(r'"created_at":\d{10}', '"created_at":0', text)


def test_curl_commands_of_the_tutorial_get_its_responses(served: Served) -> None:
    blocks = "\n".join(code_blocks("docs/tutorial.md", "console"))
    steps = re.findall(r"^\$ (curl .*)\n(.*)$", blocks, re.MULTILINE)
    assert len(steps) == 5
    threads: dict[str, str] = {}  # maps the tutorial's ids to the ids that the service returned
    for command, shown in steps:
        for theirs, ours in threads.items():
            command = command.replace(theirs, ours)
        got = subprocess.run(shlex.split(at(served, command)), capture_output=True, text=True, check=True).stdout
        assert masked(got) == masked(shown)
        answer = json.loads(got)
        if answer.get("object") == "thread":
            threads[json.loads(shown)["id"]] = answer["id"]


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
def test_python_session_of_the_tutorial_prints_what_it_shows(served: Served) -> None:
    session = at(served, "\n".join(code_blocks("docs/tutorial.md", "pycon")))
    test = doctest.DocTestParser().get_doctest(session, {}, "tutorial", "docs/tutorial.md", 0)
    printed: list[str] = []
    results = doctest.DocTestRunner().run(test, out=printed.append, clear_globs=False)
    test.globs["client"].close()
    assert (results.failed, "".join(printed)) == (0, "")
    assert results.attempted > 15


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
@pytest.mark.parametrize("coming_from", ["openai", "rubra"])
def test_first_lines_for_those_who_come_from_elsewhere_work(served: Served, coming_from: str) -> None:
    (code,) = code_blocks(f"docs/from-{coming_from}.md", "python")
    assert len([line for line in code.splitlines() if line]) == 3
    names: dict[str, Any] = {}
    exec(at(served, code), names)
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


class Model(ThreadingHTTPServer):
    """An OpenAI-compatible model server. It responds with the number of messages and the last message in capitals."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ModelHandler)
        self.requests: list[dict[str, Any]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class ModelHandler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
        text = f"{len(body['messages'])}: {body['messages'][-1]['content'].upper()}"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, *args: Any) -> None:
        """Write no log, because the default writes each request to stderr."""


@pytest.fixture
def model() -> Iterator[Model]:
    with Model() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_chat_program_continues_its_conversation_at_the_next_start(
    served: Served, model: Model, tmp_path: Path
) -> None:
    program = tmp_path / "chat.py"
    program.write_text(at(served, text_of("docs/examples/chat.py")), encoding="utf-8")
    variables = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "of the model", "MODEL": "m"}

    def chat(lines: str) -> str:
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=tmp_path,
            env={**environment(tmp_path), "PYTHONPATH": "", **variables},
            input=lines,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert chat("hello\nhow are you?\n") == "> 1: HELLO\n> 3: HOW ARE YOU?\n> "
    said = "user: hello\nassistant: 1: HELLO\nuser: how are you?\nassistant: 3: HOW ARE YOU?\n"
    assert chat("\nonce more\n") == f"{said}> 5: ONCE MORE\n> "

    thread_id = (tmp_path / "chat-thread-id").read_text()
    stored = served.call("GET", f"/threads/{thread_id}/messages?order=asc").body["data"]
    conversation = [{"role": each["role"], "content": each["content"][0]["text"]["value"]} for each in stored]
    assert [each["content"] for each in conversation][-2:] == ["once more", "5: ONCE MORE"]
    assert [each["messages"] for each in model.requests] == [conversation[:count] for count in (1, 3, 5)]
    asked = {(each["path"], each["key"], each["model"]) for each in model.requests}
    assert asked == {("/v1/chat/completions", "Bearer of the model", "m")}


@pytest.mark.stateless
def test_readme_shows_the_chat_program() -> None:
    assert code_blocks("README.md", "python") == [text_of("docs/examples/chat.py")]


# Links


def prose_of(document: str) -> str:
    """Return the text of a page without fenced code blocks."""
    return re.sub(r"^( *)(```+|~~~+).*?^\1\2 *$", "", text_of(document), flags=re.DOTALL | re.MULTILINE)


def anchors_of(document: str) -> set[str]:
    """Return a page's anchors: GitHub's anchors for the headings, and the anchors in the page's HTML."""
    prose, found, times = prose_of(document), set[str](), Counter[str]()
    for heading in re.findall(r"^ {0,3}#{1,6} +(.*?)(?: +#+)? *$", prose, re.MULTILINE):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{times[slug]}" if times[slug] else slug)
        times[slug] += 1
    return found | set(re.findall(r'<[^>]*\b(?:id|name)="([^"]+)"', prose))


def links_of(document: str) -> set[str]:
    """Return the targets of a page's links and pictures. Ignore inline code."""
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "`", prose_of(document))
    inline = re.findall(r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)", prose)
    references = re.findall(r"^ {0,3}\[[^\]]+\]: +(\S+)", prose, re.MULTILINE)
    html = re.findall(r'(?:src|srcset|href)="([^"]+)"', prose)
    return {*inline, *references, *html}


@pytest.mark.stateless
@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_a_page_lead_to_something(document: str) -> None:
    for link in links_of(document):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        page = os.path.normpath(Path(document).parent / target) if target else document
        assert (ROOT / page).exists(), link
        if anchor:
            assert page.endswith(".md"), link
            assert anchor in anchors_of(page), link


@pytest.mark.stateless
def test_home_page_links_to_every_page() -> None:
    pages = {str(Path(document).relative_to("docs")) for document in DOCUMENTS if document.startswith("docs/")}
    assert pages - links_of("docs/index.md") - {"index.md"} == set()


@pytest.mark.stateless
def test_changelog_names_this_version() -> None:
    assert f"## {__version__}" in text_of("CHANGELOG.md")


@pytest.mark.stateless
def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = text_of("docs/threat-model.md")
    there = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert len(tests) > 15
    assert {test for test in tests if f"\ndef {test}(" not in there} == set()
    for file in re.findall(r"`(tests/test_\w+\.py)`", text):
        assert (ROOT / file).exists(), file
