"""Converts query parameters to a page request. The store finds the rows of the page (messages_app/store/paging.py)."""

from collections.abc import Mapping
from typing import Any

from messages_app.store.paging import PageRequest


def page_request(query: Mapping[str, Any]) -> PageRequest:
    """Return the page request for a query's validated `limit`, `order`, `after` and `before`."""
    return PageRequest(query["limit"], query["order"] == "desc", query["after"], query["before"])
