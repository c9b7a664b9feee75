"""Text formats for the output of commands."""

from datetime import datetime


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print on a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def utc_time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"
