"""What commands share."""

from datetime import datetime


def printable(text: str) -> str:
    """A text as it may go to a terminal, in one line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def format_time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"
