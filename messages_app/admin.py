"""Browsing for operators. Everything can be looked at and nothing changed: what clients stored is what they get."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DataError, NotSupportedError, connections
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from messages_app.documents import stores_documents
from messages_app.models import NOBODY, Message, Thread

if TYPE_CHECKING:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

SEARCH_WORDS = 20
PREVIEW_CHARACTERS = 100
# A thread's page shows this many messages; the rest are one click away, page by page.
TRANSCRIPT_MESSAGES = 200


def link_to(model: str, key: str, text: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse(f"admin:messages_app_{model}_change", args=[key]), text)


def preview(text: str) -> str:
    return text if len(text) <= PREVIEW_CHARACTERS else f"{text[:PREVIEW_CHARACTERS]}…"


def utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


class LookOnly(ModelAdmin):
    class Media:
        css = {"all": ["messages_app/admin.css"]}

    show_full_result_count = False
    list_per_page = 50
    # Where words are in a document; in SQL they are looked for in its text.
    paths: ClassVar[dict[str, str]] = {}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.filter(deleted_at=None)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        # A date that no calendar has, a text with U+0000, a comparison that the engine cannot make.
        except (OverflowError, ValueError, DataError, NotSupportedError):
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        in_documents = stores_documents(connections[self.model._default_manager.db])
        return [self.paths.get(name, name) if in_documents else name for name in self.search_fields]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        words = " ".join(search_term.split()[:SEARCH_WORDS])  # each word is a condition, and SQLite takes a thousand
        return super().get_search_results(request, queryset, words)

    @admin.display(description="created (UTC)", ordering="id")  # ids sort by time, and have an index
    def created(self, row: Thread | Message) -> str:
        return utc(row.created_at)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Thread)
class ThreadAdmin(LookOnly):
    list_display = ["id", "created", "tenant", "metadata_preview"]
    list_filter = ["created_at"]
    search_fields = ["id", "^object_id", "metadata"]
    search_help_text = "Part of an id, or of metadata"
    fields = ["id", "object_id", "tenant", "created", "metadata", "transcript"]

    @admin.display(description="metadata")
    def metadata_preview(self, thread: Thread) -> str:
        return preview(", ".join(f"{key}: {value}" for key, value in thread.metadata.items())) or "-"

    @admin.display(description="messages")
    def transcript(self, thread: Thread) -> SafeString:
        """The newest messages of the thread, oldest first. One query."""
        newest = thread.messages.filter(deleted_at=None).order_by("-position")[: TRANSCRIPT_MESSAGES + 1]
        messages = list(newest)[:TRANSCRIPT_MESSAGES][::-1]
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (
                    message.position,
                    utc(message.created_at),
                    message.role,
                    message.text,
                    link_to("message", message.id, "open"),
                )
                for message in messages
            ),
        )
        table = format_html(
            '<table class="transcript"><thead><tr><th>#</th><th>UTC</th><th>Role</th><th>Text</th><th></th></tr>'
            "</thead>{}</table>",
            rows,
        )
        if len(newest) <= TRANSCRIPT_MESSAGES:
            return table
        every = f"{reverse('admin:messages_app_message_changelist')}?thread__id__exact={thread.id}"
        return format_html(
            '<p>The newest {} messages; <a href="{}">all of them</a></p>{}', TRANSCRIPT_MESSAGES, every, table
        )


@admin.register(Message)
class MessageAdmin(LookOnly):
    list_display = ["id", "created", "role", "text_preview", "thread_link"]
    list_filter = ["role", "created_at"]
    search_fields = ["id", "^object_id", "thread__id", "content"]
    paths: ClassVar = {"content": "content__text__value"}
    search_help_text = "Part of an id, or of the text"
    fields = [
        "id",
        "object_id",
        "thread_link",
        "position",
        "created",
        "role",
        "whole_text",
        "attachments",
        "metadata",
        "assistant_id",
        "run_id",
        "content",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Few: they are emptied soon.
        deleted = Thread.objects.filter(deleted_at__isnull=False).exclude(tenant=NOBODY)
        return super().get_queryset(request).exclude(thread__in=deleted)

    @admin.display(description="text")
    def text_preview(self, message: Message) -> str:
        return preview(message.text)

    @admin.display(description="text")
    def whole_text(self, message: Message) -> SafeString:
        return format_html('<div class="message-text">{}</div>', message.text)

    @admin.display(description="thread", ordering="thread_id")
    def thread_link(self, message: Message) -> SafeString:
        return link_to("thread", message.thread_id, message.thread_id)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "thread__id__exact" or super().lookup_allowed(lookup, value, request)
