"""Errors of the database, as people read them."""


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, or the error's class name if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
