"""MongoDB: the stored documents, read with pymongo, and the djongo bugs that threadsvc/engines/mongodb fixes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from bson import ObjectId
from django.contrib.auth.models import User
from django.db import DataError, IntegrityError, NotSupportedError, connections, transaction
from django.db.models import Count, Exists, F, OuterRef, Value
from django.db.models.functions import Lower
from django.test import Client
from django.utils import timezone
from pymongo.errors import InvalidOperation

from messages_app.models import Message, Thread
from tests.conftest import ROOT, WITH_TEST_PACKAGES, Api, environment
from tests.rows import append, new_message, new_thread

pytestmark = pytest.mark.engine("mongodb")


def collection(name: str) -> Any:
    """Return a pymongo collection of the test database. Its queries bypass the engine."""
    return connections["threads"].get_new_connection(connections["threads"].get_connection_params())[
        f"messages_app_{name}"
    ]


def created_thread(api: Api, **body: Any) -> str:
    answer = api.post("/threads", body)
    assert answer.status == 200
    thread_id: str = answer.body["id"]
    return thread_id


def run_python(
    tmp_path: Path, code: str, url: str, *flags: str, arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, in which Django is set up for this database."""
    setup = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'threadsvc.settings'; django.setup()\n"
    settings = {"THREADS_DATABASE_URL": url, "THREADSVC_ALLOWED_HOSTS": "testserver", **WITH_TEST_PACKAGES}
    command = [sys.executable, *flags, "-c", setup + code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path / "process", **settings), capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def url() -> str:
    """The URL of the database that this process's tests use."""
    settings = connections["threads"].settings_dict
    host: str = settings["CLIENT"]["host"]
    return f"{host.rpartition('/')[0]}/{settings['NAME']}"


@pytest.fixture(scope="session")
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("searcher"))
    return client


# Documents


def test_documents_are_bson_and_the_api_shows_their_object_id(api: Api) -> None:
    thread = api.post("/threads", {"metadata": {"topic": "ai", "a.b": "c"}}).body
    created = {"role": "user", "content": "Hello", "file_ids": ["file-1"], "metadata": {"k": "v"}}
    message = api.post(f"/threads/{thread['id']}/messages", created).body

    stored = collection("thread").find_one({"id": thread["id"]})
    # pymongo returns a UTC time without a time zone, and `timestamp()` reads it as local time. The result can therefore
    # be wrong by the machine's offset from UTC, which is less than a day.
    assert stored.pop("created_at").timestamp() - thread["created_at"] == pytest.approx(0, abs=24 * 3600)
    assert stored == {
        "_id": ObjectId(thread["_id"]),
        "id": thread["id"],
        "tenant": "default",
        "metadata": [{"k": "topic", "v": "ai"}, {"k": "a.b", "v": "c"}],
        "deleted_at": None,
    }
    stored = collection("message").find_one({"_id": ObjectId(message["_id"])})
    del stored["created_at"]
    assert stored == {
        "_id": ObjectId(message["_id"]),
        "id": message["id"],
        "thread_id": thread["id"],
        "position": 1,
        "role": "user",
        "content": [{"type": "text", "text": {"value": "Hello", "annotations": []}}],
        "attachments": [{"file_id": "file-1", "tools": []}],
        "assistant_id": "",
        "run_id": None,
        "metadata": [{"k": "k", "v": "v"}],
        "deleted_at": None,
    }


def test_server_has_every_index() -> None:
    found = {
        name: {
            index: (dict(information["key"]), information.get("unique", False))
            for index, information in collection(name).index_information().items()
            if index != "_id_"
        }
        for name in ("thread", "message", "idempotencyrecord")
    }
    assert found == {
        "thread": {
            "__primary_key__": ({"id": 1}, True),
            "thread_list": ({"tenant": 1, "created_at": 1, "id": 1}, False),
            "thread_deleted": ({"deleted_at": 1}, False),
            "thread_by_time": ({"created_at": 1, "id": 1}, False),
            "thread_by_metadata": ({"tenant": 1, "metadata": 1, "created_at": 1, "id": 1}, False),
        },
        "message": {
            "__primary_key__": ({"id": 1}, True),
            "message_position": ({"thread_id": 1, "position": 1}, True),  # unique, and also used by lists
            "message_run": ({"thread_id": 1, "run_id": 1, "position": 1}, False),
            "message_deleted": ({"deleted_at": 1, "id": 1}, False),
            "message_by_time": ({"created_at": 1, "id": 1}, False),
            "message_by_run": ({"run_id": 1, "created_at": 1, "id": 1}, False),
        },
        "idempotencyrecord": {
            "__primary_key__": ({"digest": 1}, True),
            "idempotency_thread": ({"thread_id": 1}, False),
            "idempotency_message": ({"message_id": 1}, False),
            "idempotency_expires": ({"created_at": 1}, False),
        },
    }


KEYS = [
    "",
    ".",
    "a.b",
    "a.",
    ".b",
    "$",
    "$where",
    "$a.$b",
    "0",
    "_id",
    "k",
    "v",
    'quote"',
    "back\\slash",
    "ключ",
    "\u2028",
]


@pytest.mark.parametrize("key", KEYS)
def test_any_metadata_key_is_stored_returned_and_filtered(api: Api, key: str) -> None:
    value = f"value of {key}"
    thread = created_thread(api, metadata={key: value, "other": "1"})
    assert api.get(f"/threads/{thread}").body["metadata"] == {key: value, "other": "1"}

    def listed(key: str, value: str) -> list[str]:
        pairs = f"metadata[{quote(key)}]={quote(value)}&metadata[other]=1"
        return [row["id"] for row in api.get(f"/threads?{pairs}").body["data"]]

    assert listed(key, value) == [thread]
    assert listed(f"{key}x", value) == listed(key, value[:-1]) == []
    assert list(Thread.objects.filter(id=thread, metadata__contains={key: value})) == [Thread(id=thread)]

    assert api.post(f"/threads/{thread}", {"metadata": {key: "new"}}).body["metadata"] == {key: "new", "other": "1"}
    assert listed(key, value) == []
    assert listed(key, "new") == [thread]
    assert api.post(f"/threads/{thread}", {"metadata": {key: None}}).body["metadata"] == {"other": "1"}
    assert listed(key, "new") == []


@pytest.mark.parametrize(
    "text", ["$where", "$ne", '{"$gt": ""}', "a.b*(", ".*", "^", "[", "(?i)x", "\\", "\\Q", "%", "_%"]
)
def test_text_is_never_an_operator_or_a_pattern(api: Api, admin: Client, text: str) -> None:
    thread = created_thread(api, metadata={"k": text})
    other = created_thread(api, metadata={"k": f"{text} or not"})
    body = {"role": "user", "content": f"say {text} once", "metadata": {"k": text}}
    message = api.post(f"/threads/{thread}/messages", body).body
    api.post(f"/threads/{other}/messages", {"role": "user", "content": "something else"})

    quoted = quote(text, safe="")
    assert [row["id"] for row in api.get(f"/threads?metadata[k]={quoted}").body["data"]] == [thread]
    assert api.get(f"/threads/{thread}/messages?run_id={quoted}").body["data"] == []
    assert api.get(f"/threads/{quoted}").status == 404
    assert api.get(f"/threads/{thread}/messages/{quoted}").status == 404
    assert api.get(f"/threads/{thread}/messages?after={quoted}").status == 422
    found = Message.objects.filter(thread__in=[thread, other], content__text__value__icontains=text.upper())
    assert [row.id for row in found] == [message["id"]]
    # A search splits its text at spaces and matches each word literally.
    page = admin.get("/admin/messages_app/message/", {"q": text}).content.decode()
    assert message["id"] in page
    assert "something else" not in page


def test_message_too_large_for_a_document_is_a_413(api: Api, thread_id: str, settings: Any) -> None:
    settings.MAX_BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024
    body = {"role": "user", "content": "x", "file_ids": ["f" * 17_000_000]}
    answer = api.post(f"/threads/{thread_id}/messages", body)
    assert (answer.status, answer.body) == (413, {"detail": "Request body too large"})
    assert api.get(f"/threads/{thread_id}/messages").body["data"] == []


# Bugs in djongo


def test_condition_next_to_a_range_is_kept(api: Api, thread_id: str) -> None:
    for position in range(4):
        append(thread_id, role=["user", "assistant"][position % 2], content=[])
    found = Message.objects.filter(thread=thread_id, position__range=(2, 4), role="user").values_list(
        "position", flat=True
    )
    assert list(found) == [3]


def test_duplicate_key_is_an_integrity_error_and_harms_nothing_else(thread_id: str) -> None:
    for several in (False, True):
        again = [Thread(id=thread_id, object_id="0" * 24, created_at=timezone.now())]
        with pytest.raises(IntegrityError), transaction.atomic(using="threads"), transaction.atomic(using="threads"):
            Thread.objects.bulk_create([new_thread(), *again] if several else again)
    assert Thread.objects.filter(id=thread_id).exists()
    message = append(thread_id, role="user", content=[])
    with pytest.raises(IntegrityError):
        new_message(thread_id=thread_id, position=message.position, role="user", content=[]).save(force_insert=True)


def test_thousand_rows_are_inserted_by_one_statement(thread_id: str) -> None:
    rows = [new_message(thread_id=thread_id, position=n, role="user", content=[]) for n in range(1, 1001)]
    Message.objects.bulk_create(rows)
    assert Message.objects.filter(thread=thread_id).count() == 1000
    ids = [row.id for row in rows[:900]]
    assert Message.objects.filter(id__in=ids).update(role="assistant") == 900
    assert Message.objects.filter(thread=thread_id, role="user").delete()[0] == 100


def test_updates_and_deletes_count_matched_rows(thread_id: str) -> None:
    # The tenant is already "default". Like SQL, the engine counts the row because the filter matches it.
    assert Thread.objects.filter(id=thread_id).update(tenant="default") == 1
    assert Thread.objects.filter(id="none").update(tenant="x") == 0
    assert Thread.objects.get(id=thread_id).delete() == (1, {"messages_app.Thread": 1})


def execute(sql: str) -> None:
    connections["threads"].cursor().execute(sql)


NOT_SUPPORTED: dict[str, Callable[[], Any]] = {
    "join": lambda: list(Message.objects.filter(thread__tenant="x")),
    "select_related": lambda: list(Message.objects.select_related("thread")),
    "distinct": lambda: list(Thread.objects.values("tenant").distinct()),
    "group by two columns": lambda: list(Message.objects.order_by().values("thread", "role").annotate(n=Count("id"))),
    "ordered groups": lambda: list(Message.objects.order_by("role").values("role").annotate(n=Count("id"))),
    "having": lambda: list(Message.objects.order_by().values("role").annotate(n=Count("id")).filter(n__gt=1)),
    "group by parts of documents": lambda: execute('SELECT "t"."a", "t"."b", COUNT(*) FROM "t" GROUP BY 1'),
    "group without an aggregate": lambda: execute('SELECT "t"."a" FROM "t" GROUP BY "t"."a"'),
    "group by an aggregate": lambda: execute('SELECT COUNT(*) FROM "t" GROUP BY 1'),
    "exists": lambda: list(Thread.objects.filter(Exists(Message.objects.filter(thread=OuterRef("pk"))))),
    "in with an outer reference": lambda: list(
        Thread.objects.filter(id__in=Message.objects.filter(thread=OuterRef("pk")).values("thread"))
    ),
    "comparison of columns": lambda: list(Message.objects.filter(created_at=F("deleted_at"))),
    "update with F": lambda: Message.objects.update(position=F("position") + 1),
    "bulk_update": lambda: Thread.objects.bulk_update([Thread(id="x")], ["tenant"]),
    "function": lambda: list(Thread.objects.filter(created_at__date="2026-01-01")),
    "annotation": lambda: list(Thread.objects.annotate(lower=Lower("tenant"))),
    "dates": lambda: list(Thread.objects.dates("created_at", "day")),
    "random order": lambda: list(Thread.objects.order_by("?")),
    "nulls last": lambda: list(Thread.objects.order_by(F("deleted_at").asc(nulls_last=True))),
    "order by documents": lambda: list(Thread.objects.order_by("metadata")),
    "order by parts of documents": lambda: list(Message.objects.order_by("content__text")),
    "comparison of documents": lambda: list(Thread.objects.filter(metadata__topic__gt="a")),
    "text search in documents": lambda: list(Message.objects.filter(content__icontains="a")),
    "contains on documents": lambda: list(Message.objects.filter(content__contains=[{"type": "text"}])),
    "has_key": lambda: list(Thread.objects.filter(metadata__has_key="a")),
    "path with an operator": lambda: list(Message.objects.filter(**{"content__$where": "a"})),
    "regular expression": lambda: list(Thread.objects.filter(id__regex="^a")),
    "iregex": lambda: list(Thread.objects.filter(id__iregex="^a")),
    "part of an _id": lambda: list(Thread.objects.filter(object_id__contains="a")),
    "comparison of an _id with a text": lambda: list(Thread.objects.filter(object_id__gt="a")),
    "ignore_conflicts": lambda: Thread.objects.bulk_create([new_thread()], ignore_conflicts=True),
    "update_conflicts": lambda: Thread.objects.bulk_create(
        [new_thread()], update_conflicts=True, update_fields=["tenant"], unique_fields=["id"]
    ),
    "union": lambda: list(Thread.objects.filter(id="a").union(Thread.objects.filter(id="b"))),
    "extra": lambda: list(Thread.objects.extra(where=["1 = 1"])),
    "expression in update": lambda: Thread.objects.filter(id="x").update(tenant=Lower(Value("X"))),
    "raw SQL": lambda: execute("SELECT * FROM messages_app_thread"),
    "slice of an aggregate": lambda: execute('SELECT COUNT(*) FROM "t" LIMIT 1'),
    "rows and aggregates": lambda: execute('SELECT "t"."id", COUNT(*) FROM "t"'),
    "two statements": lambda: execute('DELETE FROM "x"; DELETE FROM "y"'),
    "explain": lambda: Thread.objects.all().explain(),
}


@pytest.mark.parametrize("query", NOT_SUPPORTED.values(), ids=NOT_SUPPORTED)
def test_unsupported_query_is_refused(query: Callable[[], Any]) -> None:
    with pytest.raises(NotSupportedError):
        query()


def test_object_id_cannot_be_changed(thread_id: str) -> None:
    with pytest.raises(NotSupportedError):
        Thread.objects.filter(id=thread_id).update(object_id="0" * 24)
    # `save` writes all fields. It is permitted, because the object id keeps its value.
    Thread.objects.get(id=thread_id).save()


@pytest.mark.parametrize("key", ["a.b", "$where", "", "a\0"])
def test_document_with_an_unsafe_key_is_stored_as_text(thread_id: str, key: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": "é", key: [{key: 1}]}}]
    message = append(thread_id, role="user", content=content)
    stored = collection("message").find_one({"id": message.id})
    assert stored["content"] == json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    assert Message.objects.get(id=message.id, content=content).content == content


def test_number_too_large_for_bson_is_a_data_error(thread_id: str) -> None:
    with pytest.raises(DataError):
        append(thread_id, role="user", content=[2**64])


# Writes, connections and migrations


@pytest.mark.process
def test_every_write_requests_majority_and_journal(tmp_path: Path, url: str) -> None:
    code = """
import json
from pymongo import monitoring
sent = {}
class Listener(monitoring.CommandListener):
    def started(self, event):
        concern = event.command.get("writeConcern")
        sent.setdefault(event.command_name, set()).add(json.dumps(concern, sort_keys=True))
    def succeeded(self, event): pass
    def failed(self, event): pass
monitoring.register(Listener())
from tests.conftest import Api
from messages_app.models import ThreadPair
from messages_app.store import deletion as purging
api = Api()
thread = api.post("/threads", {"messages": [{"role": "user", "content": "Hi"}], "metadata": {"a": "b"}}).body["id"]
message = api.post(f"/threads/{thread}/messages", {"role": "user", "content": "Hi"}).body["id"]
api.post(f"/threads/{thread}/messages/{message}", {"metadata": {"a": "b"}})
api.delete(f"/threads/{thread}/messages/{message}")
api.delete(f"/threads/{thread}")
purging.purge()
print(json.dumps({name: sorted(concerns) for name, concerns in sent.items()}))
"""
    result = run_python(tmp_path, code, url)
    assert not result.returncode, result.stderr
    sent: dict[str, list[str]] = json.loads(result.stdout.splitlines()[-1])
    expected = ['{"j": true, "w": "majority", "wtimeout": 10000}']
    assert {name: sent.pop(name) for name in ("insert", "update", "delete")} == dict.fromkeys(
        ("insert", "update", "delete"), expected
    )
    assert sent.keys() <= {"hello", "find", "aggregate", "endSessions", "getMore"}


@pytest.mark.process
def test_fork_has_its_own_connections_and_all_are_closed_at_exit(tmp_path: Path, url: str) -> None:
    code = """
import threading
from messages_app.models import Thread
from threadsvc.engines.mongodb import base
Thread.objects.exists()
(parent,) = base._clients.values()
if os.fork() == 0:
    Thread.objects.exists()
    (child,) = [client for (pid, _), client in base._clients.items() if pid == os.getpid()]
    raise SystemExit(0 if child is not parent else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
threads = [threading.Thread(target=lambda: [Thread.objects.exists() for _ in range(20)]) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert list(base._clients.values()) == [parent]
"""
    result = run_python(tmp_path, code, url, "-W", "error")
    assert (result.returncode, result.stderr) == (0, "")


def test_closed_connections_are_reopened(api: Api, thread_id: str) -> None:
    # Only djongo's connections have `client_connection`, so Django's type for connections does not know it.
    client: Any = connections["threads"].client_connection  # type: ignore[attr-defined]
    connections["threads"].close_pool()  # type: ignore[attr-defined]  # defined by the engine
    with pytest.raises(InvalidOperation):
        client.admin.command("ping")
    assert api.get(f"/threads/{thread_id}").status == 200


@pytest.mark.process
def test_interrupted_migration_can_be_repeated(tmp_path: Path, url: str) -> None:
    code = """
import pymongo
from django.core.management import call_command
from django.db import connections
database = connections["threads"].get_new_connection(connections["threads"].get_connection_params())
real, calls = pymongo.collection.Collection.create_index, []
def create_index(*args, **kwargs):
    calls.append(args)
    if len(calls) == broken: raise KeyboardInterrupt
    return real(*args, **kwargs)
pymongo.collection.Collection.create_index = create_index
for broken in range(1, 12, 2):
    calls.clear()
    try:
        call_command("migrate", database="threads", verbosity=0)
    except KeyboardInterrupt:
        pass
broken = 0
call_command("migrate", database="threads", verbosity=0)
print(sorted(sum((list(database[f"messages_app_{name}"].index_information()) for name in ("thread", "message")), [])))
database.client.drop_database(database.name)
"""
    result = run_python(tmp_path, code, f"{url}_broken")
    assert not result.returncode, result.stderr
    expected = sorted([*collection("thread").index_information(), *collection("message").index_information()])
    assert result.stdout.strip() == str(expected)
