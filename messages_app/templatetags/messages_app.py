"""Template filters."""

from collections.abc import Iterable

from django import template

register = template.Library()


@register.filter
def pairs(metadata: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Return the pairs of metadata. In a template, `metadata.items` would be the value of the key "items"."""
    return metadata.items()
