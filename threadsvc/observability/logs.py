"""Log lines, as JSON objects or as text for people. They never contain the content of requests."""

import json
import logging
import sys
import threading
import traceback
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson
from structlog.dev import ConsoleRenderer
from structlog.processors import ExceptionRenderer, JSONRenderer

logger = logging.getLogger(__name__)

# The id of the current request.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# The WSGI variable with the time at which a thread started to handle the request (time.perf_counter()). wsgi.py sets
# it.
STARTED = "threadsvc.started"

MAX_FRAMES = 50

# No line contains the caller or the thread, so logging need not determine them (logging HOWTO, "Optimization").
logging._srcfile = None  # the documented way to turn off the search for the caller
logging.logThreads = logging.logMultiprocessing = False


def fields(**values: Any) -> dict[str, Any]:
    """Return the `extra` of a logging call that adds these fields to the line."""
    return {"fields": values}


class LineFormatter(logging.Formatter):
    """Formats a record as one line. `form` is json or text. `with_words` includes the messages of exceptions.

    structlog's ProcessorFormatter does the same, but copies each record, which doubles the time.
    """

    def __init__(self, form: str, with_words: bool) -> None:
        super().__init__()
        self.escapes = form == "text"
        self.exceptions = ExceptionRenderer(with_messages if with_words else without_messages)
        self.renderer: Any = (
            ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
            if form == "text"
            else JSONRenderer(serializer=to_ascii)
        )

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = record.getMessage().strip()
        level = record.levelname.lower()
        line: dict[str, Any] = {
            "timestamp": time.removesuffix("+00:00") + "Z",
            "level": level,
            "logger": record.name,
            # Escape line breaks in text, so that a record stays on one line. JSON escapes them by itself.
            "event": event.encode("unicode_escape").decode() if self.escapes and not event.isprintable() else event,
        }
        if (answered := request_id.get()) is not None:
            line["request_id"] = answered
        line.update(record.__dict__.get("fields", ()))
        if record.exc_info:
            line["exc_info"] = record.exc_info
            self.exceptions(None, level, line)
        return str(self.renderer(None, level, line))


def to_ascii(line: dict[str, Any], default: Any) -> str:
    """Return a log line as JSON in ASCII, which is the same in every encoding."""
    with suppress(TypeError):  # orjson refuses lone surrogates and large integers
        text = orjson.dumps(line, default)
        if text.isascii():
            return text.decode()
    return json.dumps(line, default=default, separators=(",", ":"))


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def with_messages(exc_info: ExcInfo) -> str:
    return "".join(traceback.format_exception(exc_info[1])).rstrip()


def without_messages(exc_info: ExcInfo) -> str:
    """Return the types and tracebacks of an exception and its causes, the first cause first.

    Leaves out the messages, because some of them quote request data. For example, messages of databases and int() do.
    """
    chain: list[BaseException] = []
    error: BaseException | None = exc_info[1]
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    tracebacks = []
    for error in reversed(chain):
        frames = traceback.format_tb(error.__traceback__, limit=-MAX_FRAMES)
        tracebacks.append("".join(["Traceback (most recent call last):\n", *frames, type_and_code(error)]))
    return "\n\n".join(tracebacks)


def type_and_code(error: BaseException) -> str:
    """Return the type of an exception, with the code of an operating system error or a database error."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    codes = [getattr(error, name, None) for name in ("errno", "sqlstate", "sqlite_errorname")]
    return " ".join([kind, *(str(code) for code in codes if code)])


def log_what_python_prints() -> None:
    """Log warnings and uncaught exceptions."""
    logging.captureWarnings(True)
    threading.excepthook = lambda died: logger.error("a thread ended by an exception", exc_info=died.exc_value)
    sys.unraisablehook = lambda ignored: logger.error("an exception was ignored", exc_info=ignored.exc_value)
