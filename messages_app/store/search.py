"""Looking for threads and messages over all tenants: pages in the order of time, and bounded looks for what no index
answers (words, roles, files).

A look goes through so many of the newest rows and no further, and says how far it came; whoever wants to, goes on from
there. So every page costs about the same, however many rows there are, and a create keeps up no index of words
(docs/decisions/0008-looking.md).
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Q, QuerySet

from messages_app.ids import MAX_SECONDS, MIN_SECONDS, OBJECT_ID
from messages_app.models import Message, Thread
from messages_app.models.base import RowQuerySet
from messages_app.models.thread import Activity, MessageByTimeQuerySet
from messages_app.store.engine import stores_documents

SHOWN = 50
# How many rows one look goes through, and how many of them it reads because they may be what is looked for.
LOOKED_THROUGH = 20_000
CANDIDATES = 200
# Pairs of metadata are found for one tenant at a time.
MAX_TENANTS = 20
# What a made `_id` tells of the time may differ by this much from the time that is stored.
OBJECT_ID_LEEWAY = timedelta(seconds=60)

Place = tuple[datetime, str]


class Found(NamedTuple):
    """A page of rows. `resume` is the place to go on after, None where there is no more; `looked_until` is the time of
    the last row that was looked at, where a look ended before the page was full. `all_tenants` is False where there are
    more tenants than were asked."""

    rows: list[Any]
    resume: Place | None = None
    looked_until: datetime | None = None
    all_tenants: bool = True


class Range(NamedTuple):
    """The rows between two places, neither of which is meant; None: no bound."""

    low: Place | None = None
    high: Place | None = None

    @classmethod
    def of_days(cls, since: date | None, until: date | None) -> "Range":
        """What was made on these days (UTC), the last one included."""
        low = start_of(since) if since else None
        high = start_of(until + timedelta(days=1)) if until and until < date.max else None
        return cls(low, high)

    def after(self, place: Place | None) -> "Range":
        """What is left of it after a place, newest first."""
        return self if place is None else self._replace(high=min(place, self.high or place))


def moment(seconds: int) -> datetime:
    """Unix seconds as a time; the first or the last one that there is where they are too many."""
    return datetime.fromtimestamp(max(MIN_SECONDS, min(seconds, MAX_SECONDS)), tz=UTC)


def start_of(day: date) -> Place:
    return datetime(day.year, day.month, day.day, tzinfo=UTC), ""


def place_of(row: Thread | Message) -> Place:
    return row.created_at, row.id


def first_page(rows: Any, within: Range) -> Found:
    """The newest rows within a range. One query."""
    found = rows.between(*within, descending=True, limit=SHOWN + 1)
    shown = found[:SHOWN]
    return Found(shown, resume=place_of(shown[-1]) if len(found) > SHOWN else None)


def look(
    rows: RowQuerySet[Any], within: Range, condition: Q, sift: Callable[[list[Any]], list[Any]] | None = None
) -> Found:
    """Those of the newest rows within a range that meet a condition no index answers. Two queries.

    `rows` is what an index answers; `sift` takes out of rows that meet `condition` those that are really meant.
    """
    limit = CANDIDATES if sift else SHOWN + 1
    newest = rows.window(*within, descending=True).values_list(*rows.place)
    edge = list(newest[LOOKED_THROUGH - 1 : LOOKED_THROUGH + 1])
    last, beyond = (edge[0], edge[1]) if len(edge) == 2 else (None, within.low)
    candidates = rows.filter(condition).between(beyond, within.high, descending=True, limit=limit)
    meant = sift(candidates) if sift else candidates
    if len(meant) > SHOWN:
        return Found(meant[:SHOWN], resume=place_of(meant[SHOWN - 1]))
    if len(candidates) == limit:
        last = place_of(candidates[-1])
    return Found(meant, resume=last, looked_until=last and last[0])


# What is asked for

# A key in quotes is one of JSON.
_PAIR = re.compile(r'("(?:[^"\\]|\\.)*"|[^="][^=]*)=(.*)', re.DOTALL)
_PAIR_IN_WORDS = re.compile(r'("(?:[^"\\]|\\.)*"|[^\s="]+)=(.*)', re.DOTALL)
_WORD = re.compile(r'["“”]([^"“”]+)["“”]?|(\S+)')
MAX_WORDS = 10


class Words(NamedTuple):
    """What messages are looked for by: each of these is somewhere in the text, in whatever case.

    SQLite knows only the cases of ASCII: other words are found there as they are given, in lower case, in upper case
    and with a first letter in upper case.
    """

    words: list[str]

    @classmethod
    def of(cls, text: str) -> "Words":
        """The words of a text; those "in quotes" are one."""
        return cls([quoted or word for quoted, word in _WORD.findall(text)][:MAX_WORDS])

    @property
    def condition(self) -> Q:
        """What the rows meet that have them; so may others, since SQL looks into the text of the JSON."""
        connection: Any = connections[Message.objects.db]
        together = Q()
        for word in self.words:
            if stores_documents(connection):
                together &= Q(content__text__value__icontains=word)
                continue
            knows_case = word.isascii() or connection.features.folds_unicode_case
            spelled = Q()
            for spelling in [word] if knows_case else [word, word.lower(), word.upper(), word.capitalize()]:
                spelled |= Q(content__icontains=quoted(spelling)[1:-1])
            together &= spelled
        return together

    def first_in(self, text: str) -> int:
        """Where the first of them stands that is there; 0 where none is."""
        found = [at for word in self.words if (at := text.casefold().find(word.casefold())) >= 0]
        return min(found, default=0)

    def are_in(self, message: Message) -> bool:
        text = message.text.casefold()
        return all(word.casefold() in text for word in self.words)


def quoted(text: str) -> str:
    """As JSON has it, and as it is stored."""
    return json.dumps(text, ensure_ascii=False)


def pair_in(text: str, in_words: bool) -> dict[str, str]:
    """The pair that `key=value` says, or `"key"=value`; none for another text.

    Where words may be meant as well, a key without quotes has no space.
    """
    match = (_PAIR_IN_WORDS if in_words else _PAIR).fullmatch(text)
    if not match:
        return {}
    key = match[1]
    if key.startswith('"'):
        try:
            key = json.loads(key, strict=False)
        except ValueError:
            return {}
    return {key: match[2]}


def pair_as_text(key: str, value: str) -> str:
    """What `pair_in` reads as that pair."""
    return f"{quoted(key) if not key or '=' in key or key.startswith(chr(34)) else key}={value}"


# Threads


def threads_by_id(text: str) -> list[Thread]:
    """The threads that an id names: their own, that of a message in them, an `_id`. Four queries at most."""
    threads = Thread.objects.visible()
    found = list(by_object_id(threads, text)) if OBJECT_ID.fullmatch(text) else []
    found = found or list(threads.named(id=text))
    if not found:
        message = Message.objects.named(id=text).filter(deleted_at=None).only("thread_id").first()
        found = list(threads.filter(id=message.thread_id)) if message else []
    return found


def by_object_id(rows: QuerySet[Any], object_id: str) -> QuerySet[Any]:
    """Rows of that `_id`, which has the time in it."""
    at = moment(int(object_id[:8], 16))
    low, high = at - OBJECT_ID_LEEWAY, at + OBJECT_ID_LEEWAY
    return rows.filter(object_id=object_id, created_at__gte=low, created_at__lte=high)


def threads(within: Range, tenant: str = "", pairs: Mapping[str, str] | None = None) -> Found:
    """Threads, newest first: all, or those of a tenant, or those whose metadata has all of these pairs."""
    if not pairs:
        return first_page(Thread.objects.visible(tenant or None), within)
    tenants = [tenant] if tenant else Thread.objects.tenants(MAX_TENANTS + 1)
    if len(tenants) == 1:
        return first_page(Thread.objects.matching(tenants[0], pairs), within)
    found: list[Thread] = []
    for each in tenants[:MAX_TENANTS]:
        found += Thread.objects.matching(each, pairs).between(*within, descending=True, limit=SHOWN + 1)
    # In the database's own order of ids, in which the next page begins.
    merged = Thread.objects.filter(id__in=[thread.id for thread in found])
    return first_page(merged, Range())._replace(all_tenants=len(tenants) <= MAX_TENANTS)


def threads_with(words: Words, within: Range, tenant: str = "", pairs: Mapping[str, str] | None = None) -> Found:
    """Threads with messages that have these words, those with the newest of them first; each has its `found`, the
    newest such message. The range is the messages'. Three queries."""
    threads: dict[str, Thread] = {}

    def of_threads(candidates: list[Message]) -> list[Message]:
        """The newest message of each thread that is meant."""
        newest: dict[str, Message] = {}
        for message in candidates:
            if message.thread_id not in newest and words.are_in(message):
                newest[message.thread_id] = message
        there = Thread.objects.visible(tenant or None).filter(id__in=list(newest))
        threads.update((thread.id, thread) for thread in there)
        return [
            message
            for thread_id, message in newest.items()
            if thread_id in threads and (pairs or {}).items() <= threads[thread_id].metadata.items()
        ]

    messages = look(Message.by_time.filter(deleted_at=None), within, words.condition, of_threads)
    rows = []
    for message in messages.rows:
        thread: Any = threads[message.thread_id]
        thread.found = message
        rows.append(thread)
    return messages._replace(rows=rows)


class Summary(NamedTuple):
    """What a list tells of a thread: how many messages, the first of them, and when the last was made."""

    messages: int = 0
    first: Message | None = None
    last_at: datetime | None = None


def summaries(thread_ids: Iterable[str]) -> dict[str, Summary]:
    """Of these threads, those that have messages. Three queries."""
    activity: dict[str, Activity] = Message.objects.activity(thread_ids)
    firsts = Message.objects.at((thread_id, there.first) for thread_id, there in activity.items())
    lasts = Message.objects.at((thread_id, there.last) for thread_id, there in activity.items())
    first = {message.thread_id: message for message in firsts}
    last_at = dict(lasts.values_list("thread_id", "created_at"))
    return {
        thread_id: Summary(there.messages, first.get(thread_id), last_at.get(thread_id))
        for thread_id, there in activity.items()
    }


# Messages


def messages_by_id(text: str, rows: QuerySet[Message]) -> list[Message]:
    """Of these messages those that an id names: their own, an `_id`, or that of the thread whose newest they are."""
    found = list(by_object_id(rows, text)) if OBJECT_ID.fullmatch(text) else []
    return found or list(rows.filter(id=text)) or list(rows.filter(thread=text).order_by("-position")[:SHOWN])


def messages(within: Range, run_id: str = "", condition: Q | None = None, words: Words | None = None) -> Found:
    """Messages, newest first: all, or those of a run, that meet a condition and have these words."""
    rows: MessageByTimeQuerySet = Message.by_time.filter(deleted_at=None)
    if run_id:
        rows = rows.filter(run_id=run_id)
    condition = (condition or Q()) & ~Q(thread__in=Thread.objects.leaving())
    if not words:
        return look(rows, within, condition)
    return look(rows, within, condition & words.condition, lambda found: list(filter(words.are_in, found)))
