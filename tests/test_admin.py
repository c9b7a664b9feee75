"""The admin: permissions, transcripts, export and delete."""

import json
import re
from html import unescape
from itertools import chain
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from messages_app.store import deletion as purging
from tests.admin_pages import MESSAGES, THREADS, client_of, page, store_thread
from tests.conftest import Api, connection, manage
from tests.rows import append, delete_message, delete_thread, new_message, new_thread, store_rows


@pytest.fixture(scope="module")
def thread() -> Thread:
    """A thread with markup in its texts. One message has a run, one has the role of a tool, and one has files."""
    thread = new_thread(metadata={"topic": "otters", "<b>": "x=y & z", "items": "<i>value</i>"})
    texts: list[tuple[str, str, dict[str, Any]]] = [
        (
            "user",
            "Do otters <b>hold hands</b>?\n<script>alert(1)</script>",
            {"metadata": {"mood": "curious", "items": "<i>x</i>"}},
        ),
        ("assistant", "They do: ça s'appelle un radeau 🦦.", {"assistant_id": "asst_7<u>", "run_id": "run 7&<i>"}),
        ("tool_call", "look_up('otters')", {}),
        ("user", "See these", {"attachments": [{"file_id": "file-<u>", "tools": [{"type": "file_search"}]}]}),
    ]
    messages = [
        new_message(thread=thread, position=number, role=role, content=[text_part(text)], **more)
        for number, (role, text, more) in enumerate(texts, start=1)
    ]
    store_rows([thread], messages)
    return thread


def texts_of(html: str) -> list[str]:
    """Return the texts of a transcript's messages."""
    return [unescape(text) for text in re.findall(r'<div class="text">(.*?)</div>', html, re.DOTALL)]


# Permissions


def test_admin_requires_a_login() -> None:
    answer = Client().get(THREADS)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={THREADS}")
    assert Client().get("/admin")["Location"] == "/admin/"
    login = Client().get("/admin/login/")
    assert "script-src 'self';" in login["Content-Security-Policy"]
    assert login["x-request-id"]


def test_login_form_requires_its_csrf_token(admin: Client) -> None:
    client = Client(enforce_csrf_checks=True)
    form = {"username": "root", "password": "a long password", "next": "/admin/"}
    assert client.post("/admin/login/", form).status_code == 403
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page(client, "/admin/login/"))
    assert token
    answer = client.post("/admin/login/", {**form, "csrfmiddlewaretoken": token[1]})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_viewers_group_can_read_and_nothing_else(thread: Thread) -> None:
    user = User.objects.create_user("viewer", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get(name="Conversation viewers"))
    client, message = client_of(user), thread.messages.get(position=1)
    for path in (THREADS, MESSAGES, f"{THREADS}{thread.id}/change/", f"{MESSAGES}{message.id}/change/"):
        html = page(client, path)
        assert "/delete/" not in html
        assert "delete_selected" not in html
    assert client.get(f"{MESSAGES}{message.id}/json/").status_code == 200
    assert client.get(f"{THREADS}{thread.id}/export/").status_code == 200
    for row in (f"{THREADS}{thread.id}", f"{MESSAGES}{message.id}"):
        assert client.post(f"{row}/delete/", {"post": "yes"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": thread.id, "post": "yes"}
    client.post(THREADS, action)
    assert Thread.objects.get(id=thread.id).deleted_at is None


@pytest.mark.engine("sqlite")
@pytest.mark.process
def test_migrate_keeps_changes_to_the_viewers_group(tmp_path: Any) -> None:
    code = (
        "from django.contrib.auth.models import Group; "
        "[group] = Group.objects.all(); print(group.name, group.permissions.count()); group.permissions.clear()"
    )
    for permissions in (2, 0):
        assert manage(tmp_path, "migrate", "-v0").returncode == 0
        assert manage(tmp_path, "shell", "-v0", "-c", code).stdout == f"Conversation viewers {permissions}\n"


def test_staff_see_only_what_their_permissions_allow(thread: Thread) -> None:
    user = User.objects.create_user("reader", password="a long password", is_staff=True)
    message = thread.messages.get(position=2)
    client = client_of(user)
    every_page = [
        THREADS,
        f"{THREADS}{thread.id}/change/",
        f"{THREADS}{thread.id}/export/",
        MESSAGES,
        f"{MESSAGES}{message.id}/change/",
        f"{MESSAGES}{message.id}/json/",
    ]
    assert {client.get(path).status_code for path in every_page} == {403}
    user.user_permissions.add(Permission.objects.get(codename="view_thread"))
    assert [client.get(path).status_code for path in every_page] == [200, 200, 403, 403, 403, 403]
    shown = page(client, THREADS, q=thread.id) + page(client, f"{THREADS}{thread.id}/change/")
    # "otters" is also in the thread's metadata. The two other texts are only in messages, which this user cannot view.
    assert "otters" in shown
    assert "hold hands" not in shown
    assert "radeau" not in shown
    searched = page(client, THREADS, q="radeau")
    assert "you do not have permission to search messages" in searched
    assert thread.id not in searched
    user.user_permissions.add(Permission.objects.get(codename="delete_thread"))
    # To delete a thread, a user also needs the permission delete_message.
    assert client.post(f"{THREADS}{thread.id}/delete/", {"post": "yes"}).status_code == 403
    user.user_permissions.set([Permission.objects.get(codename="view_message")])
    assert [client_of(user).get(path).status_code for path in every_page] == [403, 403, 403, 200, 200, 200]
    user.user_permissions.set(Permission.objects.filter(codename__in=["change_thread", "change_message"]))
    assert {client_of(user).get(path).status_code for path in every_page} == {403}
    user.user_permissions.set([Permission.objects.get(codename="delete_message")])
    confirmation = client_of(user).get(f"{MESSAGES}{message.id}/delete/")
    assert confirmation.status_code == 200
    assert "radeau" not in confirmation.content.decode()


# Pages


def test_page_of_a_thread_is_a_transcript(admin: Client, thread: Thread) -> None:
    html = page(admin, f"{THREADS}{thread.id}/change/")
    assert texts_of(html) == [message.text for message in thread.messages.order_by("position")]
    assert "<script>alert" not in html
    assert "<b>hold" not in html
    shown = unescape(html)
    assert "file-<u>" in shown
    assert "file-<u>" not in html
    assert "<i>" not in html
    assert "<u>" not in html
    assert "w" * 512 in page(admin, f"{THREADS}{store_thread(0, metadata={'long': 'w' * 512}).id}/change/")
    for words in (
        "asst_7<u>",
        "<i>x</i>",
        "<i>value</i>",
        "run 7&<i>",
        "file_search",
        "mood",
        "curious",
        "tool_call",
        "x=y & z",
        thread.object_id,
    ):
        assert words in shown
    for message in thread.messages.all():
        assert f"{MESSAGES}{message.id.replace('_', '_5F')}/change/" in html
        assert f"{MESSAGES}{message.id.replace('_', '_5F')}/json/" in html


def test_transcript_links_to_message_run_and_metadata(admin: Client, thread: Thread) -> None:
    message = thread.messages.get(position=2)
    transcript = page(admin, f"{THREADS}{thread.id}/change/")
    (open_url,) = re.findall(rf'href="({MESSAGES}{message.id.replace("_", "_5F")}/change/)"', transcript)
    (run_url,) = re.findall(r'href="([^"]+run_id=[^"]+)"', transcript)
    (pair_url,) = re.findall(r'href="([^"]+metadata=%3Cb%3E[^"]+)"', transcript)
    alone = page(admin, open_url)
    assert texts_of(alone) == [message.text]
    (back,) = re.findall(rf'href="({THREADS}[^"]+at=2#{message.id})"', alone)
    assert texts_of(page(admin, unescape(back))) == texts_of(transcript)
    assert message.id in page(admin, unescape(run_url))
    assert thread.id in page(admin, unescape(pair_url))


def test_json_of_a_message_equals_the_api(admin: Client, api: Api, thread: Thread) -> None:
    message = thread.messages.get(position=4)
    path = f"/threads/{thread.id}/messages/{message.id}"
    assert admin.get(f"{MESSAGES}{message.id}/json/").json() == api.get(path).body
    v2 = api.get(path, HTTP_OPENAI_BETA="assistants=v2").body
    assert admin.get(f"{MESSAGES}{message.id}/json/?shape=v2").json() == v2


def test_each_message_of_a_long_thread_is_on_one_page(admin: Client) -> None:
    thread = store_thread(123)
    for position in (1, 60, 123):
        delete_message(thread.messages.get(position=position).id)
    expected = [f"number {i}." for i in range(1, 124) if i not in (1, 60, 123)]
    path = f"{THREADS}{thread.id}/change/"

    def walk(start: str, link: str) -> list[list[str]]:
        pages: list[list[str]] = []
        query: str | None = start
        while query is not None:
            html = page(admin, f"{path}{query}")
            pages.append(texts_of(html))
            (navigation, again) = re.findall(r'<nav class="pages".*?</nav>', html, re.DOTALL)
            assert navigation == again
            found = re.findall(rf'<a href="([^"]+)">{link}</a>', navigation)
            query = unescape(found[0]) if found else None
        return pages

    forwards = walk("", "Later")
    assert [len(each) for each in forwards] == [50, 50, 20]
    assert list(chain(*forwards)) == expected
    (last,) = re.findall(r'<a href="([^"]+)">Last</a>', page(admin, path))[:1]
    backwards = walk(unescape(last), "Earlier")
    assert [len(each) for each in backwards] == [50, 50, 20]
    assert list(chain(*backwards[::-1])) == expected
    # Message 123 is deleted, so the page ends with message 122.
    last_page = texts_of(page(admin, f"{path}?from=123"))
    assert last_page[-1] == "number 122."
    around = texts_of(page(admin, path, at=80))
    assert around[5] == "number 80."
    assert around[0] == "number 75."


def test_short_and_empty_threads_have_no_page_links(admin: Client, thread: Thread) -> None:
    whole = page(admin, f"{THREADS}{thread.id}/change/", at=4)
    assert len(texts_of(whole)) == 4
    assert 'class="pages"' not in whole
    empty = page(admin, f"{THREADS}{store_thread(0).id}/change/")
    assert 'class="pages"' not in empty
    assert "This thread has no messages." in empty


def test_images_are_shown_by_url_or_file_id(admin: Client, api: Api, thread_id: str) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x.example/<b>.png"}},
        {"type": "image_file", "image_file": {"file_id": "file-9", "detail": "low"}},
    ]
    beta = {"HTTP_OPENAI_BETA": "assistants=v2"}
    message = api.post(f"/threads/{thread_id}/messages", {"role": "user", "content": parts}, **beta).body["id"]
    for path in (MESSAGES, f"{MESSAGES}{message}/change/", f"{THREADS}{thread_id}/change/"):
        html = page(admin, path)
        assert "<b>.png" not in html
        assert "[image_url: https://x.example/<b>.png]" in unescape(html)
        assert "[image_file: file-9]" in html


# Content parts that the API does not accept yet, and the line that the admin shows for each part.
UNKNOWN_PARTS: list[tuple[Any, str]] = [
    ({"type": "refusal", "refusal": "I <b>cannot</b>."}, "I <b>cannot</b>."),
    ({"type": "input_text", "text": "hi"}, "hi"),
    ({"type": "output_text", "text": "hello", "annotations": []}, "hello"),
    ({"type": "summary_text", "text": "in short"}, "in short"),
    ({"type": "output_audio", "data": "AAAA", "transcript": "heard"}, "heard"),
    (
        {"type": "computer_screenshot", "image_url": "https://x.example/1.png"},
        "[computer_screenshot: https://x.example/1.png]",
    ),
    ({"type": "input_image", "detail": "auto", "file_id": "file-7", "image_url": None}, "[input_image: file-7]"),
    (
        {"type": "input_image", "image_url": {"url": "https://x.example/2.png"}},
        "[input_image: https://x.example/2.png]",
    ),
    ({"type": "image_url", "image_url": "https://x.example/3.png"}, "[image_url: https://x.example/3.png]"),
    ({"type": "image_url", "image_url": {}}, "[image_url]"),
    ({"type": "image_file", "image_file": None}, "[image_file]"),
    ({"type": "text", "text": None}, "[text]"),
    ({"type": "text", "text": {"value": None}}, "[text]"),
    ({"type": "text", "text": ["a"]}, "[text]"),
    ({"type": "text"}, "[text]"),
    ({"type": ["text"], "id": "part_1"}, "[unknown: part_1]"),
    ({"text": "no type"}, "no type"),
    ({}, "[unknown]"),
    ("bare", "bare"),
    (7, "[unknown]"),
    (None, "[unknown]"),
    ([], "[unknown]"),
]


def test_parts_of_another_api_are_shown(admin: Client) -> None:
    thread = new_thread(metadata={"of": "unknown parts"})
    contents = [[part] for part, _ in UNKNOWN_PARTS] + [[part for part, _ in UNKNOWN_PARTS]]
    messages = [
        new_message(thread=thread, position=position, role="assistant", content=content)
        for position, content in enumerate(contents, start=1)
    ]
    store_rows([thread], messages)
    lines = [line for _, line in UNKNOWN_PARTS]
    texts = [*lines, "\n".join(lines)]
    assert texts_of(page(admin, f"{THREADS}{thread.id}/change/")) == texts
    assert "I &lt;b&gt;cannot&lt;/b&gt;." in page(admin, THREADS, q=thread.id)
    listed = unescape(page(admin, MESSAGES, q=thread.id))
    assert all(f'<td class="field-text_preview">{line}</td>' in listed for line in lines)
    for message, text in zip(messages, texts, strict=True):
        assert texts_of(page(admin, f"{MESSAGES}{message.id}/change/")) == [text]
        for shape in ("v1", "v2"):
            assert admin.get(f"{MESSAGES}{message.id}/json/?shape={shape}").json()["content"] == message.content
        assert admin.get(f"{MESSAGES}{message.id}/delete/").status_code == 200
    assert admin.get(f"{THREADS}{thread.id}/export/").getvalue()
    delete_thread(thread.id)


@pytest.mark.parametrize("row_id", ["thread_3Aab_5F", "thread_2F..", "é ü/😀?#&", "_0A"])
def test_imported_ids_have_pages(admin: Client, row_id: str) -> None:
    thread = new_thread()
    thread.id = row_id
    message = new_message(thread=thread, position=1, role="user", content=[text_part("from elsewhere")])
    message.id = f"{row_id}m"
    store_rows([thread], [message])
    (address,) = set(re.findall(rf'href="({THREADS}[^"]+/change/)', page(admin, THREADS, q=row_id)))
    html = page(admin, unescape(address))
    assert texts_of(html) == ["from elsewhere"]
    (address,) = re.findall(rf'href="({MESSAGES}[^"]+/json/)"', html)
    assert admin.get(unescape(address)).json()["id"] == f"{row_id}m"
    delete_thread(row_id)
    purging.purge()


def test_nothing_can_be_added_or_changed(admin: Client, thread: Thread) -> None:
    message = thread.messages.get(position=1)
    for path, key in ((THREADS, thread.id), (MESSAGES, message.id)):
        assert admin.get(f"{path}add/").status_code == 403
        assert admin.post(f"{path}{key}/change/", {"role": "assistant"}).status_code == 403
    assert Message.objects.get(id=message.id).role == "user"


# Export


def test_export_of_selected_threads_equals_the_command(admin: Client, thread: Thread) -> None:
    other, unselected = store_thread(3, tenant="acme"), store_thread(1)
    action = {"action": "export", "_selected_action": [other.id, thread.id], "select_across": "1"}
    answer = admin.post(THREADS, action)
    assert answer["Content-Type"] == "application/jsonl; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="threads-\d{8}-\d{6}\.jsonl"', answer["Content-Disposition"])
    lines = [json.loads(line) for line in answer.getvalue().splitlines()]
    assert [(line["id"], line["tenant"], len(line["messages"])) for line in lines] == [
        (thread.id, "default", 4),
        (other.id, "acme", 3),
    ]
    assert unselected.id not in str(lines)
    alone = admin.get(f"{THREADS}{thread.id}/export/")
    assert [json.loads(alone.getvalue())] == lines[:1]


# Delete


def test_delete_of_a_thread_asks_first_and_equals_the_api(
    admin: Client, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[bool] = []
    monkeypatch.setattr("messages_app.store.deletion.wake_purger", lambda: woken.append(True))
    thread = store_thread(12, metadata={"topic": "to go"})
    delete_message(thread.messages.get(position=12).id)
    path = f"{THREADS}{thread.id}/delete/"
    confirmation = page(admin, path)
    assert f"Thread {thread.id} with 11 messages" in confirmation
    assert "Messages: 11" in confirmation
    assert api.get(f"/threads/{thread.id}").status == 200
    assert admin.post(path, {"post": "yes"}).status_code == 302
    assert woken == [True]
    assert api.get(f"/threads/{thread.id}").status == 404
    assert f"{thread.id}” was deleted" in page(admin, "/admin/")
    assert thread.id not in page(admin, THREADS, q="topic=to go")
    purging.purge_threads()
    assert not Message.objects.filter(thread=thread.id).exists()
    assert thread.id in page(admin, "/admin/")  # the admin's history still shows the id


def test_delete_of_selected_threads_counts_their_messages(admin: Client, api: Api) -> None:
    first, second, kept = store_thread(2), store_thread(1), store_thread(1)
    action = {"action": "delete_selected", "_selected_action": [first.id, second.id], "select_across": "1"}
    confirmation = admin.post(THREADS, action).content.decode()
    assert f"Thread {first.id} with 2 messages" in confirmation
    assert f"Thread {second.id} with 1 message<" in confirmation
    assert "Messages: 3" in confirmation
    assert api.get(f"/threads/{first.id}").status == 200
    admin.post(THREADS, {**action, "post": "yes"})
    statuses = [api.get(f"/threads/{each.id}").status for each in (first, second, kept)]
    assert statuses == [404, 404, 200]


def test_delete_of_a_message_equals_the_api(admin: Client, api: Api) -> None:
    thread = store_thread(3)
    first, second, third = thread.messages.order_by("position")
    path = f"{MESSAGES}{second.id}/delete/"
    assert "number 2." in page(admin, path)
    assert admin.post(path, {"post": "yes"}).status_code == 302
    action = {"action": "delete_selected", "_selected_action": [third.id]}
    assert "number 3." in admin.post(MESSAGES, action).content.decode()
    admin.post(MESSAGES, {**action, "post": "yes"})
    listed = api.get(f"/threads/{thread.id}/messages?order=asc&after={first.id}")
    assert (listed.status, listed.body["data"]) == (200, [])
    # The id of a deleted message is still a valid cursor.
    assert api.get(f"/threads/{thread.id}/messages?order=asc&after={second.id}").status == 200
    assert Message.objects.get(id=second.id).content == []
    assert admin.get(f"{MESSAGES}{second.id}/change/").status_code == 302


def test_deleted_rows_disappear_at_once(admin: Client, api: Api) -> None:
    kept, gone = (api.post("/threads", {"metadata": {"topic": "gone"}}).body["id"] for _ in range(2))
    good = {"role": "user", "content": "soon gone"}
    last, erased, within = (api.post(f"/threads/{thread}/messages", good).body["id"] for thread in (kept, kept, gone))
    html = page(admin, MESSAGES, q='"soon gone"')
    assert all(message in html for message in (last, erased, within))
    assert api.call("DELETE", f"/threads/{kept}/messages/{erased}").status == 200
    delete_thread(gone)
    assert gone not in page(admin, THREADS)
    assert gone not in page(admin, THREADS, q='"soon gone"')
    assert admin.get(f"{THREADS}{gone}/change/").status_code == 302
    assert admin.get(f"{THREADS}{gone}/export/").status_code == 302
    html = page(admin, MESSAGES, q='"soon gone"')
    assert [message in html for message in (last, erased, within)] == [True, False, False]
    assert erased not in page(admin, f"{THREADS}{kept}/change/")
    for message in (erased, within):
        for what in ("change", "json", "delete"):
            assert admin.get(f"{MESSAGES}{message}/{what}/").status_code == 302


# Queries


def test_query_count_does_not_grow_with_rows(admin: Client, api: Api, thread: Thread) -> None:
    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            page(admin, path)
        statements = " ".join(query["sql"] for query in captured)
        assert "COUNT(*)" not in statements
        return len(captured)

    message = thread.messages.get(position=1)
    # On SQLite, the count includes two queries for the session and the user, because they are in the same database.
    own = 2 if connection.alias == "default" else 0
    paths = {
        THREADS: 4,
        f"{THREADS}?tenant=default": 4,
        f"{THREADS}?q=otters": 8,
        f"{THREADS}{thread.id}/change/": 3,
        f"{THREADS}{thread.id}/delete/": 2,
        MESSAGES: 2,
        f"{MESSAGES}?role=user&has_files=yes&q=otters": 4,
        f"{MESSAGES}{message.id}/change/": 1,
        f"{MESSAGES}{message.id}/json/": 1,
    }
    assert {path: queries(path) - own for path in paths} == paths
    for _ in range(20):
        api.post("/threads", {"messages": [{"role": "user", "content": "otters"}]})
        append(thread.id, role="user", content=[text_part("otters")])
    assert {path: queries(path) - own for path in paths} == paths


# Malformed requests

NUL = [
    ("get", "/admin/", {"HTTP_COOKIE": 'sessionid="\\000aaaaaaaaaaaa"'}),
    ("get", THREADS + "?q=%00", {}),
    ("get", THREADS + "%00/change/", {}),
    ("get", "/admin/r/7/%00/", {}),
    ("get", "/admin/auth/user/?q=%00", {}),
    ("get", MESSAGES + "?a%00b=1", {}),
    ("post", THREADS, {"data": {"action": "export", "_selected_action": "\0"}}),
    ("post", "/admin/login/", {"data": {"username": "\0", "password": "x"}}),
]


@pytest.mark.parametrize(("method", "path", "more"), NUL)
@pytest.mark.engine("sqlite", "postgresql")
def test_null_character_is_a_bad_request(admin: Client, method: str, path: str, more: dict[str, Any]) -> None:
    client = Client() if "HTTP_COOKIE" in more else admin
    answer = getattr(client, method)(path, **more)
    assert (answer.status_code, answer.json()) == (400, {"detail": "Bad Request"})


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("get", "/admin/auth/user/", {"username__regex": "("}),
        ("get", "/admin/auth/user/", {"last_login__year": "10000"}),
        ("get", "/admin/auth/group/", {"name__regex": "("}),
        ("get", "/admin/auth/user/", {"groups__id__exact": "x"}),
        ("get", "/admin/auth/user/", {"is_staff__exact": "1"}),
        ("get", "/admin/auth/user/1/delete/", {"_to_field": ""}),
        ("get", "/admin/auth/user/99999999999999999999/change/", {}),
        ("get", f"{THREADS}x/delete/", {"_to_field": ""}),
        ("get", f"{THREADS}x/history/", {}),
        ("post", "/admin/auth/user/", {"action": "delete_selected", "_selected_action": "x"}),
        ("post", "/admin/auth/group/", {"action": "delete_selected", "_selected_action": "9" * 30}),
    ],
)
@pytest.mark.engine("sqlite", "postgresql")
def test_handmade_request_is_not_a_server_error(admin: Client, method: str, path: str, data: dict[str, str]) -> None:
    assert getattr(admin, method)(path, data).status_code in (200, 302, 400)
