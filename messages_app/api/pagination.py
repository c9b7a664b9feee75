"""The page that a query asks for. The store finds its rows (messages_app/store/paging.py)."""

from collections.abc import Mapping
from typing import Any

from messages_app.store.paging import PageRequest


def page_request(query: Mapping[str, Any]) -> PageRequest:
    """Return the page that the validated `limit`, `order`, `after` and `before` of a query ask for."""
    return PageRequest(query["limit"], query["order"] == "desc", query["after"], query["before"])
