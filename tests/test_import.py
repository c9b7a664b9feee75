"""`manage.py import_threads` with lines from our own export, and with files from OpenAI and Rubra."""

import gzip
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messages_app.models import Message, Thread
from messages_app.store import deletion as purging
from messages_app.store import imports, threads
from messages_app.store.deletion import purge
from messages_app.store.exports import threads_oldest_first
from messages_app.transfer import export_lines, reader
from messages_app.transfer.fields import MESSAGE_FIELDS
from messages_app.transfer.reader import ObjectReader
from tests.conftest import ROOT, Api, Served, connection, environment, manage, migrate
from tests.rows import delete_thread

SAVED = Path(__file__).resolve().parent / "saved"
V2 = {"HTTP_OPENAI_BETA": "assistants=v2"}


class Output(NamedTuple):
    """The lines that an import prints on stdout and stderr, and its error message, which is "" after a success."""

    out: list[str]
    err: list[str]
    error: str


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4().hex}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Output]:
    """Return a function that imports texts, lists of values, or paths."""

    def run(*given: Any, **options: Any) -> Output:
        files = []
        for i, content in enumerate(given):
            if not isinstance(content, Path):
                path = tmp_path / f"given-{i}"
                if not isinstance(content, str | bytes):
                    content = "".join(json.dumps(value) + "\n" for value in content)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
                content = path
            files.append(str(content))
        out, err, message = io.StringIO(), io.StringIO(), ""
        try:
            call_command("import_threads", *files, stdout=out, stderr=err, **options)
        except CommandError as error:
            message = str(error)
        errors = err.getvalue().replace(f"{tmp_path}/", "")
        return Output(out.getvalue().replace(f"{tmp_path}/", "").splitlines(), errors.splitlines(), message)

    return run


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": {"value": text, "annotations": []}}


def new_message(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    """Return a message for an import line, with every key that the message can have."""
    key = uuid4().hex
    return {
        "_id": key[:24],
        "assistant_id": None,
        "attachments": [],
        "content": [part(text)],
        "created_at": 1707856371,
        "id": f"msg_{key}",
        "metadata": {},
        "object": "thread.message",
        "role": "user",
        "run_id": None,
        **fields,
    }


def new_line(*messages: Any, **fields: Any) -> dict[str, Any]:
    key = uuid4().hex
    return {
        "_id": key[:24],
        "created_at": 1707856370,
        "id": f"thread_{key}",
        "messages": list(messages),
        "metadata": {},
        "object": "thread",
        "tenant": "default",
        **fields,
    }


def stored_line(thread_id: str) -> dict[str, Any]:
    """Return a stored thread as an export line."""
    value: dict[str, Any] = json.loads("".join(export_lines([Thread.objects.get(id=thread_id, deleted_at=None)])))
    return value


def texts_of(thread_id: str) -> list[str]:
    return [message["content"][0]["text"]["value"] for message in stored_line(thread_id)["messages"]]


# Lines from our own export


def test_import_keeps_ids_times_order_and_content(api: Api, run: Callable[..., Output]) -> None:
    files = [{"file_id": "file-1", "tools": [{"type": "code_interpreter"}]}, {"file_id": "file-2", "tools": []}]
    messages = [
        new_message("later, but first", created_at=1707856399, role="tool_call"),
        new_message("", role="assistant", assistant_id="asst_1", run_id="run_1", attachments=files),
        new_message(role="tool_output", content=[]),
        new_message(content=[{"type": "image_file", "image_file": {"file_id": "file-3", "detail": "low"}}, part("🙂")]),
    ]
    line = new_line(*messages, metadata={"a.$x": "1", "": "é"})
    output = run([line])
    assert (output.err, output.error) == ([], "")
    assert output.out[0].startswith("Imported 1 threads with 4 messages in ")
    assert stored_line(line["id"]) == line
    thread = api.get(f"/threads/{line['id']}").body
    assert thread == {key: line[key] for key in ("_id", "id", "object", "created_at", "metadata")}
    listed = api.get(f"/threads/{line['id']}/messages", QUERY_STRING="order=asc", **V2).body["data"]
    for shown, given in zip(listed, messages, strict=True):
        assert {key: shown[key] for key in given} == given
    # New messages come after the imported ones.
    api.post(f"/threads/{line['id']}/messages", {"role": "user", "content": "next"})
    last = api.get(f"/threads/{line['id']}/messages", QUERY_STRING="limit=1").body["data"][0]
    assert last["content"] == [part("next")]
    assert api.get("/threads", QUERY_STRING="metadata[a.$x]=1&limit=100").body["data"][-1]["id"] == line["id"]


def test_line_needs_only_the_required_keys(run: Callable[..., Output], tenant: str) -> None:
    message = {"id": uuid4().hex, "role": "user", "content": [part("Hi")], "created_at": 0}
    line: dict[str, Any] = {
        "object": "thread", "id": uuid4().hex, "created_at": 253402300799, "messages": [message]
    }  # fmt: skip
    assert not run([line], tenant=tenant).error
    first = stored_line(line["id"])
    assert (first["tenant"], first["metadata"], first["created_at"]) == (tenant, {}, 253402300799)
    assert first["messages"][0]["attachments"] == []
    # The import generates the missing _id, and always generates the same _id for the same message.
    assert first["messages"][0]["_id"].startswith("00000000")
    delete_thread(line["id"])
    assert not run([line], tenant=tenant).error
    assert stored_line(line["id"]) == first


NOT_A_ROLE = (
    "value is not a valid enumeration member; permitted: 'user', 'assistant', 'tool_call', 'tool_output'"
)  # fmt: skip
INVALID_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"role": "system"}, f"role: {NOT_A_ROLE}"),
    ({"role": None}, "role: none is not an allowed value"),
    ({"id": ""}, "id: ensure this value has at least 1 characters"),
    ({"id": "x" * 65}, "id: ensure this value has at most 64 characters"),
    ({"id": "a\0"}, "id: null characters are not allowed"),
    ({"id": "\ud800"}, "id: surrogate characters are not allowed"),
    ({"_id": "65cbd1f2"}, "_id: value is not a valid ObjectId"),
    ({"created_at": -1}, "created_at: ensure this value is greater than or equal to 0"),
    ({"created_at": 10**12}, "created_at: ensure this value is less than or equal to 253402300799"),
    ({"created_at": 1.5}, "created_at: value is not a valid integer"),
    ({"created_at": True}, "created_at: value is not a valid integer"),
    ({"content": "Hi"}, "content: value is not a valid list"),
    ({"content": [part("x" * 256001)]}, "content: ensure this value has at most 256000 characters"),
    ({"content": [part("\0")]}, "content.0.text.value: null characters are not allowed"),
    ({"content": [{"type": "text"}]}, "content.0.text: field required"),
    ({"content": [{"type": "text", "text": "Hi"}]}, "content.0.text: value is not a valid dict"),
    (
        {"content": [None, 5]},
        "content.0: none is not an allowed value; messages.0.content.1: value is not a valid dict",
    ),
    (
        {"content": [{"type": "video"}]},
        "content.0.type: value is not a valid enumeration member; permitted: 'text', 'image_file', 'image_url'",
    ),
    ({"content": [{"type": "image_url", "image_url": {}}]}, "content.0.image_url.url: field required"),
    ({"attachments": [{"tools": []}]}, "attachments.0.file_id: field required"),
    ({"attachments": [{"file_id": "f"}] * 11}, "attachments: ensure this value has at most 10 items"),
    ({"file_ids": list(map(str, range(11)))}, "file_ids: ensure this value has at most 10 items"),
    ({"metadata": {"a\nb": 5}}, 'metadata."a\\nb": str type expected'),
    ({"metadata": {str(i): "" for i in range(17)}}, "metadata: ensure this value has at most 16 items"),
    ({"run_id": "x" * 257}, "run_id: ensure this value has at most 256 characters"),
    ({"assistant_id": 5}, "assistant_id: str type expected"),
]


@pytest.mark.stateless
@pytest.mark.parametrize(("invalid", "error"), INVALID_MESSAGES)
def test_error_in_a_message_is_reported_with_its_path(
    run: Callable[..., Output], invalid: dict[str, Any], error: str
) -> None:
    output = run([new_line(new_message(**invalid))])
    assert output.err == [f"given-0:1: messages.0.{error}"]
    assert output.error == "1 not imported because of the errors above"
    assert output.out[0].startswith("Imported 0 threads with 0 messages")


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("invalid", "error"),
    [
        ({"id": None}, "id: none is not an allowed value"),
        *[({"id": unreachable}, "id: no request can name this id in its path")
          for unreachable in ("a/b", "/", "..", ".", "runs")],
        ({"id": ""}, "id: ensure this value has at least 1 characters"),
        *[({"messages": [new_message(id=unreachable)]}, "messages.0.id: no request can name this id in its path")
          for unreachable in ("a/b", "..")],
        ({"created_at": "1707856370"}, "created_at: value is not a valid integer"),
        ({"metadata": []}, "metadata: value is not a valid dict"),
        ({"tenant": ""}, "tenant: ensure this value has at least 1 characters"),
        ({"tenant": "x" * 65}, "tenant: ensure this value has at most 64 characters"),
        ({"messages": {}}, "messages: value is not a valid list"),
        ({"messages": [5]}, "messages.0: value is not a valid dict"),
        ({"messages": [new_message(id="m"), new_message(id="m")]},
         "messages.1.id: another message of this thread has this id"),
        ({"messages": [new_message(thread_id="other")]},
         "messages.0.thread_id: value is not the id of this thread"),
    ],
)  # fmt: skip
def test_error_in_a_thread_is_reported_with_its_path(
    run: Callable[..., Output], invalid: dict[str, Any], error: str
) -> None:
    assert run([new_line(**invalid)]).err == [f"given-0:1: {error}"]


def test_all_errors_of_a_line_are_reported_and_the_rest_imported(run: Callable[..., Output]) -> None:
    first, last = new_line(new_message("first")), new_line(new_message("last"))
    bad = new_line(
        new_message(), new_message(role="system", content=5), new_message(metadata={"k": None}), created_at=-1
    )
    output = run([first, bad, last])
    assert output.err == [
        (
            "given-0:2: created_at: ensure this value is greater than or equal to 0; "
            f"messages.1.role: {NOT_A_ROLE}; messages.1.content: value is not a valid list; "
            "messages.2.metadata.k: none is not an allowed value"
        )
    ]
    assert output.out[0].startswith("Imported 2 threads with 2 messages")
    assert (texts_of(first["id"]), texts_of(last["id"])) == (["first"], ["last"])
    assert not Thread.objects.filter(id=bad["id"]).exists()
    assert not Message.objects.filter(id__in=[message["id"] for message in bad["messages"]]).exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"id": "thr', "not JSON: Invalid control character (character 12)"),
        ('{"id": 5,', "not JSON: Expecting property name enclosed in double quotes (line 3)"),
        ('{"id": 5 "a": 6}', "not JSON: Expecting ',' delimiter (character 10)"),
        ('{"a": NaN}', "not JSON: NaN is not a JSON value"),
        ("not JSON", "not a JSON object or array"),
        ('"text"', "not a JSON object or array"),
        ('{"a": 1}}', "not JSON: extra data after the object"),
        ("{" + '"a":{' * 100_000, "cannot parse JSON: nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "cannot parse JSON: a number has too many digits"),
        ("{}", "not a thread or a message: `object` must be thread or thread.message"),
    ],
)
def test_invalid_json_is_an_error_of_its_line_alone(run: Callable[..., Output], text: str, error: str) -> None:
    before, after = new_line(new_message("before")), new_line(new_message("after"))
    output = run(f"{json.dumps(before)}\n{text}\n{json.dumps(after)}\n")
    assert output.err[0] == f"given-0:2: {error}"
    assert (texts_of(before["id"]), texts_of(after["id"])) == (["before"], ["after"])


@pytest.mark.stateless
def test_invalid_utf8_is_an_error_of_its_text(run: Callable[..., Output]) -> None:
    line = json.dumps(new_line(new_message("caf\xe9")), ensure_ascii=False).encode("latin-1")
    assert run(line).err == ["given-0:1: messages.0.content.0.text.value: surrogate characters are not allowed"]


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"object": "thread", "mess', "given-0:1: not JSON: unexpected end of file"),
        ('{"object": "thread"\n', "given-0:1: not JSON: unexpected end of file"),
        ("[\n\n", "given-0:3: the file ends inside an array"),
        (
            gzip.compress(b"{}" * 1000, mtime=0)[:-4],
            "given-0:1: cannot read the rest of the file: Compressed file ended",
        ),
        (
            b"\x1f\x8b looks like gzip",
            "given-0:1: cannot read the rest of the file: Unknown compression method",
        ),
    ],
)
def test_truncated_file_is_reported(run: Callable[..., Output], content: str | bytes, error: str) -> None:
    output = run(content)
    assert output.err[-1].startswith(error)
    assert output.error


@pytest.mark.stateless
@pytest.mark.parametrize("piece", [1, 7, 4096])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("as_list", [False, True])
def test_objects_are_found_in_any_layout_and_chunk_size(
    monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None, as_list: bool
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", piece)
    values = [{"a": '}{\n\\"[é🙂', "b": [1.5e3, -7, True, None]}, {}, {"c": {"d": [[], {}]}}, {"e": "x" * 500}]
    text = json.dumps(values, indent=indent) if as_list else "\n".join(json.dumps(v, indent=indent) for v in values)
    found = list(ObjectReader(io.BytesIO(b"\xef\xbb\xbf\r\n" + text.encode())))
    assert [each.value for each in found] == values
    assert all(each.fault is None for each in found)
    lines = [text[:position].count("\n") + 2 for position in starts(text, values, indent, as_list)]
    assert [each.line for each in found] == lines


def starts(text: str, values: list[Any], indent: int | None, as_list: bool) -> list[int]:
    decoder, found, position = json.JSONDecoder(), [], 0
    for _ in values:
        position = text.index("{", position)
        found.append(position)
        position = decoder.raw_decode(text, position)[1]
    return found


# Repeated imports, and threads that are already stored


def test_second_import_writes_nothing(run: Callable[..., Output]) -> None:
    given = [new_line(new_message(str(i)), new_message()) for i in range(5)]
    run(given)
    again = run(given)
    assert (again.out[1:], again.error) == (["Already stored: 5 threads, left unchanged."], "")
    with CaptureQueriesContext(connection) as queries:
        updated = run(given, update=True)
    assert updated.out[1:] == ["Already stored: 5 threads, all up to date."]
    assert not [query["sql"] for query in queries if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    assert [stored_line(line["id"]) for line in given] == given


def test_stored_thread_changes_only_with_update(api: Api, run: Callable[..., Output]) -> None:
    kept, changed, deleted = new_message("kept"), new_message("changed"), new_message("deleted here")
    line = new_line(kept, changed, deleted, metadata={"a": "1"})
    run([line])
    only_here = api.post(f"/threads/{line['id']}/messages", {"role": "user", "content": "only here"}).body
    api.delete(f"/threads/{line['id']}/messages/{deleted['id']}")
    before = stored_line(line["id"])
    new = [new_message("new 1"), new_message("new 2", role="assistant", run_id="run_9")]
    changed |= {"content": [part("other")], "role": "assistant", "metadata": {"x": "y"}, "run_id": "run_8",
                "assistant_id": "asst", "attachments": [{"file_id": "f", "tools": []}]}  # fmt: skip
    mark = uuid4().hex
    line |= {"messages": [new[0], kept, changed, deleted, new[1]], "metadata": {"b": mark}}
    assert run([line]).out[1:] == ["Already stored: 1 threads, left unchanged."]
    dry = run([line], dry_run=True)
    assert dry.out == [
        "Would import 0 threads with 0 messages.",
        "Already stored: 1 threads, 1 out of date (2 messages missing, 1 changed).",
        "Not restored: 1 messages that were deleted from this store.",
    ]
    assert stored_line(line["id"]) == before
    output = run([line], update=True)
    assert output.out[1:] == [
        "Already stored: 1 threads, 1 updated (2 messages added, 1 changed).",
        "Not restored: 1 messages that were deleted from this store.",
    ]
    after = stored_line(line["id"])
    assert after["metadata"] == {"b": mark}
    assert after["messages"] == [kept, changed, before["messages"][2], *new]
    assert after["messages"][2]["id"] == only_here["id"]
    listed = api.get("/threads", QUERY_STRING=f"metadata[b]={mark}").body["data"]
    assert [row["id"] for row in listed] == [line["id"]]
    assert run([line], update=True).out[1] == "Already stored: 1 threads, all up to date."


@pytest.mark.parametrize("is_purged", [False, True])
def test_deleted_thread_is_restored(api: Api, run: Callable[..., Output], is_purged: bool) -> None:
    line = new_line(new_message("1"), new_message("2"), metadata={"k": "v"})
    run([line])
    api.delete(f"/threads/{line['id']}")
    if is_purged:
        purge()
    output = run([line])
    assert (output.out[0].startswith("Imported 1 threads with 2 messages"), output.error) == (True, "")
    assert stored_line(line["id"]) == line
    purge()
    assert stored_line(line["id"]) == line


def test_next_import_completes_a_killed_one(run: Callable[..., Output]) -> None:
    line = new_line(new_message("1"), new_message("2"))
    at = datetime(2024, 2, 13, tzinfo=UTC)
    hidden = Thread(
        id=line["id"], object_id=uuid4().hex[:24], created_at=at, deleted_at=timezone.now() + timedelta(hours=1)
    )
    first = Message(id=line["messages"][0]["id"], object_id=uuid4().hex[:24], thread=hidden, position=1, role="user",
                    content=[], created_at=at)  # fmt: skip
    Thread.objects.bulk_create([hidden])
    Message.objects.bulk_create([first])
    assert run([line]).error == ""
    assert stored_line(line["id"]) == line


def test_running_purge_spares_a_restored_thread(run: Callable[..., Output]) -> None:
    line = new_line(*(new_message(str(i)) for i in range(3)))
    run([line])
    # Mark the thread as deleted at a future time, so that the purger in this process skips it.
    Thread.objects.filter(id=line["id"]).update(deleted_at=timezone.now() + timedelta(minutes=1))
    still_deleted = Thread.objects.filter(id=line["id"], deleted_at=Thread.objects.get(id=line["id"]).deleted_at)
    assert purging.remove_messages(Message.objects.filter(thread=line["id"], position=1), of=still_deleted) == 1
    assert run([line]).error == ""
    assert purging.remove_messages(Message.objects.filter(thread=line["id"]), of=still_deleted) == 0
    assert stored_line(line["id"]) == line


def test_threads_are_restored_during_their_purge(run: Callable[..., Output]) -> None:
    given = [new_line(*(new_message() for _ in range(120))) for _ in range(8)]
    run(given)
    for line in given:
        delete_thread(line["id"])
    running_purge = threading.Thread(target=purge_and_disconnect)
    running_purge.start()
    assert run(given).error == ""
    running_purge.join()
    assert [stored_line(line["id"]) for line in given] == given


def purge_and_disconnect() -> None:
    try:
        purge()
    finally:
        connections.close_all()


def test_concurrent_update_and_creates_lose_nothing(api: Api, run: Callable[..., Output]) -> None:
    line = new_line(new_message("0"))
    run([line])
    line["messages"] += [new_message(f"given {i}") for i in range(20)]

    def post() -> None:
        try:
            for i in range(20):
                api.post(f"/threads/{line['id']}/messages", {"role": "user", "content": f"posted {i}"})
        finally:
            connections.close_all()

    posting = threading.Thread(target=post)
    posting.start()
    output = run([line], update=True)
    posting.join()
    assert output.error == ""
    texts = texts_of(line["id"])
    assert [text for text in texts if text.startswith("given")] == [f"given {i}" for i in range(20)]
    assert [text for text in texts if text.startswith("posted")] == [f"posted {i}" for i in range(20)]
    assert len(texts) == 41


def test_repeated_thread_counts_as_already_stored(run: Callable[..., Output]) -> None:
    line = new_line(new_message("first"))
    output = run([line, {**line, "messages": [new_message("second")]}])
    assert output.out[0].startswith("Imported 1 threads with 1 messages")
    assert output.out[1:] == ["Already stored: 1 threads, left unchanged."]
    assert texts_of(line["id"]) == ["first"]


def test_dry_run_validates_everything_and_writes_nothing(run: Callable[..., Output]) -> None:
    good, bad = new_line(new_message(), new_message()), new_line(new_message(role="x"))
    output = run([good, bad], dry_run=True)
    assert output.out == ["Would import 1 threads with 2 messages."]
    assert output.err == [f"given-0:2: messages.0.role: {NOT_A_ROLE}"]
    assert not Thread.objects.filter(id=good["id"]).exists()


# Tenants


def test_tenant_option_overrides_the_tenant_of_the_line(run: Callable[..., Output], tenant: str) -> None:
    own, named = new_line(tenant=tenant), new_line(tenant="another")
    run([own])
    run([named], tenant=f"{tenant}-2")
    assert [Thread.objects.get(id=line["id"]).tenant for line in (own, named)] == [tenant, f"{tenant}-2"]
    output = run([own, named], tenant=tenant, update=True)
    assert output.err == [f"given-0:2: tenant: {named['id']} already exists for tenant '{tenant}-2'"]


def test_message_of_another_thread_is_an_error(run: Callable[..., Output]) -> None:
    taken = new_message("taken")
    first, second, third = new_line(taken), new_line(new_message(), taken), new_line(new_message("fine"))
    output = run([first, second, third])
    error = f"messages.1.id: {taken['id']} already exists in thread {first['id']}"
    assert output.err == [f"given-0:2: {error}"]
    assert output.out[0].startswith("Imported 2 threads with 2 messages")
    assert run([second]).err == [f"given-0:1: {error}"]
    assert not Thread.objects.filter(id=second["id"]).exists()
    # An import with `update` also refuses the message.
    third["messages"].append(taken)
    assert run([third], update=True).err == [f"given-0:1: {error}"]
    assert texts_of(third["id"]) == ["fine"]


@pytest.mark.engine("mongodb")
def test_thread_refused_by_the_database_does_not_stop_the_others(run: Callable[..., Output]) -> None:
    first, twin, other = new_line(new_message()), new_line(new_message()), new_line(new_message())
    twin["messages"][0]["_id"] = first["messages"][0]["_id"]
    output = run([first, twin, other])
    assert len(output.err) == 1
    assert output.err[0].startswith("given-0:2: rejected by the database: ")
    assert [stored_line(line["id"]) for line in (first, other)] == [first, other]
    assert not Thread.objects.filter(id=twin["id"], deleted_at=None).exists()


# Files from other programs


@pytest.fixture
def saved_file(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a saved file with new ids, because all tests share the tables."""
    key = uuid4().hex[:6]

    def saved_file(name: str) -> Path:
        text = (SAVED / name).read_text(encoding="utf-8")
        text = re.sub(r'"(thread|msg)_(?!id")', rf'"\1_{key}', text)
        path = tmp_path / name
        # The saved _ids begin with 65cb. Replace this prefix, because MongoDB requires unique _ids.
        path.write_text(text.replace("65cb", key[:4]), encoding="utf-8")
        return path

    return saved_file


def test_lists_of_openai_v1_become_threads(run: Callable[..., Output], saved_file: Callable[[str], Path]) -> None:
    threads = saved_file("openai-v1-threads.jsonl")
    output = run(saved_file("openai-v1-messages.json"), threads)
    assert (output.err, output.error) == ([], "")
    assert output.out[0].startswith("Imported 1 threads with 3 messages")
    assert output.out[1:] == ["Left out: 2 x annotations (first: openai-v1-messages.json:1 data.0.content.0)"]
    thread_id = json.loads(threads.read_text())["id"]
    line = stored_line(thread_id)
    assert (line["created_at"], line["metadata"], line["tenant"]) == (1699012949, {"user": "u-17"}, "default")
    first, second, third = line["messages"]
    assert first["content"] == [part("How did sales go?")]
    # The first two messages were created in the same second. The import reverses them, because lists are newest first.
    assert second["content"] == [part("And as a chart?")]
    assert second["attachments"] == [{"file_id": "file-cVbNm", "tools": []}, {"file_id": "file-xYz12", "tools": []}]
    assert (second["metadata"], second["assistant_id"], second["run_id"]) == ({"source": "web"}, None, None)
    assert third["content"] == [
        part("Sales went up in Q3【7†source】 and down in Q4【7†source】."),
        {"type": "image_file", "image_file": {"file_id": "file-cHaRt"}},
    ]
    assert (third["assistant_id"], third["run_id"]) == ("asst_v1QwErTy", "run_v1AsDfGh")


def test_lists_of_openai_v2_become_threads_and_report_omissions(
    run: Callable[..., Output], saved_file: Callable[[str], Path]
) -> None:
    thread = saved_file("openai-v2-thread.json")
    output = run(thread, saved_file("openai-v2-messages.json"))
    assert (output.err, output.error) == ([], "")
    assert output.out[0].startswith("Imported 1 threads with 4 messages")
    assert output.out[1:] == [
        "Left out: 1 x completed_at (first: openai-v2-messages.json:1 data.1)",
        "Left out: 1 x incomplete_at (first: openai-v2-messages.json:1 data.0)",
        "Left out: 1 x incomplete_details (first: openai-v2-messages.json:1 data.0)",
        "Left out: 1 x refusal (kept as text) (first: openai-v2-messages.json:1 data.1.content.0)",
        "Left out: 1 x status incomplete (the message is kept) (first: openai-v2-messages.json:1 data.0)",
        "Left out: 1 x tool_resources (first: openai-v2-thread.json:1)",
    ]
    line = stored_line(json.loads(thread.read_text())["id"])
    assert [message["content"][0] for message in line["messages"]] == [
        part("Hello"), part("What is on it?"), part("I cannot help with that."), part("Once upon a")
    ]  # fmt: skip
    second = line["messages"][1]
    assert second["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "https://example.org/a.png", "detail": "low"},
    }
    assert second["attachments"] == [{"file_id": "file-DaTa", "tools": [{"type": "code_interpreter"}]}]


def test_collections_of_rubra_become_threads_with_their_object_ids(
    run: Callable[..., Output], saved_file: Callable[[str], Path]
) -> None:
    threads = saved_file("rubra-threads.json")
    output = run(saved_file("rubra-messages-canonical.json"), threads, saved_file("rubra-messages-array.json"))
    assert (output.err, output.error) == ([], "")
    assert output.out[0].startswith("Imported 2 threads with 4 messages")
    assert output.out[1:] == []
    first, second = map(json.loads, threads.read_text().splitlines())
    line = stored_line(first["id"])
    assert (line["_id"], line["created_at"]) == (first["_id"]["$oid"], 1707856370)
    (question, answer) = line["messages"]
    assert (question["_id"][4:], question["created_at"]) == ("d1f2a1b2c3d4e5f60011", 1707856370)
    assert (question["assistant_id"], question["run_id"]) == (None, None)
    assert (answer["assistant_id"], answer["run_id"]) == ("asst_welcome", "run_51b3c8")
    # Both messages were created in the same second, so they keep the order of the file.
    assert texts_of(second["id"]) == ["Read this.", "And this."]
    assert stored_line(second["id"])["messages"][0]["attachments"] == [{"file_id": "file_77aa", "tools": []}]


def new_api_message(thread_id: str, text: str, created_at: int) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid4().hex}", "object": "thread.message", "thread_id": thread_id, "created_at": created_at,
        "role": "user", "content": [part(text)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "times", "expected"),
    [
        ("list", [9, 9, 9], "321"),  # messages with equal times: a list is newest first
        ("list", [8, 9, 9], "123"),
        ("list", [9, 9, 8], "321"),
        ("lines", [9, 9, 9], "123"),
        ("lines", [9, 9, 8], "321"),
    ],
)
def test_messages_of_one_second_keep_the_order_of_their_list(
    run: Callable[..., Output], layout: str, times: list[int], expected: str
) -> None:
    thread_id = f"thread_{uuid4().hex}"
    messages = [new_api_message(thread_id, str(i), at) for i, at in enumerate(times, start=1)]
    assert not run([{"object": "list", "data": messages}] if layout == "list" else messages).error
    assert "".join(texts_of(thread_id)) == expected


def test_thread_made_from_messages_keeps_its_metadata_on_update(
    run: Callable[..., Output],
) -> None:
    thread_id = f"thread_{uuid4().hex}"
    messages = [new_api_message(thread_id, "b", 1707856379), new_api_message(thread_id, "a", 1707856370)]
    output = run(messages)
    assert output.out[1:] == [f"Made from messages alone: 1 threads (first: {thread_id})."]
    line = stored_line(thread_id)
    assert (line["created_at"], line["metadata"], texts_of(thread_id)) == (1707856370, {}, ["a", "b"])
    threads.change_metadata("default", thread_id, {"k": "v"})
    assert run([*messages, new_api_message(thread_id, "c", 1707856380)], update=True).out[1] == (
        "Already stored: 1 threads, 1 updated (1 messages added, 0 changed)."
    )
    assert (stored_line(thread_id)["metadata"], texts_of(thread_id)) == ({"k": "v"}, ["a", "b", "c"])


def test_thread_without_messages_is_imported(run: Callable[..., Output]) -> None:
    thread_id = f"thread_{uuid4().hex}"
    output = run([{"object": "thread", "id": thread_id, "created_at": 5, "metadata": {"k": "v"}, "tool_resources": {}}])
    assert output.out[0].startswith("Imported 1 threads with 0 messages")
    assert output.out[1:] == []
    line = stored_line(thread_id)
    assert (line["messages"], line["metadata"], line["created_at"]) == ([], {"k": "v"}, 5)


def test_repeated_object_counts_once_unless_it_differs(run: Callable[..., Output]) -> None:
    first, second = f"thread_{uuid4().hex}", f"thread_{uuid4().hex}"
    once, twice = new_api_message(first, "1", 5), new_api_message(first, "2", 6)
    other = new_api_message(second, "1", 5)
    output = run([once, twice, other], [twice, {**other, "role": "assistant"}, {"object": "assistant", "id": "asst_1"}])
    assert output.err == ["given-1:2: id: given-0:3 has the same id but different values"]
    assert "Left out: 1 x repeated object (first: given-1:1)" in output.out
    assert "Left out: 1 x object of type assistant (first: given-1:3)" in output.out
    assert texts_of(first) == ["1", "2"]
    assert not Thread.objects.filter(id=second).exists()


@pytest.mark.stateless
def test_error_in_a_list_is_reported_with_its_position(run: Callable[..., Output]) -> None:
    good, bad = new_api_message("thread_x", "a", 5), {**new_api_message("thread_x", "a", 5), "role": "system", "x": 1}
    output = run([{"object": "thread", "id": "thread_x", "created_at": 5}], [{"object": "list", "data": [good, bad]}])
    assert output.err == [f"given-1:1: data.1.role: {NOT_A_ROLE}"]
    assert run([{**good, "thread_id": 5}]).err == ["given-0:1: thread_id: str type expected"]


def test_unknown_keys_are_counted_by_name(run: Callable[..., Output]) -> None:
    line = new_line(
        new_message(status="in_progress", mood="good"), new_message(mood=[None, 1]), mood={"a": [0]}, empty={"a": [""]}
    )
    output = run([line])
    assert output.error == ""
    assert output.out[1:] == [
        "Left out: 3 x mood (first: given-0:1)",
        "Left out: 1 x status in_progress (the message is kept) (first: given-0:1 messages.0)",
    ]


# Input files


def test_many_threads_are_imported_in_batches(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Output], tenant: str
) -> None:
    given = [new_line(*(new_message(str(i)) for i in range(3)), created_at=n) for n in range(100)]
    with CaptureQueriesContext(connection) as queries:
        assert not run(gzip.compress("".join(json.dumps(line) + "\n" for line in given).encode()), tenant=tenant).error
    assert len(queries) < 30
    written = [json.loads(line) for line in "".join(export_lines(threads_oldest_first(tenant))).splitlines()]
    assert written == [{**line, "tenant": tenant} for line in given]


def test_missing_file_is_reported_before_anything_is_imported(run: Callable[..., Output], tmp_path: Path) -> None:
    line = new_line()
    assert run([line], tmp_path / "nowhere").error == f"cannot read {tmp_path}/nowhere: No such file or directory"
    assert run([line], tmp_path).error == f"cannot read {tmp_path}: Is a directory"
    assert not Thread.objects.filter(id=line["id"]).exists()


@pytest.mark.once
@pytest.mark.process
def test_standard_input_is_imported_and_an_error_sets_the_status(tmp_path: Path) -> None:
    migrate(tmp_path / "data")
    given = json.dumps(new_line(new_message())) + "\n" + json.dumps({"object": "thread", "messages": []})
    result = subprocess.run(
        [sys.executable, "manage.py", "import_threads"], input=given, cwd=ROOT,
        env=environment(tmp_path / "data"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stdout[:34]) == (1, "Imported 1 threads with 1 messages")
    assert result.stderr.splitlines() == [
        "stdin:2: created_at: field required; id: field required",
        "CommandError: 1 not imported because of the errors above",
    ]


@pytest.mark.process
@pytest.mark.engine("sqlite", "postgresql")
def test_missing_tables_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "given").write_text(json.dumps(new_line()))
    result = manage(tmp_path / "empty", "import_threads", str(tmp_path / "given"))
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert result.stderr.startswith("CommandError: stopped: ")


# Examples in docs/moving.md


MOVING = (ROOT / "docs/moving.md").read_text(encoding="utf-8")


def test_documented_line_is_the_same_after_import_and_export(run: Callable[..., Output]) -> None:
    shown = MOVING.partition("```json\n")[2].partition("\n```")[0]
    assert run(shown).error == ""
    assert "".join(export_lines([Thread.objects.get(id=json.loads(shown)["id"])])) == shown + "\n"


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
def test_documented_program_saves_threads_without_loss(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_id = served.call(
        "POST", "/threads", {"messages": [{"role": "user", "content": text} for text in ("1", "2", "3")]},
        Content_Type="application/json",
    ).body["id"]  # fmt: skip
    code = MOVING.partition("```python\n")[2].partition("\n```")[0]
    local_client = f'OpenAI(base_url="http://127.0.0.1:{served.port}/v1", api_key="any")'
    assert "client = OpenAI()" in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"thread_ids": [thread_id]}
    exec(code.replace("OpenAI()", local_client), names)
    names["client"].close()
    result = manage(served.directory, "import_threads", str(tmp_path / "saved.jsonl"), "--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "Would import 0 threads with 0 messages.",
        "Already stored: 1 threads, all up to date.",
    ]


@pytest.mark.parametrize("where", ["unknown key", "status", "Rubra's _id"])
def test_too_deep_value_is_an_error_of_its_thread_alone(run: Callable[..., Output], where: str) -> None:
    deep: Any = []
    for _ in range(700):
        deep = [deep]
    bad = {
        "unknown key": new_line(more=deep),
        "status": new_line(new_message(status=deep)),
        "Rubra's _id": {"_id": {"$oid": "6" * 24}, "id": "thread_deep", "object": "thread", "more": deep},
    }[where]
    good = new_line(new_message())
    output = run([bad, good])
    assert output.out[0].startswith("Imported 1 threads with 1 messages in ")
    assert [line.startswith("given-0:1") for line in output.err] == [True]
    assert output.error == "1 not imported because of the errors above"
    assert texts_of(good["id"]) == ["Hi"]


@pytest.mark.engine("mongodb")
def test_thread_refused_by_the_database_is_not_stored(run: Callable[..., Output]) -> None:
    first, second = new_line(), new_line()
    second["_id"] = first["_id"]
    output = run([first, second])
    assert output.out[0].startswith("Imported 1 threads with 0 messages in ")
    assert len(output.err) == 1
    stored = Thread.objects.filter(id__in=[first["id"], second["id"]], deleted_at=None)
    assert list(stored.values_list("id", flat=True)) == [first["id"]]


def test_thread_of_a_concurrent_import_counts_as_already_stored(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Output]
) -> None:
    line, other = new_line(new_message()), new_line()
    other_import = run

    def store_first(*arguments: Any, **named: Any) -> int:
        monkeypatch.undo()
        assert not other_import([line]).error
        return imports.store(*arguments, **named)

    monkeypatch.setattr(imports, "store", store_first)
    output = run([line, other])
    assert (output.err, output.error) == ([], "")
    assert output.out[0].startswith("Imported 1 threads with 0 messages in ")
    assert output.out[1] == "Already stored: 1 threads, left unchanged."


@pytest.mark.stateless
def test_import_reads_every_content_field_of_a_message() -> None:
    assert set(Message.CONTENT_FIELDS) <= MESSAGE_FIELDS.keys()
