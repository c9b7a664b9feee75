"""What commands share."""


def reason_of(error: Exception) -> str:
    """Why a database refused, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
