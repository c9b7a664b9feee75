"""The admin's search forms, and the change list that shows the results of `store/search.py`."""

import re
from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from messages_app.models import MAX_TENANT_CHARACTERS, Message
from messages_app.store import search

SCAN_HELP = f"Search scans the newest {search.SCAN_LIMIT:,} messages; “Search older messages” continues from there."

# A cursor: Unix seconds, `_` and an id.
_CURSOR = re.compile("(-?[0-9]{1,12})_(.{1,64})", re.DOTALL)


class SearchForm(forms.Form):
    """Validates the query string of a change list. `after` is a cursor: it names the last row of the previous page."""

    q = forms.CharField(label="Search", required=False, max_length=500)
    since = forms.DateField(label="From", required=False, widget=forms.DateInput({"type": "date"}))
    until = forms.DateField(label="To", required=False, widget=forms.DateInput({"type": "date"}))
    after = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean_after(self) -> search.TimeCursor | None:
        """Return None (the first page) if the cursor is not valid."""
        match = _CURSOR.fullmatch(self.cleaned_data["after"])
        return (search.clamped_time(int(match[1])), match[2]) if match else None

    @property
    def time_range(self) -> search.TimeRange:
        data = self.cleaned_data
        return search.TimeRange.of_days(data["since"], data["until"]).after(data["after"])

    @property
    def terms(self) -> search.Terms | None:
        text = self.cleaned_data["q"]
        return search.Terms.parse(text) if text else None

    @property
    def is_used(self) -> bool:
        return any(self.data.get(name) for name in self.fields)


class ThreadSearchForm(SearchForm):
    metadata = forms.CharField(
        required=False, strip=False, max_length=600, widget=forms.TextInput({"placeholder": "key=value"})
    )
    tenant = forms.CharField(required=False, max_length=MAX_TENANT_CHARACTERS)

    def clean_metadata(self) -> dict[str, str]:
        text = self.cleaned_data["metadata"]
        pair = search.parse_pair(text)
        if text and not pair:
            raise forms.ValidationError("Enter a pair as key=value.")
        return pair


class MessageSearchForm(SearchForm):
    role = forms.ChoiceField(required=False, choices=[("", "any"), *((role, role) for role in Message.Role.values)])
    has_files = forms.TypedChoiceField(
        label="Files",
        required=False,
        choices=[("", "any"), ("yes", "with files"), ("no", "without files")],
        coerce=lambda choice: choice == "yes",
        empty_value=None,
    )
    run_id = forms.CharField(label="Run", required=False, max_length=256)


class SearchChangeList(ChangeList):
    """A change list without page numbers or a total count, because both get slower as the store grows."""

    model_admin: Any
    # Django requires a form class for its own search box, so it gets an empty form. `form` reads the query string.
    search_form_class = forms.Form
    form: SearchForm
    result: search.SearchResult
    description: str

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.title = str(self.opts.verbose_name_plural).capitalize()

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """Return all rows, because an action may select any of them. `result_list` holds the rows of the page."""
        self.filter_specs, self.has_filters, self.has_active_filters = [], False, False
        rows: QuerySet[Any] = self.root_queryset
        return rows

    def get_results(self, request: HttpRequest) -> None:
        self.form = self.model_admin.search_form(request.GET, label_suffix="")
        if self.form.is_valid():
            self.result, self.description = self.model_admin.search(request, self.form)
        else:
            self.result, self.description = search.SearchResult([]), ""
        self.result_list = self.result.rows
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = bool(self.result_list)

    @property
    def next_url(self) -> str | None:
        """The URL of the next page. If a scan stopped early, the next page continues with the older rows."""
        if self.result.next_cursor is None:
            return None
        at, row_id = self.result.next_cursor
        return self.get_query_string({"after": f"{int(at.timestamp())}_{row_id}"})

    @property
    def first_url(self) -> str | None:
        return self.get_query_string(remove=["after"]) if self.form.data.get("after") else None


class PageActionForm(ActionForm):
    """Limits actions to the selected rows of one page.

    It ignores `select_across`, with which Django applies an action to the rows of all pages.
    """

    select_across: Any = None

    def clean(self) -> dict[str, Any]:
        return {**(super().clean() or self.cleaned_data), "select_across": False}


def describe(result: search.SearchResult, subject: str) -> str:
    """Return the text above a list.

    It describes the rows. If a scan stopped early, it also contains the time of the oldest row that was searched.
    """
    if result.scanned_until is None:
        return f"{subject}."
    return (
        f"{subject}. Searched the newest messages back to {result.scanned_until:%Y-%m-%d %H:%M} UTC. “Search older "
        "messages” continues from there; dates narrow the search."
    )
