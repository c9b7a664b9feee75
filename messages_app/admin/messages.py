"""Messages in the admin: search, page, JSON and delete."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from messages_app.admin.base import EMPTY, ReadOnlyModelAdmin, has_permissions, preview, transcript_url
from messages_app.admin.search import SCAN_HELP, MessageSearchForm, describe
from messages_app.api.assistants.shapes import DEFAULT, V2
from messages_app.models import Message
from messages_app.store import messages, search
from messages_app.store.search import MessageFilters, SearchResult


@admin.register(Message)
class MessageAdmin(ReadOnlyModelAdmin):
    search_form = MessageSearchForm
    list_display = ("id", "created", "wire_role", "text_preview", "file_count", "thread_link")
    search_help = (
        "Enter the id (or _id) of a message, the id of a thread, or words in messages. "
        f"Put a phrase in “quotes”. {SCAN_HELP}"
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return search.searchable_messages()

    def search(self, request: HttpRequest, form: Any) -> tuple[SearchResult, str]:
        data, text = form.cleaned_data, form.cleaned_data["q"]
        if text and not data["after"] and (by_id := search.lookup_messages(text)):
            is_thread = by_id[0].thread_id == text
            newest = f"The newest messages of this thread (at most {search.PAGE_SIZE})."
            return SearchResult(by_id), newest if is_thread else "The message with this id."
        filters = MessageFilters(data["role"], data["has_files"], data["run_id"], form.terms)
        result = search.messages(filters, form.time_range)
        for message in result.rows:
            message.terms = filters.terms
        subject = "Messages"
        subject += f" with role {filters.role}" if filters.role else ""
        subject += {True: " with files", False: " without files", None: ""}[filters.has_files]
        subject += f" of run {filters.run_id}" if filters.run_id else ""
        subject += f" that contain “{text}”" if text else ""
        return result, describe(result, f"{subject}, newest first")

    @admin.display(description="role")
    def wire_role(self, message: Message) -> str:
        return message.role  # for the column `role`, Django would show a label such as "Tool Call"

    @admin.display(description="text")
    def text_preview(self, message: Message) -> str:
        return preview(message.text, getattr(message, "terms", None)) or EMPTY

    @admin.display(description="files")
    def file_count(self, message: Message) -> str:
        return str(len(message.attachments) or EMPTY)

    @admin.display(description="thread")
    def thread_link(self, message: Message) -> SafeString:
        return format_html('<a href="{}">{}</a>', transcript_url(message), message.thread_id)

    def page_context(self, request: HttpRequest, row: Message) -> dict[str, Any]:
        return {"message": row, "transcript_url": transcript_url(row)}

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.json)
        return [path("<path:object_id>/json/", view, name="messages_app_message_json"), *super().get_urls()]

    def json(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return a message in the JSON form of the API. `?shape=v2` selects the shape of Assistants v2."""
        message = self.readable_object(request, object_id)
        if message is None:
            return self.redirect_missing(request, object_id)
        shape = V2 if request.GET.get("shape") == "v2" else DEFAULT
        return JsonResponse(shape.message.shown(message), json_dumps_params={"indent": 2, "ensure_ascii": False})

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        can_read = has_permissions(request, "view_message")
        lines = [f"Message {message.id}" + (f": {preview(message.text)}" if can_read else "") for message in objs]
        can_delete = has_permissions(request, "delete_message")
        return lines, {"messages": len(lines)}, set() if can_delete else {"message"}, []

    def delete_row(self, row: Message) -> None:
        messages.erase(row.thread_id, row.id)
