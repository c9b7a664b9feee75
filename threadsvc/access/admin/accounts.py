"""Accounts in the admin: Django's own pages, changed to reject requests that would make them fail."""

import re
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import BadRequest
from django.db.models import DateTimeField
from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:  # the class with which the mixin is combined
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = object

# The lookups that the filters beside the list use. Django would send any other condition on a column to the database.
LOOKUPS = {"is_staff__exact", "is_superuser__exact", "is_active__exact", "groups__id__exact", "groups__isnull"}


class StrictAdminMixin(ModelAdmin):
    """Rejects lookups and selected rows that would make Django's admin fail with a 500."""

    row_key = re.compile("[0-9]{1,18}")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in LOOKUPS

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return Django's form field. For screen readers, add a label to each of the two inputs of a time."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(db_field, DateTimeField) and field:
            for part, label in zip(field.widget.widgets, ("Date", "Time"), strict=True):
                part.attrs["aria-label"] = label
        return field

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return super().get_object(request, object_id, from_field or None)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        for selected in request.POST.getlist("_selected_action"):
            if not self.row_key.fullmatch(selected):
                raise BadRequest("no such row")
        return super().changelist_view(request, extra_context)


admin.site.unregister([User, Group])


@admin.register(User)
class AccountAdmin(StrictAdminMixin, UserAdmin): ...  # type: ignore[type-arg]


@admin.register(Group)
class AccountGroupAdmin(StrictAdminMixin, GroupAdmin): ...
