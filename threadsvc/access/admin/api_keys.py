"""API keys in the admin: create, view and revoke. A key is shown once, in the response that creates it."""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from threadsvc.access.admin.accounts import StrictAdminMixin
from threadsvc.access.models import PREFIX_CHARACTERS, APIKey, APIKeyQuerySet

if TYPE_CHECKING:  # ModelAdmin is generic only in the type stubs
    ModelAdmin = admin.ModelAdmin[APIKey]
else:
    ModelAdmin = admin.ModelAdmin

LIST = "admin:access_apikey_changelist"


class StateFilter(admin.SimpleListFilter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in ("active", "expired", "revoked")]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet[APIKey]:
        rows: APIKeyQuerySet = queryset
        return rows.in_state(self.value() or "") if self.value() in dict(self.lookup_choices) else rows


@admin.register(APIKey)
class APIKeyAdmin(StrictAdminMixin, ModelAdmin):
    class Media:
        css = {"all": ["access/admin.css"]}

    row_key = re.compile(f"[0-9A-Za-z]{{{PREFIX_CHARACTERS}}}")
    list_display = ("name", "prefix", "tenant", "rights", "created", "expires", "last_used", "state")
    list_filter = (StateFilter,)
    search_fields = ("name", "prefix", "tenant")
    actions = ("revoke",)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == StateFilter.parameter_name

    def get_fields(self, request: HttpRequest, obj: APIKey | None = None) -> Any:
        return ("name", "tenant", "read_only", "expires_at") if obj is None else self.list_display

    def has_change_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        return False

    has_delete_permission = has_change_permission

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("access.change_apikey"))  # revoking is the only possible change

    @admin.display(description="rights", ordering="read_only")
    def rights(self, key: APIKey) -> str:
        return key.rights

    @admin.display(description="created (UTC)", ordering="created_at")
    def created(self, key: APIKey) -> str:
        return format_minute(key.created_at)

    @admin.display(description="expires (UTC)", ordering="expires_at")
    def expires(self, key: APIKey) -> str:
        return format_minute(key.expires_at)

    @admin.display(description="last used (UTC)", ordering="last_used_at")
    def last_used(self, key: APIKey) -> str:
        return format_minute(key.last_used_at)

    @admin.display(description="state")
    def state(self, key: APIKey) -> str:
        return f"revoked on {format_minute(key.revoked_at)}" if key.revoked_at else key.state

    # Create

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **one_button})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.key = obj.issue()

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return self.answer(request, "made", title="API key created", original=obj, key=obj.key)

    # Revoke

    def get_urls(self) -> list[URLPattern]:
        one = path("<path:object_id>/revoke/", self.admin_site.admin_view(self.revoke_one), name="access_apikey_revoke")
        return [one, *super().get_urls()]

    def revoke_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, object_id)
        if not self.has_revoke_permission(request):
            raise PermissionDenied
        if row is None:
            return HttpResponseRedirect(reverse(LIST))
        return self.revoke_after_asking(request, [row]) or HttpResponseRedirect(reverse(LIST))

    @admin.action(description="Revoke selected API keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> HttpResponse | None:
        return self.revoke_after_asking(request, list(queryset), action="revoke")

    def revoke_after_asking(
        self, request: HttpRequest, keys: list[APIKey], action: str | None = None
    ) -> HttpResponse | None:
        """Ask for confirmation. Revoke the keys when the confirmation form is submitted."""
        if request.method != "POST" or "post" not in request.POST:
            return self.answer(request, "revoke", title="Revoke?", keys=keys, action=action)
        revoked = [key for key in keys if key.revoke()]
        for key in revoked:
            self.log_change(request, key, "Revoked.")
        told = ", ".join(map(str, revoked)) or "nothing: the keys were already revoked"
        self.message_user(request, f"Revoked {told}.")
        return None

    def answer(self, request: HttpRequest, page: str, **context: Any) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media, **context}
        return TemplateResponse(request, f"admin/access/apikey/{page}.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        extra_context = {**(extra_context or {}), "may_revoke": self.has_revoke_permission(request)}
        return super().change_view(request, object_id, form_url, extra_context)


def format_minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "never"
