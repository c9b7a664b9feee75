"""Lists and search in the admin: matches, their order, their pages, and the scan limit."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import chain
from typing import Any

import pytest
from django.test import Client

from messages_app.models import Message, Thread
from messages_app.models.content import text_part
from messages_app.store import search
from tests import engines
from tests.admin_pages import MESSAGES, THREADS, page, store_thread
from tests.rows import delete_message, delete_thread, new_message, new_thread, store_rows

DAY = timedelta(days=1)
YEAR_1990 = datetime(1990, 1, 1, 12, tzinfo=UTC)  # earlier than any row of other tests


def ids_in(html: str) -> list[str]:
    """Return the row ids of an admin list, in the order of the list."""
    return [unescape(row_id) for row_id in re.findall(r'class="field-id">.*?>([^<]+)</a>', html)]


def description(html: str) -> str:
    (sentence,) = re.findall(r'<p id="description">(.*?)</p>', html)
    return unescape(sentence)


def link(html: str, text: str) -> str | None:
    found = re.findall(rf'<a href="([^"]+)"[^>]*>{text}</a>', html)
    return unescape(found[0]) if found else None


def walk(client: Client, path: str, link_text: str) -> list[list[str]]:
    """Follow the link with this text from page to page. Return the row ids of each page."""
    start, _, first = path.partition("?")
    pages: list[list[str]] = []
    query: str | None = f"?{first}"
    while query is not None:
        assert len(pages) < 20
        html = page(client, f"{start}{query}")
        pages.append(ids_in(html))
        query = link(html, link_text)
    return pages


def cells(html: str, row_id: str, *columns: str) -> list[str]:
    """Return the text in each of these columns for one row, without markup."""
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if f">{row_id}</a>" in row]
    found = {name: re.sub("<[^>]+>", "", text) for name, text in re.findall(r'<td class="field-(\w+)">(.*?)</td>', row)}
    return [unescape(found[name]).strip() for name in columns]


def store_at(at: datetime, *texts: str, tenant: str = "default", metadata: Any = None, **fields: Any) -> Thread:
    """Store a thread created at `at`. Its messages follow at intervals of one minute."""
    thread = new_thread(at=at, tenant=tenant, metadata=metadata or {})
    messages = [
        new_message(
            at=at + timedelta(minutes=number), thread=thread, position=number, **{"role": "user", **fields},
            content=[text_part(text)],
        )
        for number, text in enumerate(texts, start=1)
    ]  # fmt: skip
    store_rows([thread], messages)
    return thread


def test_list_summarizes_each_thread(admin: Client) -> None:
    thread = store_at(YEAR_1990, "Hello\nthere, " + "long " * 50, "yes", "no", tenant="acme", metadata={"a": "b c"})
    delete_message(thread.messages.get(position=2).id)
    html = page(admin, THREADS, q=thread.id)
    assert ids_in(html) == [thread.id]
    (words,) = cells(html, thread.id, "first_words")
    assert words.startswith("Hello there, long long")
    assert words.endswith("…")
    assert cells(html, thread.id, "created", "message_count", "last_activity", "metadata_pairs", "tenant") == [
        "1990-01-01 12:00:00",
        "2",
        "1990-01-01 12:03:00",
        "a b c",
        "acme",
    ]
    empty = store_thread(0)
    html = page(admin, THREADS, q=empty.id)
    assert cells(html, empty.id, "message_count", "last_activity", "first_words", "metadata_pairs") == ["-"] * 4


def test_threads_are_listed_newest_first_without_repeats(admin: Client) -> None:
    threads = [store_thread(0, tenant="pages", at=YEAR_1990 + number * DAY).id for number in range(120)]
    pages = walk(admin, f"{THREADS}?tenant=pages", "Older")
    assert [len(each) for each in pages] == [50, 50, 20]
    assert [row_id for each in pages for row_id in each] == threads[::-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"since": "1991-01-03"}, [2, 3]),
        ({"until": "1991-01-03"}, [0, 1, 2]),
        ({"since": "1991-01-02", "until": "1991-01-03"}, [1, 2]),
        ({"since": "1991-01-03", "until": "1991-01-02"}, []),
        ({"until": "9999-12-31"}, [0, 1, 2, 3]),
        ({"since": "0001-01-01"}, [0, 1, 2, 3]),
        ({"metadata": "colour=red"}, [0, 2]),
        ({"q": "colour=red"}, [0, 2]),
        ({"metadata": "colour=red", "q": "size=two words"}, [2]),
        ({"metadata": "colour=red", "since": "1991-01-02"}, [2]),
        ({"metadata": "colour=green"}, []),
        ({"metadata": "a key=="}, [3]),
        ({"q": "elephants"}, [0, 3]),
        ({"q": "elephants", "since": "1991-01-02"}, [3]),
        ({"q": "elephants", "metadata": "colour=red"}, [0]),
        ({"q": "ELEPHANTS remember"}, [3]),
        ({"q": '"remember elephants"'}, []),
    ],
)
def test_threads_are_found_by_date_metadata_and_words(
    admin: Client, query: dict[str, str], expected: list[int]
) -> None:
    at = datetime(1991, 1, 1, tzinfo=UTC)
    tenant = "filters"
    if not Thread.objects.filter(tenant=tenant).exists():
        store_at(at, "pink elephants", tenant=tenant, metadata={"colour": "red"})
        store_at(at + DAY, "grey mice", tenant=tenant, metadata={"colour": "blue"})
        last = at + 2 * DAY + timedelta(hours=23, minutes=59, seconds=59)
        store_at(last, tenant=tenant, metadata={"colour": "red", "size": "two words"})
        store_at(at + 3 * DAY, "elephants do remember", tenant=tenant, metadata={"a key": "="})
    threads = list(Thread.objects.filter(tenant=tenant).order_by("created_at").values_list("id", flat=True))
    html = page(admin, THREADS, tenant=tenant, **query)
    assert ids_in(html) == [threads[number] for number in reversed(expected)]


# A metadata search covers only the first 20 tenants in the order of their names. To be among them, the tenants of these
# tests have names that sort before the names in other tests.


def test_metadata_search_covers_all_tenants_or_one(admin: Client) -> None:
    ours, theirs = (store_at(YEAR_1990, tenant=tenant, metadata={"ticket": "77"}).id for tenant in ("!one", "!two"))
    assert sorted(ids_in(page(admin, THREADS, q="ticket=77"))) == sorted([ours, theirs])
    assert ids_in(page(admin, THREADS, q="ticket=77", tenant="!two")) == [theirs]


@pytest.mark.parametrize(
    ("key", "value"), [("x=y", "1"), ("", "v"), ('"q"', "a=b"), (" padded ", " too "), ("items", "x"), ("a", "<b>&")]
)
def test_metadata_link_leads_to_its_threads(admin: Client, key: str, value: str) -> None:
    thread = store_at(YEAR_1990, "hello", tenant="links", metadata={key: value})
    for html in (page(admin, THREADS, q=thread.id), page(admin, f"{THREADS}{thread.id}/change/")):
        (link,) = re.findall(r'class="pair" href="([^"]+)"', html)
        assert thread.id in ids_in(page(admin, unescape(link)))


def test_contradictory_pairs_find_nothing(admin: Client) -> None:
    store_at(YEAR_1990, metadata={"twice": "two"})
    html = page(admin, THREADS, metadata="twice=one", q="twice=two")
    assert ids_in(html) == []
    assert description(html) == "No thread can have both twice = one and twice = two in its metadata."


def test_metadata_search_says_if_it_skipped_tenants(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_TENANTS", 3)
    for number in range(4):
        store_at(YEAR_1990, tenant=f" many-{number}", metadata={"of": "many tenants"})
    html = page(admin, THREADS, q="of=many tenants")
    assert len(ids_in(html)) == 3
    assert "Only the first 3 tenants were searched; enter a tenant to search others." in description(html)
    html = page(admin, THREADS, q="of=many tenants", tenant="x")
    assert "tenants" not in description(html).replace("many tenants", "")


def test_thread_with_many_matches_is_listed_once(admin: Client) -> None:
    ours = store_at(YEAR_1990, *("bongo" for _ in range(60)), tenant="bongos", metadata={"k": "v"})
    theirs = store_at(YEAR_1990 + DAY, *("bongo" for _ in range(60)), tenant="others")
    assert ids_in(page(admin, THREADS, q="bongo")) == [theirs.id, ours.id]
    assert ids_in(page(admin, THREADS, q="bongo", tenant="bongos")) == [ours.id]
    assert ids_in(page(admin, THREADS, q="bongo", metadata="k=v")) == [ours.id]


def test_ids_of_24_hexadecimal_digits_are_found(admin: Client) -> None:
    thread = new_thread()
    thread.id = "0123456789abcdef01234567"
    message = new_message(thread=thread, position=1, role="user", content=[text_part("hex")])
    message.id = "89abcdef0123456701234567"
    store_rows([thread], [message])
    for row_id in (thread.id, message.id):
        assert ids_in(page(admin, THREADS, q=row_id)) == [thread.id]
        assert ids_in(page(admin, MESSAGES, q=row_id)) == [message.id]
    assert description(page(admin, MESSAGES, q=thread.id)) == "The newest messages of this thread (at most 50)."
    delete_thread(thread.id)


@pytest.mark.parametrize("typed", ["привет", "ПРИВЕТ", "Привет", "élan", "Élan"])
def test_words_of_any_alphabet_match_in_any_case(admin: Client, typed: str) -> None:
    thread = store_at(YEAR_1990, "Привет, Élan")
    assert ids_in(page(admin, THREADS, q=typed)) == [thread.id]
    delete_thread(thread.id)


def test_pages_of_a_metadata_search_do_not_repeat_threads(admin: Client) -> None:
    threads = [
        store_thread(0, tenant=f"!pair-{number % 2}", at=YEAR_1990 + number * DAY, metadata={"of": "pairs"}).id
        for number in range(70)
    ]
    assert list(chain(*walk(admin, f"{THREADS}?q=of%3Dpairs", "Older"))) == threads[::-1]


def test_rows_are_found_by_their_ids_and_related_ids(admin: Client) -> None:
    thread = store_at(YEAR_1990, "one", "two")
    message = thread.messages.get(position=2)
    for text in (thread.id, thread.object_id, message.id, f" {thread.id} "):
        assert ids_in(page(admin, THREADS, q=text)) == [thread.id]
    for text in (f"{thread.id}x", "0" * 24, "f" * 24, thread.id[:-1]):
        assert ids_in(page(admin, THREADS, q=text)) == []
    for text in (message.id, message.object_id):
        assert ids_in(page(admin, MESSAGES, q=text)) == [message.id]
    assert ids_in(page(admin, MESSAGES, q=thread.id)) == [message.id, thread.messages.get(position=1).id]


def test_match_is_shown_in_context_and_links_to_it(admin: Client) -> None:
    thread = store_at(YEAR_1990, "Good morning", "no", "and so on " * 40 + "the wombat, of course", "no")
    html = page(admin, THREADS, q="wombat")
    assert ids_in(html) == [thread.id]
    (words,) = cells(html, thread.id, "first_words")
    assert words.startswith("Good morning#3 user …")
    assert "the wombat, of course" in words
    (address,) = re.findall(r'class="hit" href="([^"]+)"', html)
    message = thread.messages.get(position=3)
    assert address.endswith(f"?at=3#{message.id}")
    assert "wombat" in page(admin, unescape(address))


@pytest.mark.parametrize(
    "words",
    [
        "ça s'appelle",
        'say "quoted" and',
        r"C:\new\table",
        "radeau 🦦",
        "50% of_all",
        "hold</b>?",
        "over\ttwo lines",
        "ÇA",
    ],
)
def test_quotes_symbols_and_emoji_are_found(admin: Client, words: str) -> None:
    others = 'ça s\'appelle un radeau 🦦 say "quoted" and C:\\new\\table 50% of_all <b>hold</b>?'
    thread = store_at(YEAR_1990, f"AXOLOTL {others}\ntwo\nlines over {words}")
    found = ids_in(page(admin, MESSAGES, q=f"axolotl {words}", since="1990-01-01", until="1990-01-02"))
    assert found == [thread.messages.get().id]
    delete_thread(thread.id)


@pytest.mark.parametrize("word", ["annotations", "value", "text", "type"])
def test_keys_of_the_stored_json_do_not_match(admin: Client, word: str) -> None:
    store_at(YEAR_1990, "nothing of the kind")
    found = ids_in(page(admin, MESSAGES, q=word, since="1990-01-01", until="1990-01-01"))
    assert found == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [3, 2, 1, 0]),
        ({"role": "assistant"}, [2, 1]),
        ({"has_files": "yes"}, [3, 1]),
        ({"has_files": "no"}, [2, 0]),
        ({"run_id": "run_9"}, [2, 1]),
        ({"run_id": "run_9", "has_files": "yes"}, [1]),
        ({"q": "beta"}, [3, 1]),
        ({"q": "beta", "role": "user"}, [3]),
        ({"role": "tool_output"}, []),
    ],
)
def test_messages_are_found_by_role_files_run_and_words(
    admin: Client, query: dict[str, str], expected: list[int]
) -> None:
    at = datetime(1992, 1, 1, tzinfo=UTC)
    if not Message.objects.filter(created_at__lt=at + DAY, created_at__gte=at).exists():
        files = [{"file_id": "file-1", "tools": []}]
        store_at(at, "alpha")
        store_at(at + timedelta(hours=1), "beta", role="assistant", run_id="run_9", attachments=files)
        store_at(at + timedelta(hours=2), "gamma", role="assistant", run_id="run_9")
        store_at(at + timedelta(hours=3), "beta", attachments=files)
    of_day = Message.objects.filter(created_at__lt=at + DAY, created_at__gte=at).order_by("created_at")
    messages = list(of_day.values_list("id", flat=True))
    html = page(admin, MESSAGES, since="1992-01-01", until="1992-01-01", **query)
    assert ids_in(html) == [messages[number] for number in expected]


def test_scan_that_stops_early_says_so_and_continues(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(1993, 1, 1, tzinfo=UTC)
    threads = [
        store_at(at + number * timedelta(hours=1), "needle" if number % 7 == 0 else "hay") for number in range(24)
    ]
    monkeypatch.setattr(search, "SCAN_LIMIT", 5)
    expected = [threads[number] for number in (21, 14, 7, 0)]
    days = "since=1993-01-01&until=1993-01-01"
    pages = walk(admin, f"{THREADS}?q=needle&{days}", "Search older messages")
    assert len(pages) == 5
    assert list(chain(*pages)) == [thread.id for thread in expected]
    first = page(admin, f"{THREADS}?q=needle&{days}")
    assert "Searched the newest messages back to 1993-01-01 19:01 UTC." in description(first)
    pages = walk(admin, f"{MESSAGES}?q=needle&{days}", "Search older messages")
    assert list(chain(*pages)) == [thread.messages.get().id for thread in expected]
    no_match = page(admin, f"{MESSAGES}?q=nowhere&{days}")
    assert "Nothing found so far." in no_match
    assert link(page(admin, f"{MESSAGES}{link(no_match, 'Search older messages')}"), "Newest")
    monkeypatch.setattr(search, "SCAN_LIMIT", 24)
    assert "Searched" not in description(page(admin, f"{MESSAGES}?q=nowhere&{days}"))
    # A scan also stops after too many candidates. On SQL engines, every message is a candidate here, because the JSON
    # of each message contains the word.
    monkeypatch.setattr(search, "CANDIDATE_LIMIT", 3)
    pages = walk(admin, f"{MESSAGES}?q=annotations&{days}", "Search older messages")
    assert (len(pages), list(chain(*pages))) == (1 if engines.chosen == "mongodb" else 9, [])


def test_pages_of_matches_do_not_repeat_messages(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE_SIZE", 4)
    at = datetime(1994, 1, 1, tzinfo=UTC)
    thread = store_at(at, *(f"{'needle' if number % 2 else 'hay'} {number}" for number in range(22)))
    pages = walk(admin, f"{MESSAGES}?q=needle&since=1994-01-01&until=1994-01-01", "Older")
    assert [len(each) for each in pages] == [4, 4, 3]
    expected = [message.id for message in thread.messages.order_by("-position") if "needle" in message.text]
    assert list(chain(*pages)) == expected


@pytest.mark.parametrize("path", [THREADS, MESSAGES])
@pytest.mark.parametrize(
    "query",
    [
        {"since": "1990-02-30"},
        {"until": "yesterday"},
        {"metadata": "no pair", "role": "king"},
        {"q": "x" * 501},
        {"after": "99999999999_thread_x"},
        {"after": "99999999999999_thread_x"},
        {"after": "yesterday"},
        {"q": "word " * 99},
        {"q": '"'},
        {"q": "=x"},
        {"q": "\ud800"},
        {"o": "99", "p": "99999999999999999999", "all": "", "e": "1", "_popup": "1", "created_at__year": "10000"},
    ],
)
@pytest.mark.engine("sqlite", "postgresql")
def test_odd_query_is_not_a_server_error(admin: Client, path: str, query: dict[str, str]) -> None:
    answer = admin.get(path, {name: value.encode(errors="surrogatepass") for name, value in query.items()})
    assert answer.status_code == 200


def test_invalid_filter_shows_an_error_and_no_rows(admin: Client) -> None:
    store_thread(0)
    html = page(admin, THREADS, since="1990-02-30", metadata="no pair")
    assert "Enter a valid date." in html
    assert "Enter a pair as key=value." in html
    assert ids_in(html) == []


@pytest.mark.parametrize("path", [THREADS, MESSAGES])
@pytest.mark.parametrize("row_id", ["'; --", "%2500", "é", "__"])
@pytest.mark.engine("sqlite", "postgresql")
def test_odd_id_is_not_a_server_error(admin: Client, path: str, row_id: str) -> None:
    for what in ("change", "delete", "json" if path == MESSAGES else "export"):
        assert admin.get(f"{path}{row_id}/{what}/").status_code == 302
    for action in ("delete_selected", "export", ""):
        assert admin.post(path, {"action": action, "_selected_action": row_id, "post": "yes"}).status_code in (200, 302)


@pytest.mark.parametrize("parameter", ["from", "upto", "at"])
@pytest.mark.engine("sqlite", "postgresql")
def test_odd_position_in_a_transcript_is_not_a_server_error(admin: Client, parameter: str) -> None:
    thread = store_thread(60)
    for value in ("9" * 18, "9" * 30, "0", "-1", "x"):
        assert admin.get(f"{THREADS}{thread.id}/change/", {parameter: value}).status_code == 200
