"""Search over all tenants, for the admin: look-ups by id, pages in time order, bounded scans, transcripts.

No index answers words, roles and files. A scan goes through the newest SCAN_LIMIT rows and reports how far it came; the
next page continues from there. So a page costs about the same however many rows are stored, and a create maintains no
index of words (docs/decisions/0008-looking.md).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Q, QuerySet

from messages_app.ids import MAX_SECONDS, MIN_SECONDS, OBJECT_ID
from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.models.base import RowQuerySet
from messages_app.models.thread import Activity, MessageByTimeQuerySet
from messages_app.store.engine import stores_documents

PAGE_SIZE = 50
# How many rows a scan goes through, and how many possible matches it reads.
SCAN_LIMIT = 20_000
CANDIDATE_LIMIT = 200
# Metadata is looked up one tenant at a time.
MAX_TENANTS = 20
# The time in a generated `_id` may differ from `created_at` by this much.
OBJECT_ID_LEEWAY = timedelta(seconds=60)
# Messages on a page of a transcript, and how many of them precede the one that it was opened at.
TRANSCRIPT_SIZE = 50
TRANSCRIPT_CONTEXT = 5
MAX_POSITION = 2**63 - 1

TimeCursor = tuple[datetime, str]  # `created_at` and `id`: the order of every list here


class SearchResult(NamedTuple):
    """A page of rows, newest first.

    `next_cursor` is where the next page continues, None if there is none. `scanned_until` is the time of the last
    scanned row if a scan ended before the page was full. `all_tenants` is False if some tenants were not searched.
    """

    rows: list[Any]
    next_cursor: TimeCursor | None = None
    scanned_until: datetime | None = None
    all_tenants: bool = True


class TimeRange(NamedTuple):
    """The rows between two cursors, both exclusive; None means unbounded."""

    low: TimeCursor | None = None
    high: TimeCursor | None = None

    @classmethod
    def of_days(cls, since: date | None, until: date | None) -> "TimeRange":
        """Return the range of these days (UTC), both inclusive."""
        low = midnight(since) if since else None
        high = midnight(until + timedelta(days=1)) if until and until < date.max else None
        return cls(low, high)

    def after(self, cursor: TimeCursor | None) -> "TimeRange":
        """Return the part of the range that follows a cursor in a newest-first list."""
        return self if cursor is None else self._replace(high=min(cursor, self.high or cursor))


def clamped_time(seconds: int) -> datetime:
    """Return Unix seconds as a time, clamped to the times that a row can have."""
    return datetime.fromtimestamp(max(MIN_SECONDS, min(seconds, MAX_SECONDS)), tz=UTC)


def midnight(day: date) -> TimeCursor:
    return datetime(day.year, day.month, day.day, tzinfo=UTC), ""


def cursor_of(row: Thread | Message) -> TimeCursor:
    return row.created_at, row.id


def newest(rows: Any, time_range: TimeRange) -> SearchResult:
    """Return the newest rows in a range. One query."""
    found = rows.between(*time_range, descending=True, limit=PAGE_SIZE + 1)
    page = found[:PAGE_SIZE]
    return SearchResult(page, next_cursor=cursor_of(page[-1]) if len(found) > PAGE_SIZE else None)


def scan(
    rows: RowQuerySet[Any],
    time_range: TimeRange,
    condition: Q,
    confirm: Callable[[list[Any]], list[Any]] | None = None,
) -> SearchResult:
    """Return those of the newest SCAN_LIMIT rows in a range that meet a condition without an index. Two queries.

    An index must answer `rows`. `confirm` drops candidates that meet `condition` but are no match.
    """
    limit = CANDIDATE_LIMIT if confirm else PAGE_SIZE + 1
    in_order = rows.window(*time_range, descending=True).values_list(*rows.place)
    edge = list(in_order[SCAN_LIMIT - 1 : SCAN_LIMIT + 1])
    last, beyond = (edge[0], edge[1]) if len(edge) == 2 else (None, time_range.low)
    candidates = rows.filter(condition).between(beyond, time_range.high, descending=True, limit=limit)
    matches = confirm(candidates) if confirm else candidates
    if len(matches) > PAGE_SIZE:
        return SearchResult(matches[:PAGE_SIZE], next_cursor=cursor_of(matches[PAGE_SIZE - 1]))
    if len(candidates) == limit:
        last = cursor_of(candidates[-1])
    return SearchResult(matches, next_cursor=last, scanned_until=last and last[0])


# Search terms

_TERM = re.compile(r'["“”]([^"“”]+)["“”]?|(\S+)')
MAX_TERMS = 10


class Terms(NamedTuple):
    """Words and phrases that a message's text must all contain, in any case."""

    words: list[str]

    @classmethod
    def parse(cls, text: str) -> "Terms":
        """Return the terms of a query; text "in quotes" is one term. Terms beyond MAX_TERMS are ignored."""
        return cls([phrase or word for phrase, word in _TERM.findall(text)][:MAX_TERMS])

    @property
    def condition(self) -> Q:
        """The condition that every match meets. Other rows may meet it: SQL also searches the JSON's own syntax."""
        condition = Q()
        for word in self.words:
            condition &= contains_word(word)
        return condition

    def match(self, message: Message) -> bool:
        text = message.text.casefold()
        return all(word.casefold() in text for word in self.words)

    def first_match_in(self, text: str) -> int:
        """Return the index of the first term in a text; 0 if it has none."""
        indexes = [index for word in self.words if (index := text.casefold().find(word.casefold())) >= 0]
        return min(indexes, default=0)


def contains_word(word: str) -> Q:
    """Return the condition of messages whose content contains a word."""
    if stores_documents(connections[Message.objects.db]):
        return Q(content__text__value__icontains=word)
    condition = Q()
    for spelling in case_variants(word):
        condition |= Q(content__icontains=json_string(spelling)[1:-1])
    return condition


def case_variants(word: str) -> list[str]:
    """Return the spellings of a word that the engine's case-insensitive comparison tells apart.

    SQLite folds the case of ASCII alone. Other words are searched there as typed, in lower case, in upper case and
    capitalized.
    """
    connection = connections[Message.objects.db]
    folds_unicode_case = getattr(connection.features, "folds_unicode_case", connection.vendor != "sqlite")
    if folds_unicode_case or word.isascii():
        return [word]
    return [word, word.lower(), word.upper(), word.capitalize()]


# Metadata in queries: key=value. A key in quotes is a JSON string.

_PAIR = re.compile(r'("(?:[^"\\]|\\.)*"|[^="][^=]*)=(.*)', re.DOTALL)
_PAIR_OR_WORDS = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s="]+)=(.*)', re.DOTALL)


def parse_pair(text: str, or_words: bool = False) -> dict[str, str]:
    """Return the pair in `key=value` or `"key"=value`; empty if the text is not a pair.

    With `or_words`, the text may also be words, so a key without quotes cannot contain a space.
    """
    match = (_PAIR_OR_WORDS if or_words else _PAIR).fullmatch(text)
    if not match:
        return {}
    key = match[1]
    if key.startswith('"'):
        try:
            key = json.loads(key, strict=False)
        except ValueError:
            return {}
    return {key: match[2]}


def format_pair(key: str, value: str) -> str:
    """Return the text that `parse_pair` reads as this pair."""
    return f"{json_string(key) if not key or '=' in key or key.startswith(chr(34)) else key}={value}"


def json_string(text: str) -> str:
    """Return a text as a JSON string, escaped as in the stored form."""
    return json.dumps(text, ensure_ascii=False)


# Threads


class ThreadFilters(NamedTuple):
    """The threads that meet all of these; empty values do not filter."""

    tenant: str = ""
    metadata: Mapping[str, str] = {}
    terms: Terms | None = None  # of their messages


def searchable_threads() -> ThreadQuerySet:
    """Return the threads of all tenants that are not deleted."""
    threads: ThreadQuerySet = Thread.objects.visible()
    return threads


def threads(filters: ThreadFilters, time_range: TimeRange) -> SearchResult:
    """Return threads, newest first. With terms, the range and the order are those of the newest matching messages."""
    if filters.terms:
        return _threads_by_terms(filters, filters.terms, time_range)
    if filters.metadata:
        return _threads_by_metadata(filters, time_range)
    return newest(Thread.objects.visible(filters.tenant or None), time_range)


def _threads_by_metadata(filters: ThreadFilters, time_range: TimeRange) -> SearchResult:
    tenants = [filters.tenant] if filters.tenant else Thread.objects.tenants(MAX_TENANTS + 1)
    if len(tenants) == 1:
        return newest(Thread.objects.matching(tenants[0], filters.metadata), time_range)
    found: list[Thread] = []
    for tenant in tenants[:MAX_TENANTS]:
        of_tenant = Thread.objects.matching(tenant, filters.metadata)
        found += of_tenant.between(*time_range, descending=True, limit=PAGE_SIZE + 1)
    # The database sorts them: its order of ids, in which the next page starts, may not be Python's.
    merged = Thread.objects.filter(id__in=[thread.id for thread in found])
    return newest(merged, TimeRange())._replace(all_tenants=len(tenants) <= MAX_TENANTS)


def _threads_by_terms(filters: ThreadFilters, terms: Terms, time_range: TimeRange) -> SearchResult:
    """Return threads by their newest message that matches, which becomes their `match`. Three queries."""
    threads: dict[str, Thread] = {}

    def newest_of_each_thread(candidates: list[Message]) -> list[Message]:
        matches: dict[str, Message] = {}
        for message in candidates:
            if message.thread_id not in matches and terms.match(message):
                matches[message.thread_id] = message
        visible = Thread.objects.visible(filters.tenant or None).filter(id__in=list(matches))
        threads.update((thread.id, thread) for thread in visible if filters.metadata.items() <= thread.metadata.items())
        return [message for message in matches.values() if message.thread_id in threads]

    messages = Message.by_time.filter(deleted_at=None)
    result = scan(messages, time_range, terms.condition, newest_of_each_thread)
    rows = []
    for message in result.rows:
        thread: Any = threads[message.thread_id]
        thread.match = message
        rows.append(thread)
    return result._replace(rows=rows)


def lookup_threads(any_id: str) -> list[Thread]:
    """Return the threads with this id or `_id`, or else that of the message with this id. At most four queries."""
    visible = searchable_threads()
    found = list(with_object_id(visible, any_id)) if OBJECT_ID.fullmatch(any_id) else []
    found = found or list(visible.named(id=any_id))
    if not found:
        message = Message.objects.named(id=any_id).filter(deleted_at=None).only("thread_id").first()
        found = list(visible.filter(id=message.thread_id)) if message else []
    return found


def with_object_id(rows: QuerySet[Any], object_id: str) -> QuerySet[Any]:
    """Return the rows with an `_id`. It has no index of its own, but it contains the time, which has one."""
    at = clamped_time(int(object_id[:8], 16))
    low, high = at - OBJECT_ID_LEEWAY, at + OBJECT_ID_LEEWAY
    return rows.filter(object_id=object_id, created_at__gte=low, created_at__lte=high)


class ThreadSummary(NamedTuple):
    """The activity in a thread, for lists."""

    message_count: int = 0
    first_message: Message | None = None
    last_activity: datetime | None = None


def summarize(thread_ids: Iterable[str]) -> dict[str, ThreadSummary]:
    """Return the summaries of those threads that have messages. Three queries."""
    activities: dict[str, Activity] = Message.objects.activity(thread_ids)
    firsts = Message.objects.at((thread_id, activity.first) for thread_id, activity in activities.items())
    lasts = Message.objects.at((thread_id, activity.last) for thread_id, activity in activities.items())
    first_messages = {message.thread_id: message for message in firsts}
    last_activity = dict(lasts.values_list("thread_id", "created_at"))
    return {
        thread_id: ThreadSummary(activity.messages, first_messages.get(thread_id), last_activity.get(thread_id))
        for thread_id, activity in activities.items()
    }


def count_messages(thread_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in those threads that have any. One query."""
    return {thread_id: activity.messages for thread_id, activity in Message.objects.activity(thread_ids).items()}


class Transcript(NamedTuple):
    """A page of a thread's messages, oldest first. `activity` is None if the thread has no messages."""

    messages: list[Message]
    activity: Activity | None

    @property
    def has_earlier(self) -> bool:
        return bool(self.activity and self.messages and self.messages[0].position > self.activity.first)

    @property
    def has_later(self) -> bool:
        return bool(self.activity and self.messages and self.messages[-1].position < self.activity.last)


def transcript(
    thread_id: str, *, start: int | None = None, end: int | None = None, around: int | None = None
) -> Transcript:
    """Return the page that ends at a position, or else starts at one, or else has one near its top. Two queries.

    Returns the whole thread if it fits on one page, and the last page if the position is past the end.
    """
    activity: Activity | None = Message.objects.activity([thread_id]).get(thread_id)
    start = start or (around or 0) - TRANSCRIPT_CONTEXT
    low: int | None = min(max(start, 1), MAX_POSITION) - 1
    if end:
        low, end = None, min(end, MAX_POSITION - 1)
    if activity and activity.messages <= TRANSCRIPT_SIZE:
        low = end = None
    elif activity and (low or 0) >= activity.last:
        low, end = None, activity.last
    messages = Message.objects.visible_in(thread_id).between(
        None if low is None else (low,), (end + 1,) if end else None, descending=bool(end), limit=TRANSCRIPT_SIZE
    )
    if end:
        messages.reverse()
    return Transcript(messages, activity)


# Messages


class MessageFilters(NamedTuple):
    """The messages that meet all of these; empty values do not filter."""

    role: str = ""
    has_files: bool | None = None
    run_id: str = ""
    terms: Terms | None = None


def searchable_messages() -> MessageQuerySet:
    """Return the messages of all tenants that are not deleted, and whose threads are not."""
    messages: MessageQuerySet = Message.objects.filter(deleted_at=None)
    return messages.exclude(thread__in=Thread.objects.leaving())


def messages(filters: MessageFilters, time_range: TimeRange) -> SearchResult:
    """Return messages, newest first. Two queries."""
    rows: MessageByTimeQuerySet = Message.by_time.filter(deleted_at=None)
    if filters.run_id:
        rows = rows.filter(run_id=filters.run_id)
    condition = Q(role=filters.role) if filters.role else Q()
    if filters.has_files is not None:
        condition &= ~Q(attachments=[]) if filters.has_files else Q(attachments=[])
    condition &= ~Q(thread__in=Thread.objects.leaving())
    terms = filters.terms
    if not terms:
        return scan(rows, time_range, condition)
    return scan(rows, time_range, condition & terms.condition, lambda found: list(filter(terms.match, found)))


def lookup_messages(any_id: str) -> list[Message]:
    """Return the messages with this id or `_id`, or else the newest of the thread with it. At most three queries."""
    visible = searchable_messages()
    found = list(with_object_id(visible, any_id)) if OBJECT_ID.fullmatch(any_id) else []
    return (
        found
        or list(visible.filter(id=any_id))
        or list(visible.filter(thread=any_id).order_by("-position")[:PAGE_SIZE])
    )
