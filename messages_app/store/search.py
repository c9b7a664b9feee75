"""Search over all tenants, for the admin: lookups by id, pages in time order, bounded scans.

No index covers words, roles and files across threads. A scan therefore reads the newest SCAN_LIMIT rows and returns the
time that it reached, and the next page continues from there. A page takes about the same time for any number of stored
rows, and a create updates no index of words (docs/decisions/0008-looking.md).
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet

from messages_app.ids import MAX_SECONDS, MIN_SECONDS, OBJECT_ID
from messages_app.models import Message, MessageQuerySet, Thread, ThreadQuerySet
from messages_app.models.base import OrderedQuerySet
from messages_app.store.backend import backend
from messages_app.store.paging import Window, in_window

PAGE_SIZE = 50
# The number of rows that a scan searches, and the maximum number of candidates that it reads.
SCAN_LIMIT = 20_000
CANDIDATE_LIMIT = 200
# A search for metadata queries one tenant after another, up to this number of tenants.
MAX_TENANTS = 20
# The time in a generated `_id` may differ from `created_at` by up to this time.
OBJECT_ID_LEEWAY = timedelta(seconds=60)

TimeCursor = tuple[datetime, str]  # `created_at` and `id`, which sort every list in this module


class SearchResult(NamedTuple):
    """A page of rows, newest first.

    `next_cursor` is the cursor of the next page, or None if there is none. `scanned_until` is the time of the last
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
        """Return the range from the first of these days to the last (UTC), both included."""
        low = midnight(since) if since else None
        high = midnight(until + timedelta(days=1)) if until and until < date.max else None
        return cls(low, high)

    def after(self, cursor: TimeCursor | None) -> "TimeRange":
        """Return the part of the range that follows a cursor in a newest-first list."""
        return self if cursor is None else self._replace(high=min(cursor, self.high or cursor))


def clamped_time(seconds: int) -> datetime:
    """Convert Unix seconds to a datetime, limited to the times that a row can have."""
    return datetime.fromtimestamp(max(MIN_SECONDS, min(seconds, MAX_SECONDS)), tz=UTC)


def midnight(day: date) -> TimeCursor:
    return datetime(day.year, day.month, day.day, tzinfo=UTC), ""


def cursor_of(row: Thread | Message) -> TimeCursor:
    return row.created_at, row.id


def newest(rows: Any, time_range: TimeRange) -> SearchResult:
    """Return the newest rows in a range as a page. One query."""
    return first_page(list(in_window(rows, Window(*time_range, True, PAGE_SIZE + 1))))


def first_page(found: list[Any]) -> SearchResult:
    """Return the first PAGE_SIZE of these rows as a page."""
    page = found[:PAGE_SIZE]
    return SearchResult(page, next_cursor=cursor_of(page[-1]) if len(found) > PAGE_SIZE else None)


def scan(
    rows: OrderedQuerySet[Any],
    time_range: TimeRange,
    condition: Q,
    confirm: Callable[[list[Any]], list[Any]] | None = None,
) -> SearchResult:
    """Search the newest SCAN_LIMIT rows in a range for a condition that no index covers. Two queries.

    `rows` must be a query that uses an index. `confirm` removes candidates that meet `condition` but do not match.
    """
    limit = CANDIDATE_LIMIT if confirm else PAGE_SIZE + 1
    in_order = in_window(rows.values_list(*rows.order), Window(*time_range, True, SCAN_LIMIT + 1))
    edge = list(in_order[SCAN_LIMIT - 1 :])
    last, beyond = (edge[0], edge[1]) if len(edge) == 2 else (None, time_range.low)
    candidates = list(in_window(rows.filter(condition), Window(beyond, time_range.high, True, limit)))
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
    """Search terms: words and phrases. A message matches if its text contains all of them, ignoring case."""

    words: list[str]

    @classmethod
    def parse(cls, text: str) -> "Terms":
        """Return the terms of a query.

        Text "in quotes" is one term. All terms after the first MAX_TERMS are ignored.
        """
        return cls([phrase or word for phrase, word in _TERM.findall(text)][:MAX_TERMS])

    @property
    def condition(self) -> Q:
        """A condition that every match meets. Other rows may also meet it, because SQL searches the JSON syntax too."""
        condition = Q()
        for word in self.words:
            condition &= backend().contains(word)
        return condition

    def match(self, message: Message) -> bool:
        text = message.text.casefold()
        return all(word.casefold() in text for word in self.words)

    def first_match_in(self, text: str) -> int:
        """Return the index of the first term in a text, or 0 if the text contains no term."""
        indexes = [index for word in self.words if (index := text.casefold().find(word.casefold())) >= 0]
        return min(indexes, default=0)


# Metadata in queries: key=value. A key in quotes is a JSON string.

_PAIR = re.compile(r'("(?:[^"\\]|\\.)*"|[^="][^=]*)=(.*)', re.DOTALL)
_PAIR_OR_WORDS = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s="]+)=(.*)', re.DOTALL)


def parse_pair(text: str, or_words: bool = False) -> dict[str, str]:
    """Return the pair in `key=value` or `"key"=value`, or an empty dict if the query is not a pair.

    With `or_words`, the query may also be search words, so an unquoted key cannot contain a space.
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
    """Return the query for which `parse_pair` returns this pair."""
    return f"{json_string(key) if not key or '=' in key or key.startswith(chr(34)) else key}={value}"


def json_string(text: str) -> str:
    """Return a string as JSON, with the same escapes as the stored JSON."""
    return json.dumps(text, ensure_ascii=False)


# Threads


class ThreadFilters(NamedTuple):
    """The filters of a search for threads. A thread must meet all of them. Empty values do not filter."""

    tenant: str = ""
    metadata: Mapping[str, str] = {}
    terms: Terms | None = None  # search terms for the messages in the threads


def searchable_threads() -> ThreadQuerySet:
    """Return the threads of all tenants that are not deleted."""
    return Thread.objects.visible(None)


def threads(filters: ThreadFilters, time_range: TimeRange) -> SearchResult:
    """Return threads, newest first.

    With search terms, the range and the order apply to the newest matching message of each thread.
    """
    if filters.terms:
        return _threads_by_terms(filters, filters.terms, time_range)
    if filters.metadata:
        return _threads_by_metadata(filters, time_range)
    return newest(Thread.objects.visible(filters.tenant or None), time_range)


def first_tenants(at_most: int) -> list[str]:
    """Return the names of the first `at_most` tenants that have threads, sorted by name.

    One query for each tenant, plus one. Each query reads one row.
    """
    found: list[str] = []
    tenants = searchable_threads().order_by("tenant").values_list("tenant", flat=True)
    while len(found) < at_most:
        tenant = (tenants.filter(tenant__gt=found[-1]) if found else tenants).first()
        if tenant is None:
            break
        found.append(tenant)
    return found


def _threads_by_metadata(filters: ThreadFilters, time_range: TimeRange) -> SearchResult:
    tenants = [filters.tenant] if filters.tenant else first_tenants(MAX_TENANTS + 1)
    found: list[Thread] = []
    for tenant in tenants[:MAX_TENANTS]:
        found += backend().threads_with(tenant, filters.metadata, Window(*time_range, True, PAGE_SIZE + 1))
    if len(tenants) == 1:
        return first_page(found)
    # Let the database sort the threads. The next page depends on the database's order of ids, which may differ from
    # Python's.
    merged = Thread.objects.filter(id__in=[thread.id for thread in found])
    return newest(merged, TimeRange())._replace(all_tenants=len(tenants) <= MAX_TENANTS)


def _threads_by_terms(filters: ThreadFilters, terms: Terms, time_range: TimeRange) -> SearchResult:
    """Return threads in the order of their newest matching messages. Three queries.

    Sets each thread's `match` to that message.
    """
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
    """Return the thread with this id or `_id`, or else the thread of the message with this id. At most four queries."""
    visible = searchable_threads()
    found = list(with_object_id(visible, any_id)) if OBJECT_ID.fullmatch(any_id) else []
    found = found or list(visible.named(id=any_id))
    if not found:
        message = Message.objects.named(id=any_id).filter(deleted_at=None).only("thread_id").first()
        found = list(visible.filter(id=message.thread_id)) if message else []
    return found


def with_object_id(rows: QuerySet[Any], object_id: str) -> QuerySet[Any]:
    """Return the rows with this `_id`.

    The `_id` has no index, but it contains the creation time, which is indexed.
    """
    at = clamped_time(int(object_id[:8], 16))
    low, high = at - OBJECT_ID_LEEWAY, at + OBJECT_ID_LEEWAY
    return rows.filter(object_id=object_id, created_at__gte=low, created_at__lte=high)


# Messages


class MessageFilters(NamedTuple):
    """The filters of a search for messages. A message must meet all of them. Empty values do not filter."""

    role: str = ""
    has_files: bool | None = None
    run_id: str = ""
    terms: Terms | None = None


def searchable_messages() -> MessageQuerySet:
    """Return the messages of all tenants, except deleted messages and messages of deleted threads."""
    messages: MessageQuerySet = Message.objects.filter(deleted_at=None)
    return messages.exclude(thread__in=Thread.objects.being_deleted())


def messages(filters: MessageFilters, time_range: TimeRange) -> SearchResult:
    """Return messages, newest first. Two queries."""
    rows = Message.by_time.filter(deleted_at=None)
    if filters.run_id:
        rows = rows.filter(run_id=filters.run_id)
    condition = Q(role=filters.role) if filters.role else Q()
    if filters.has_files is not None:
        condition &= ~Q(attachments=[]) if filters.has_files else Q(attachments=[])
    condition &= ~Q(thread__in=Thread.objects.being_deleted())
    terms = filters.terms
    if not terms:
        return scan(rows, time_range, condition)
    return scan(rows, time_range, condition & terms.condition, lambda found: list(filter(terms.match, found)))


def lookup_messages(any_id: str) -> list[Message]:
    """Return the messages with this id or `_id`, or else the newest messages of the thread with this id.

    At most three queries.
    """
    visible = searchable_messages()
    found = list(with_object_id(visible, any_id)) if OBJECT_ID.fullmatch(any_id) else []
    return (
        found
        or list(visible.filter(id=any_id))
        or list(visible.filter(thread=any_id).order_by("-position")[:PAGE_SIZE])
    )
