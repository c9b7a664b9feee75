"""What templates need of messages."""

from collections.abc import Iterable

from django import template

register = template.Library()


@register.filter
def pairs(metadata: dict[str, str]) -> Iterable[tuple[str, str]]:
    """`metadata.items` would be the value of a key of that name."""
    return metadata.items()
