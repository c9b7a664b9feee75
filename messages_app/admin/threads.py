"""Browsing for operators: looking for threads and messages, reading, exporting and deleting them.

Nothing can be changed: what clients stored is what they get. Deleting is the API's delete.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from messages_app.admin.search import LookForm, LookList, MessageLookForm, PageActionForm, ThreadLookForm, told_of
from messages_app.api.assistants.serializers import DEFAULT, V2
from messages_app.models import Message, Thread
from messages_app.store import search as browsing
from messages_app.store.deletion import wake_purger
from messages_app.store.search import SHOWN, Found, Summary, Words
from messages_app.transfer import export_lines

if TYPE_CHECKING:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

PREVIEW_CHARACTERS = 100
# Messages on one page of a transcript, and how many stand before the one that it was opened at.
TRANSCRIPT_MESSAGES = 50
CONTEXT_MESSAGES = 5
MAX_POSITION = 2**63 - 1
NONE = "-"  # what stands where there is nothing


def admin_url(name: str, *keys: str) -> str:
    return reverse(f"admin:messages_app_{name}", args=[quote(key) for key in keys])


def transcript_at(message: Message) -> str:
    """The page of a thread's transcript that has this message."""
    return f"{admin_url('thread_change', message.thread_id)}?{urlencode({'at': message.position})}#{message.id}"


def preview(text: str, words: Words | None = None) -> str:
    """The beginning of a text, in one line; or what stands around the first of the words that were looked for."""
    at = words.first_in(text) if words else 0
    start = at - PREVIEW_CHARACTERS // 2 if at > PREVIEW_CHARACTERS // 2 else 0
    end = start + PREVIEW_CHARACTERS
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if end < len(text) else "")


def number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class BrowsingAdmin(ModelAdmin):
    class Media:
        css = {"all": ["messages_app/admin.css"]}

    look_form: ClassVar[type[LookForm]]
    change_list_template = "admin/messages_app/change_list.html"
    action_form = PageActionForm
    sortable_by = ()
    list_select_related = False

    def find(self, request: HttpRequest, form: Any) -> tuple[Found, str]:
        """The rows that a form asks for, and a sentence that says what they are."""
        raise NotImplementedError

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[LookList]:
        return LookList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.filter(deleted_at=None)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)  # an empty `_to_field` names no field

    def there(self, request: HttpRequest, object_id: str) -> Any:
        """The row of that id, as it stands in an address; None where there is none. Raises PermissionDenied."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return row

    def not_there(self, request: HttpRequest, object_id: str) -> HttpResponse:
        answer: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, unquote(object_id))  # type: ignore[attr-defined]
        return answer

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of a row, to be read."""
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        row = self.there(request, object_id)
        if row is None:
            return self.not_there(request, object_id)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "original": row,
            "title": str(self.opts.verbose_name).capitalize(),
            "subtitle": row.id,
            "delete_url": admin_url(f"{self.opts.model_name}_delete", row.id)
            if self.has_delete_permission(request, row)
            else None,
            **self.page_of(request, row),
        }
        template = f"admin/messages_app/{self.opts.model_name}/page.html"
        return TemplateResponse(request, template, context)

    def page_of(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        raise NotImplementedError

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_rows([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.delete_rows(queryset)

    def delete_rows(self, rows: Iterable[Any]) -> None:
        raise NotImplementedError

    @admin.display(description="created (UTC)")
    def created(self, row: Thread | Message) -> SafeString:
        return time_of(row.created_at)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may(request, f"view_{self.opts.model_name}")  # who may change may not look for that: nothing changes

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def time_of(at: Any) -> SafeString:
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}")


def may(request: HttpRequest, *permissions: str) -> bool:
    return request.user.has_perms([f"messages_app.{permission}" for permission in permissions])


@admin.register(Thread)
class ThreadAdmin(BrowsingAdmin):
    look_form = ThreadLookForm
    list_display = ("id", "created", "number_of_messages", "last_activity", "first_words", "pairs", "tenant")
    actions = ("export",)
    search_help = (
        "An id (of a thread or a message, or an _id), key=value of the metadata, or words in messages (“in quotes”: "
        "as one)."
    )

    def find(self, request: HttpRequest, form: Any) -> tuple[Found, str]:
        asked, text = form.cleaned_data, form.cleaned_data["q"]
        reads = may(request, "view_message")
        by_id = browsing.threads_by_id(text) if text and not asked["after"] else []
        if by_id:
            found, what = Found(by_id), "The thread of that id"
        else:
            pair = browsing.pair_in(text, in_words=True)
            pairs = {**asked["metadata"], **pair}
            with_pairs = " and ".join(f"{key} = {value}" for key, value in [*asked["metadata"].items(), *pair.items()])
            where = f" of tenant {asked['tenant']}" if asked["tenant"] else ""
            where += f" whose metadata has {with_pairs}" if pairs else ""
            of_days = " of these days" if asked["since"] or asked["until"] else ""
            if any(pairs[key] != value for key, value in asked["metadata"].items()):
                found, what = Found([]), f"No thread can be one{where}"
            elif text and not pair and not reads:
                found, what = Found([]), "No thread has that id, and you may not look into messages"
            elif text and not pair:
                words = Words.of(text)
                found = browsing.threads_with(words, form.range, asked["tenant"], pairs)
                for thread in found.rows:
                    thread.looked_for = words
                what = f"Threads{where} with messages{of_days} that contain “{text}”, newest message first"
            else:
                found = browsing.threads(form.range, asked["tenant"], pairs)
                what = f"Threads{where}, newest first"
        summaries = browsing.summaries([thread.id for thread in found.rows]) if reads else {}
        for thread in found.rows:
            thread.summary = summaries.get(thread.id, Summary())
        if not found.all_tenants:
            what += f", of the first {browsing.MAX_TENANTS} tenants: name a tenant to look among those of another"
        return found, told_of(found, what)

    @admin.display(description="messages")
    def number_of_messages(self, thread: Any) -> str:
        return f"{thread.summary.messages:,}" if thread.summary.messages else NONE

    @admin.display(description="last activity (UTC)")
    def last_activity(self, thread: Any) -> str:
        return time_of(thread.summary.last_at) if thread.summary.last_at else NONE

    @admin.display(description="first words")
    def first_words(self, thread: Any) -> str:
        first = thread.summary.first
        found: Message | None = getattr(thread, "found", None)
        if found and first and found.id == first.id:
            return preview(first.text, thread.looked_for)
        words = preview(first.text) if first else NONE
        if not found:
            return words
        return format_html(
            '{}<a class="hit" href="{}">{} <b>{}</b> {}</a>',
            words,
            transcript_at(found),
            f"#{found.position}",
            found.role,
            preview(found.text, thread.looked_for),
        )

    @admin.display(description="metadata")
    def pairs(self, thread: Thread) -> str:
        return links_of_pairs(thread, shown=preview) or NONE

    # A thread's page

    def page_of(self, request: HttpRequest, row: Thread) -> dict[str, Any]:
        """The messages from a position on (`from`), up to one (`upto`), or around one (`at`)."""
        if not may(request, "view_message"):
            return {"may_read": False, "pairs": links_of_pairs(row)}
        there = Message.objects.activity([row.id]).get(row.id)
        visible = Message.objects.visible_in(row.id)
        start = position_in(request, "from") or (position_in(request, "at") or 0) - CONTEXT_MESSAGES
        upto = position_in(request, "upto")
        low, high = (None, (upto + 1,)) if upto else ((max(start, 1) - 1,), None)
        if there and there.messages <= TRANSCRIPT_MESSAGES:
            low = high = None  # all of it, wherever it was opened
        elif there and (low or (0,))[0] >= there.last:
            low, high, upto = None, None, there.last  # what was there is deleted
        messages = visible.between(low, high, descending=bool(upto), limit=TRANSCRIPT_MESSAGES)
        if upto:
            messages.reverse()
        pages = []
        if there and messages and len(messages) < there.messages:
            first, last = messages[0].position, messages[-1].position
            pages = [
                ("First", "?" if first > there.first else None),
                ("Earlier", f"?upto={first - 1}" if first > there.first else None),
                ("Later", f"?from={last + 1}" if last < there.last else None),
                ("Last", f"?upto={there.last}" if last < there.last else None),
            ]
        return {
            "may_read": True,
            "pairs": links_of_pairs(row),
            "transcript": messages,
            "activity": there,
            "export_url": admin_url("thread_export", row.id),
            "pages": pages,
        }

    # Exporting

    def has_export_permission(self, request: HttpRequest) -> bool:
        return may(request, "view_thread", "view_message")

    @admin.action(description="Export selected threads", permissions=["export"])
    def export(self, request: HttpRequest, queryset: QuerySet[Thread]) -> StreamingHttpResponse:
        return export_of(queryset.order_by("created_at", "id"))

    def get_urls(self) -> list[URLPattern]:
        one = path(
            "<path:object_id>/export/", self.admin_site.admin_view(self.export_one), name="messages_app_thread_export"
        )
        return [one, *super().get_urls()]

    def export_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        thread = self.there(request, object_id)
        if not self.has_export_permission(request):
            raise PermissionDenied
        if thread is None:
            return self.not_there(request, object_id)
        return export_of([thread])

    # Deleting

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        activity = Message.objects.activity([thread.id for thread in objs])
        numbers = [(thread, activity[thread.id].messages if thread.id in activity else 0) for thread in objs]
        lines = [f"Thread {thread.id} with {number_of(number, 'message')}" for thread, number in numbers]
        counts = {"threads": len(lines), "messages": sum(number for _, number in numbers)}
        needed = set() if may(request, "delete_thread", "delete_message") else {"thread with its messages"}
        return lines, counts, needed, []

    def delete_rows(self, rows: Iterable[Thread]) -> None:
        for thread in rows:
            try:
                Thread.objects.visible().mark_deleted(thread.id)
            except Thread.DoesNotExist:
                continue  # somebody was faster
        transaction.on_commit(wake_purger, using=Thread.objects.db)


def links_of_pairs(thread: Thread, shown: Callable[[str], str] = str) -> SafeString:
    """The metadata, each pair a link to the threads that have it."""
    here = admin_url("thread_changelist")
    pairs = (
        (f"{here}?{urlencode({'metadata': browsing.pair_as_text(key, value)})}", key, shown(value))
        for key, value in thread.metadata.items()
    )
    return format_html_join(" ", '<a class="pair" href="{}"><b>{}</b> {}</a>', pairs)


def position_in(request: HttpRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    return min(int(text), MAX_POSITION - 1) if text.isascii() and text.isdigit() and len(text) < 20 else None


def export_of(threads: Iterable[Thread]) -> StreamingHttpResponse:
    """A file of JSON Lines, made while it is sent."""
    name = f"threads-{timezone.now():%Y%m%d-%H%M%S}.jsonl"
    pieces: Iterator[str] = export_lines(threads)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(pieces, content_type="application/jsonl; charset=utf-8", headers=headers)


@admin.register(Message)
class MessageAdmin(BrowsingAdmin):
    look_form = MessageLookForm
    list_display = ("id", "created", "wire_role", "words", "files", "thread_link")
    search_help = "An id (of a message or a thread, or an _id), or words in the text (“in quotes”: as one)."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).exclude(thread__in=Thread.objects.leaving())

    def find(self, request: HttpRequest, form: Any) -> tuple[Found, str]:
        asked, text = form.cleaned_data, form.cleaned_data["q"]
        by_id = browsing.messages_by_id(text, self.get_queryset(request)) if text and not asked["after"] else []
        if by_id:
            of_thread = by_id[0].thread_id == text
            return Found(by_id), f"The newest messages of that thread, {SHOWN} at most." if of_thread else "Of that id."
        condition, what = Q(), "Messages"
        if asked["role"]:
            condition &= Q(role=asked["role"])
            what += f" of role {asked['role']}"
        if asked["has_files"]:
            without = Q(attachments=[])
            condition &= ~without if asked["has_files"] == "yes" else without
            what += " with files" if asked["has_files"] == "yes" else " without files"
        what += f" of run {asked['run_id']}" if asked["run_id"] else ""
        what += f" that contain “{text}”" if text else ""
        words = Words.of(text) if text else None
        found = browsing.messages(form.range, asked["run_id"], condition, words)
        for message in found.rows:
            message.looked_for = words
        return found, told_of(found, f"{what}, newest first")

    @admin.display(description="role")
    def wire_role(self, message: Message) -> str:
        return message.role

    @admin.display(description="text")
    def words(self, message: Message) -> str:
        return preview(message.text, getattr(message, "looked_for", None)) or NONE

    @admin.display(description="files")
    def files(self, message: Message) -> str:
        return f"{len(message.attachments)}" if message.attachments else NONE

    @admin.display(description="thread")
    def thread_link(self, message: Message) -> SafeString:
        return format_html('<a href="{}">{}</a>', transcript_at(message), message.thread_id)

    def page_of(self, request: HttpRequest, row: Message) -> dict[str, Any]:
        return {"message": row, "transcript_url": transcript_at(row)}

    def get_urls(self) -> list[URLPattern]:
        raw = path("<path:object_id>/json/", self.admin_site.admin_view(self.raw), name="messages_app_message_json")
        return [raw, *super().get_urls()]

    def raw(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A message as the API shows it; `?shape=v2` in the other shape."""
        message = self.there(request, object_id)
        if message is None:
            return self.not_there(request, object_id)
        shape = V2 if request.GET.get("shape") == "v2" else DEFAULT
        return JsonResponse(dict(shape.message(message).data), json_dumps_params={"indent": 2, "ensure_ascii": False})

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        reads = may(request, "view_message")
        lines = [f"Message {message.id}" + (f": {preview(message.text)}" if reads else "") for message in objs]
        needed = set() if may(request, "delete_message") else {"message"}
        return lines, {"messages": len(lines)}, needed, []

    def delete_rows(self, rows: Iterable[Message]) -> None:
        for message in rows:
            try:
                Message.objects.filter(deleted_at=None).erase(message.id)
            except Message.DoesNotExist:
                continue  # somebody was faster
