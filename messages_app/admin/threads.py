"""Threads in the admin: search, transcript, export and delete."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.defaultfilters import pluralize
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from messages_app.admin import base
from messages_app.admin.search import SCAN_HELP, ThreadSearchForm, describe
from messages_app.models import Thread
from messages_app.store import search, threads, transcripts
from messages_app.store.search import SearchResult, ThreadFilters
from messages_app.store.transcripts import ThreadSummary, Transcript
from messages_app.transfer import export_lines


@admin.register(Thread)
class ThreadAdmin(base.ReadOnlyModelAdmin):
    search_form = ThreadSearchForm
    list_display = ("id", "created", "message_count", "last_activity", "first_words", "metadata_pairs", "tenant")
    actions = ("export",)
    search_help = (
        "Enter the id (or _id) of a thread, the id of a message, a metadata pair (key=value), or words in messages. "
        f"Put a phrase in “quotes”. {SCAN_HELP}"
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return search.searchable_threads()

    def search(self, request: HttpRequest, form: Any) -> tuple[SearchResult, str]:
        can_read = base.has_permissions(request, "view_message")
        result, subject = self.find(form, can_read)
        summaries = transcripts.summarize([thread.id for thread in result.rows]) if can_read else {}
        for thread in result.rows:
            thread.summary = summaries.get(thread.id, ThreadSummary())
        return result, describe(result, subject)

    def find(self, form: Any, can_read: bool) -> tuple[SearchResult, str]:
        data = form.cleaned_data
        text, tenant, metadata = data["q"], data["tenant"], data["metadata"]
        if text and not data["after"] and (by_id := search.lookup_threads(text)):
            return SearchResult(by_id), "The thread with this id"
        pair = search.parse_pair(text, or_words=True)
        terms = None if pair else form.terms
        filters = ThreadFilters(tenant, {**metadata, **pair}, terms)
        pairs = " and ".join(f"{key} = {value}" for key, value in [*metadata.items(), *pair.items()])
        if not metadata.items() <= filters.metadata.items():
            return SearchResult([]), f"No thread can have both {pairs} in its metadata"
        if terms and not can_read:
            return SearchResult([]), "No thread has this id, and you do not have permission to search messages"
        subject = "Threads" + (f" of tenant {tenant}" if tenant else "") + (f" with metadata {pairs}" if pairs else "")
        if terms:
            from_dates = " from these dates" if data["since"] or data["until"] else ""
            subject += f" whose messages{from_dates} contain “{text}”, newest match first"
        else:
            subject += ", newest first"
        result = search.threads(filters, form.time_range)
        for thread in result.rows if terms else []:
            thread.match.terms = terms
        if not result.all_tenants:
            subject += f". Only the first {search.MAX_TENANTS} tenants were searched; enter a tenant to search others"
        return result, subject

    @admin.display(description="messages")
    def message_count(self, thread: Any) -> str:
        count = thread.summary.message_count
        return f"{count:,}" if count else base.EMPTY

    @admin.display(description="last activity (UTC)")
    def last_activity(self, thread: Any) -> str:
        last = thread.summary.last_activity
        return base.format_time(last) if last else base.EMPTY

    @admin.display(description="first words")
    def first_words(self, thread: Any) -> str:
        """Return the start of the first message and, below it, the message that matches the search.

        If both are the same message, it is shown once.
        """
        first, match = thread.summary.first_message, getattr(thread, "match", None)
        hit = base.preview(match.text, match.terms) if match else ""
        if match and first and match.id == first.id:
            return hit
        words = base.preview(first.text) if first else base.EMPTY
        if not match:
            return words
        html, url = '{}<a class="hit" href="{}">#{} <b>{}</b> {}</a>', base.transcript_url(match)
        return format_html(html, words, url, match.position, match.role, hit)

    @admin.display(description="metadata")
    def metadata_pairs(self, thread: Thread) -> str:
        return metadata_links(thread, show=base.preview) or base.EMPTY

    # Thread page

    def page_context(self, request: HttpRequest, row: Thread) -> dict[str, Any]:
        """Return the metadata pairs and, if the user may view messages, one page of the transcript.

        The query string selects a position: the page starts at `from`, ends at `upto`, or has `at` near its top.
        """
        pairs = metadata_links(row)
        if not base.has_permissions(request, "view_message"):
            return {"can_read": False, "pairs": pairs}
        start, end, around = (position_in(request, name) for name in ("from", "upto", "at"))
        transcript = transcripts.transcript(row.id, start=start, end=end, around=around)
        return {
            "can_read": True,
            "pairs": pairs,
            "transcript": transcript,
            "pages": transcript_pages(transcript),
            "export_url": base.admin_url("thread_export", row.id),
        }

    # Export

    def has_export_permission(self, request: HttpRequest) -> bool:
        return base.has_permissions(request, "view_thread", "view_message")

    @admin.action(description="Export selected threads", permissions=["export"])
    def export(self, request: HttpRequest, queryset: QuerySet[Thread]) -> StreamingHttpResponse:
        return export_response(sorted(queryset, key=search.cursor_of))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.export_one)
        return [path("<path:object_id>/export/", view, name="messages_app_thread_export"), *super().get_urls()]

    def export_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        thread = self.readable_object(request, object_id)
        if not self.has_export_permission(request):
            raise PermissionDenied
        if thread is None:
            return self.redirect_missing(request, object_id)
        return export_response([thread])

    # Delete

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        selected = list(objs)
        counts = transcripts.count_messages([thread.id for thread in selected])
        numbers = [counts.get(thread.id, 0) for thread in selected]
        lines = [f"Thread {row.id} with {n:,} message{pluralize(n)}" for row, n in zip(selected, numbers, strict=True)]
        totals = {"threads": len(selected), "messages": sum(counts.values())}
        can_delete = base.has_permissions(request, "delete_thread", "delete_message")
        return lines, totals, set() if can_delete else {"thread with its messages"}, []

    def delete_row(self, row: Thread) -> None:
        threads.delete(None, row.id)


def metadata_links(thread: Thread, show: Callable[[str], str] = str) -> SafeString:
    """Return a thread's metadata pairs. Each pair is a link to the list of threads that have it."""
    list_url = base.admin_url("thread_changelist")
    pairs = (
        (f"{list_url}?{urlencode({'metadata': search.format_pair(key, value)})}", key, show(value))
        for key, value in thread.metadata.items()
    )
    return format_html_join(" ", '<a class="pair" href="{}"><b>{}</b> {}</a>', pairs)


def position_in(request: HttpRequest, name: str) -> int | None:
    """Return the position in this query parameter, or None if the parameter is missing or not valid."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def transcript_pages(transcript: Transcript) -> list[tuple[str, str | None]]:
    """Return the names and URLs of the links between transcript pages. The URL is None for a link that is disabled."""
    if not (transcript.has_earlier or transcript.has_later) or transcript.activity is None:
        return []
    first, last = transcript.messages[0].position, transcript.messages[-1].position
    return [
        ("First", "?" if transcript.has_earlier else None),
        ("Earlier", f"?upto={first - 1}" if transcript.has_earlier else None),
        ("Later", f"?from={last + 1}" if transcript.has_later else None),
        ("Last", f"?upto={transcript.activity.last}" if transcript.has_later else None),
    ]


def export_response(threads: Iterable[Thread]) -> StreamingHttpResponse:
    """Return the threads as a JSON Lines file. The response is streamed while the threads are read."""
    name = f"threads-{timezone.now():%Y%m%d-%H%M%S}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(
        export_lines(threads), content_type="application/jsonl; charset=utf-8", headers=headers
    )
