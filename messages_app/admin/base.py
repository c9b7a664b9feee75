"""The base class of both model admins, and the helpers for texts and URLs that they share."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from messages_app.admin.search import PageActionForm, SearchChangeList, SearchForm
from messages_app.models import Message, Thread
from messages_app.store.search import SearchResult, Terms

if TYPE_CHECKING:  # ModelAdmin is generic only in the type stubs
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

PREVIEW_CHARACTERS = 100
EMPTY = "-"  # shown in an empty cell of a list


class ReadOnlyModelAdmin(ModelAdmin):
    """Base class for read-only pages: users can search, read and delete rows, but not add or change them.

    The API therefore always returns data exactly as clients stored it.
    """

    class Media:
        css = {"all": ["messages_app/admin.css"]}

    search_form: ClassVar[type[SearchForm]]
    change_list_template = "admin/messages_app/change_list.html"
    action_form = PageActionForm
    sortable_by = ()
    list_select_related = False

    def search(self, request: HttpRequest, form: Any) -> tuple[SearchResult, str]:
        """Return the search result for a valid form, and a text that describes it."""
        raise NotImplementedError

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context for a row's page, in addition to the context of every admin page."""
        raise NotImplementedError

    def delete_row(self, row: Any) -> None:
        """Delete a row in the same way as the API. Raises DoesNotExist if the row is already deleted."""
        raise NotImplementedError

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[SearchChangeList]:
        return SearchChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # `from_field` is the query parameter `_to_field`. If it is empty, find the row by its primary key. Django would
        # raise FieldDoesNotExist.
        return super().get_object(request, object_id, from_field or None)

    def readable_object(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row with this id, quoted as in URLs, or None if there is none. Raises PermissionDenied (403)."""
        row = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return row

    def redirect_missing(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Redirect to the admin index, which shows a message that the row does not exist."""
        redirect: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, unquote(object_id))  # type: ignore[attr-defined]
        return redirect

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the page of a row. The page has no form, so a POST gets 403."""
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        row = self.readable_object(request, object_id)
        if row is None:
            return self.redirect_missing(request, object_id)
        can_delete = self.has_delete_permission(request, row)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "original": row,
            "title": str(self.opts.verbose_name).capitalize(),
            "subtitle": row.id,
            "delete_url": admin_url(f"{self.opts.model_name}_delete", row.id) if can_delete else None,
            **self.page_context(request, row),
        }
        return TemplateResponse(request, f"admin/messages_app/{self.opts.model_name}/page.html", context)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with suppress(self.model.DoesNotExist):
            self.delete_row(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    @admin.display(description="created (UTC)")
    def created(self, row: Thread | Message) -> SafeString:
        return format_time(row.created_at)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Do not accept the change permission instead, as Django does: rows cannot be changed here.
        return has_permissions(request, f"view_{self.opts.model_name}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def has_permissions(request: HttpRequest, *codenames: str) -> bool:
    return request.user.has_perms([f"messages_app.{codename}" for codename in codenames])


def admin_url(name: str, *keys: str) -> str:
    return reverse(f"admin:messages_app_{name}", args=[quote(key) for key in keys])


def transcript_url(message: Message) -> str:
    """Return the URL of the transcript page that shows this message."""
    return f"{admin_url('thread_change', message.thread_id)}?{urlencode({'at': message.position})}#{message.id}"


def format_time(at: Any) -> SafeString:
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}")


def preview(text: str, terms: Terms | None = None) -> str:
    """Return the start of a text, or the part around its first search term, on one line."""
    index = terms.first_match_in(text) if terms else 0
    start = max(index - PREVIEW_CHARACTERS // 2, 0)
    end = start + PREVIEW_CHARACTERS
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if end < len(text) else "")
