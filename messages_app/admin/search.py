"""The admin's lists: what they may be asked for, and a page of what `browsing` finds."""

import re
from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from messages_app.models import Message
from messages_app.models.thread import MAX_TENANT_CHARACTERS
from messages_app.store import search as browsing
from messages_app.store.search import Found, Place, Range

# Unix seconds and an id.
_PLACE = re.compile("(-?[0-9]{1,12})_(.{1,64})", re.DOTALL)


class LookForm(forms.Form):
    """The query of a list. `after` is the place that the page begins after: that of the last row of the page before."""

    q = forms.CharField(label="Search", required=False, max_length=500)
    since = forms.DateField(label="From", required=False, widget=forms.DateInput({"type": "date"}))
    until = forms.DateField(label="To", required=False, widget=forms.DateInput({"type": "date"}))
    after = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean_after(self) -> Place | None:
        """None, which is the first page, also for what is no place."""
        match = _PLACE.fullmatch(self.cleaned_data["after"])
        return (browsing.moment(int(match[1])), match[2]) if match else None

    @property
    def range(self) -> Range:
        asked = self.cleaned_data
        return Range.of_days(asked["since"], asked["until"]).after(asked["after"])

    @property
    def is_used(self) -> bool:
        return any(self.data.get(name) for name in self.fields)


class ThreadLookForm(LookForm):
    metadata = forms.CharField(
        label="Metadata",
        required=False,
        strip=False,
        max_length=600,
        widget=forms.TextInput({"placeholder": "key=value"}),
    )
    tenant = forms.CharField(label="Tenant", required=False, max_length=MAX_TENANT_CHARACTERS)

    def clean_metadata(self) -> dict[str, str]:
        text = self.cleaned_data["metadata"]
        pair = browsing.pair_in(text, in_words=False)
        if text and not pair:
            raise forms.ValidationError("This is not key=value.")
        return pair


class MessageLookForm(LookForm):
    role = forms.ChoiceField(
        label="Role", required=False, choices=[("", "any"), *((role, role) for role in Message.Role.values)]
    )
    has_files = forms.ChoiceField(
        label="Files", required=False, choices=[("", "any"), ("yes", "with files"), ("no", "without files")]
    )
    run_id = forms.CharField(label="Run", required=False, max_length=256)


class LookList(ChangeList):
    """A list of rows that `browsing` finds: no count of all rows, no page by its number."""

    model_admin: Any
    search_form_class = forms.Form  # what is searched for is read by the look's form
    form: LookForm
    found: Found
    told: str

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.title = str(self.opts.verbose_name_plural).capitalize()

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """What an action may be asked for: any row that is there. The page itself is `result_list`."""
        self.filter_specs, self.has_filters, self.has_active_filters = [], False, False
        rows: QuerySet[Any] = self.root_queryset
        return rows

    def get_results(self, request: HttpRequest) -> None:
        self.form = self.model_admin.look_form(request.GET, label_suffix="")
        if self.form.is_valid():
            self.found, self.told = self.model_admin.find(request, self.form)
        else:
            self.found, self.told = Found([]), ""
        self.result_list = self.found.rows
        self.result_count = len(self.result_list)
        self.full_result_count = self.result_count
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(self.result_list)

    @property
    def next_url(self) -> str | None:
        """The rows after these, or where a look ended, what is further back."""
        if self.found.resume is None:
            return None
        at, row_id = self.found.resume
        return self.get_query_string({"after": f"{int(at.timestamp())}_{row_id}"})

    @property
    def first_url(self) -> str | None:
        return self.get_query_string(remove=["after"]) if self.form.data.get("after") else None


class PageActionForm(ActionForm):
    """Actions on rows of one page: there is no "all rows of all pages"."""

    select_across: Any = None

    def clean(self) -> dict[str, Any]:
        return {**(super().clean() or self.cleaned_data), "select_across": False}


def told_of(found: Found, what: str) -> str:
    """The sentence above a list: what it shows, and how far a look came."""
    if found.looked_until is None:
        return f"{what}."
    return (
        f"{what}. This looked through the newest messages back to {found.looked_until:%Y-%m-%d %H:%M} UTC: "
        "“Look further back” goes on from there, dates narrow it down."
    )
