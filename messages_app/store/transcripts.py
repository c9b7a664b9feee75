"""Threads for operators: summaries for lists, and pages of transcripts."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, Max, Min, Q

from messages_app.models import Message, MessageQuerySet
from messages_app.store.paging import Window, in_window

# The number of messages on a transcript page, and how many of them precede the message that a link points to.
TRANSCRIPT_SIZE = 50
TRANSCRIPT_CONTEXT = 5
MAX_POSITION = 2**63 - 1


class Activity(NamedTuple):
    """The number of visible messages in a thread, and the positions of the first and last of them."""

    messages: int
    first: int
    last: int


def activity_in(thread_ids: Iterable[str]) -> dict[str, Activity]:
    """Return the activity of each thread that has visible messages. One query, which reads only an index."""
    visible = Message.objects.filter(thread__in=thread_ids, deleted_at=None).order_by()
    rows = visible.values_list("thread").annotate(Count("position"), Min("position"), Max("position"))
    return {thread_id: Activity(*numbers) for thread_id, *numbers in rows}


def at_positions(positions: Iterable[tuple[str, int]]) -> MessageQuerySet:
    """Return the messages at these pairs of thread id and position."""
    either = Q()
    for thread_id, position in positions:
        either |= Q(thread=thread_id, position=position)
    return Message.objects.filter(either) if either else Message.objects.none()


class ThreadSummary(NamedTuple):
    """A thread's number of messages, first message and last activity, for lists."""

    message_count: int = 0
    first_message: Message | None = None
    last_activity: datetime | None = None


def summarize(thread_ids: Iterable[str]) -> dict[str, ThreadSummary]:
    """Return the summary of each thread that has visible messages. Three queries."""
    activities = activity_in(thread_ids)
    firsts = at_positions((thread_id, activity.first) for thread_id, activity in activities.items())
    lasts = at_positions((thread_id, activity.last) for thread_id, activity in activities.items())
    first_messages = {message.thread_id: message for message in firsts}
    last_activity = dict(lasts.values_list("thread_id", "created_at"))
    return {
        thread_id: ThreadSummary(activity.messages, first_messages.get(thread_id), last_activity.get(thread_id))
        for thread_id, activity in activities.items()
    }


def count_messages(thread_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of visible messages of each thread that has any. One query."""
    return {thread_id: activity.messages for thread_id, activity in activity_in(thread_ids).items()}


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
    """Return the page that ends at position `end`, starts at `start`, or has position `around` near its top.

    Two queries.

    Returns the whole thread if it fits on one page. Returns the last page if the position is past the end.
    """
    activity = activity_in([thread_id]).get(thread_id)
    start = start or (around or 0) - TRANSCRIPT_CONTEXT
    low: int | None = min(max(start, 1), MAX_POSITION) - 1
    if end:
        low, end = None, min(end, MAX_POSITION - 1)
    if activity and activity.messages <= TRANSCRIPT_SIZE:
        low = end = None
    elif activity and (low or 0) >= activity.last:
        low, end = None, activity.last
    window = Window(None if low is None else (low,), (end + 1,) if end else None, bool(end), TRANSCRIPT_SIZE)
    messages = list(in_window(Message.objects.visible_in(thread_id), window))
    if end:
        messages.reverse()
    return Transcript(messages, activity)
