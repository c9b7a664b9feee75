"""What a query asks of a list. The store finds the page (messages_app/store/paging.py)."""

from collections.abc import Mapping
from typing import Any

from messages_app.store.paging import PageRequest


def page_request(query: Mapping[str, Any]) -> PageRequest:
    """Return the page that the validated `limit`, `order`, `after` and `before` of a query ask for."""
    return PageRequest(query["limit"], query["order"] == "desc", query["after"], query["before"])
