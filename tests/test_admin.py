"""Browsing threads and messages in the admin."""

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.test.utils import CaptureQueriesContext

from messages_app.models import Message, Thread, text_part
from tests.conftest import Api, connection

MARK = "conversation-about-otters"


@pytest.fixture(scope="module")
def admin() -> Client:
    User.objects.create_superuser("root", password="a long password")
    client = Client()
    assert client.login(username="root", password="a long password")
    return client


@pytest.fixture(scope="module")
def thread() -> Thread:
    thread = Thread.new(metadata={"topic": MARK})
    thread.save()
    for number, (role, text) in enumerate(
        [
            ("user", "Do otters <b>hold hands</b>?\n<script>alert(1)</script>"),
            ("assistant", "They do, while they sleep: ça s'appelle un radeau 🦦."),
            ("user", f"{MARK} " + "and so on " * 50),
        ],
        start=1,
    ):
        Message.new(thread=thread, position=number, role=role, content=[text_part(text)]).save()
    return thread


def page(client: Client, path: str, **query: Any) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def ids_in(html: str, prefix: str) -> set[str]:
    table = html.partition('id="result_list"')[2]
    return set(re.findall(rf"{prefix}_[0-9a-z]{{26}}", table))


def test_needs_a_login() -> None:
    answer = Client().get("/admin/messages_app/thread/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/admin/messages_app/thread/")
    assert Client().get("/admin")["Location"] == "/admin/"
    login = Client().get("/admin/login/")
    assert "script-src 'self';" in login["Content-Security-Policy"]
    assert login["x-request-id"]


def test_login_form_works_and_needs_its_token(admin: Client) -> None:
    client = Client(enforce_csrf_checks=True)
    form = {"username": "root", "password": "a long password", "next": "/admin/"}
    assert client.post("/admin/login/", form).status_code == 403
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page(client, "/admin/login/"))
    assert token
    answer = client.post("/admin/login/", {**form, "csrfmiddlewaretoken": token[1]})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_threads_are_listed_with_their_metadata(admin: Client, thread: Thread) -> None:
    html = page(admin, "/admin/messages_app/thread/")
    assert thread.id in ids_in(html, "thread")
    assert MARK in html


@pytest.mark.parametrize("query", [{"q": MARK}, {"q": "{id}"}, {"q": "{object_id}"}])
def test_threads_are_found_by_id_and_metadata(admin: Client, thread: Thread, query: dict[str, str]) -> None:
    words = query["q"].format(id=thread.id, object_id=thread.object_id)
    assert ids_in(page(admin, "/admin/messages_app/thread/", q=words), "thread") == {thread.id}
    assert ids_in(page(admin, "/admin/messages_app/thread/", q="no such words"), "thread") == set()


def test_thread_page_shows_its_messages_in_order_and_escaped(admin: Client, thread: Thread) -> None:
    html = page(admin, f"/admin/messages_app/thread/{thread.id}/change/")
    assert "<script>alert(1)</script>" not in html
    text = unescape(html)
    order = [text.index(words) for words in ("Do otters <b>hold hands</b>?", "un radeau 🦦", "and so on")]
    assert order == sorted(order)
    for message in thread.messages.all():
        assert f"/admin/messages_app/message/{message.id}/change/" in html


def test_long_thread_shows_its_newest_messages_and_the_way_to_the_rest(admin: Client) -> None:
    thread = Thread.new()
    messages = [
        Message.new(thread=thread, position=i, role="user", content=[text_part(f"number {i}.")]) for i in range(1, 251)
    ]
    Thread.objects.store([thread], messages)
    html = page(admin, f"/admin/messages_app/thread/{thread.id}/change/")
    assert "number 250." in html
    assert "number 51." in html
    assert "number 50." not in html
    (link,) = re.findall(r'href="([^"]+)">all of them', html)
    assert len(ids_in(page(admin, link), "msg")) == 50


def test_messages_are_listed_filtered_and_searched(admin: Client, thread: Thread) -> None:
    by_position = {message.position: message for message in thread.messages.all()}
    everything = "/admin/messages_app/message/"
    html = page(admin, everything, q=MARK)
    assert ids_in(html, "msg") == {by_position[3].id}
    assert thread.id in html
    assert f"{MARK} and so on" in html
    assert "…" in html
    assert ids_in(page(admin, everything, q=thread.id), "msg") == {message.id for message in by_position.values()}
    assert ids_in(page(admin, everything, q=thread.id, role__exact="assistant"), "msg") == {by_position[2].id}
    assert ids_in(page(admin, everything, q="ça s'appelle"), "msg") == {by_position[2].id}
    assert ids_in(page(admin, everything, q="radeau 🦦"), "msg") == {by_position[2].id}
    assert ids_in(page(admin, everything, q="hold hands</b>?"), "msg") == {by_position[1].id}


def test_message_page_shows_all_of_it(admin: Client, thread: Thread) -> None:
    message = thread.messages.get(position=2)
    html = unescape(page(admin, f"/admin/messages_app/message/{message.id}/change/"))
    for shown in (message.id, message.object_id, thread.id, "assistant", message.text):
        assert shown in html


def test_images_and_tools_of_a_message_are_shown(admin: Client, api: Api, thread_id: str) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x.example/<b>.png"}},
        {"type": "image_file", "image_file": {"file_id": "file-9", "detail": "low"}},
    ]
    body = {"role": "user", "content": parts, "attachments": [{"file_id": "f-7", "tools": [{"type": "file_search"}]}]}
    beta = {"HTTP_OPENAI_BETA": "assistants=v2"}
    message = api.post(f"/threads/{thread_id}/messages", body, **beta).body["id"]
    for path in ("message/", f"message/{message}/change/", f"thread/{thread_id}/change/"):
        html = page(admin, f"/admin/messages_app/{path}")
        assert "<b>.png" not in html
        assert "[image_url: https://x.example/<b>.png]" in unescape(html)
        assert "[image_file: file-9]" in html
    html = unescape(page(admin, f"/admin/messages_app/message/{message}/change/"))
    assert '"f-7"' in html
    assert '"file_search"' in html


def test_nothing_can_be_added_changed_or_deleted(admin: Client, thread: Thread) -> None:
    message = thread.messages.get(position=1)
    for model, key in (("thread", thread.id), ("message", message.id)):
        assert admin.get(f"/admin/messages_app/{model}/add/").status_code == 403
        assert admin.post(f"/admin/messages_app/{model}/{key}/change/", {"role": "assistant"}).status_code == 403
        assert admin.post(f"/admin/messages_app/{model}/{key}/delete/", {"post": "yes"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": message.id, "post": "yes"}
    admin.post("/admin/messages_app/message/", action)
    assert Message.objects.get(id=message.id).role == "user"


def test_what_is_deleted_is_not_shown_from_that_moment_on(admin: Client, api: Api) -> None:
    kept, gone = (api.post("/threads", {"metadata": {"topic": "gone"}}).body["id"] for _ in range(2))
    good = {"role": "user", "content": "soon gone"}
    last, erased, within = (api.post(f"/threads/{thread}/messages", good).body["id"] for thread in (kept, kept, gone))
    everything = "/admin/messages_app/message/"
    assert ids_in(page(admin, everything, q="soon gone"), "msg") == {last, erased, within}
    assert api.call("DELETE", f"/threads/{kept}/messages/{erased}").status == 200
    Thread.objects.of_tenant("default").mark_deleted(gone)
    assert gone not in page(admin, "/admin/messages_app/thread/")
    assert admin.get(f"/admin/messages_app/thread/{gone}/change/").status_code == 302
    assert ids_in(page(admin, everything, q="soon gone"), "msg") == {last}
    assert erased not in page(admin, f"/admin/messages_app/thread/{kept}/change/")
    for message in (erased, within):
        assert admin.get(f"{everything}{message}/change/").status_code == 302


@pytest.mark.parametrize(
    "query",
    [
        {"created_at__year": "10000"},
        {"created_at__year": "99999999999999999999"},
        {"created_at__gte": "0001-01-01 00:00:00+14:00"},
        {"q": "word " * 1500},
        {"q": "\0"},
        {"role__exact": "\0"},
        {"o": "99"},
        {"p": "99999999999999999999"},
    ],
)
def test_odd_address_is_no_fault_of_the_server(admin: Client, query: dict[str, str]) -> None:
    assert admin.get("/admin/messages_app/message/", query).status_code in (200, 302)


def test_staff_sees_only_what_it_may(thread: Thread) -> None:
    user = User.objects.create_user("reader", password="a long password", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get("/admin/messages_app/thread/").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_thread"))
    assert client.get("/admin/messages_app/thread/").status_code == 200
    assert client.get("/admin/messages_app/message/").status_code == 403


def test_pages_cost_the_same_number_of_queries_however_many_rows(admin: Client, api: Api, thread: Thread) -> None:
    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            page(admin, path)
        return len(captured)

    paths = [
        "/admin/messages_app/thread/",
        "/admin/messages_app/message/",
        f"/admin/messages_app/thread/{thread.id}/change/",
    ]
    before = [queries(path) for path in paths]
    for number in range(4, 24):
        api.post("/threads")
        Message.new(thread=thread, position=number, role="user", content=[text_part("x")]).save()
    assert [queries(path) for path in paths] == before
    assert max(before) <= 6
