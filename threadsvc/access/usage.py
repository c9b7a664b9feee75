"""Records when keys were last used.

Requests only store the times in memory. A thread in each worker writes them to the database.
"""

import logging
import threading
import time
from datetime import datetime

from django.db import Error, connections
from django.utils import timezone

from threadsvc.access.models import APIKey
from threadsvc.engines.base import error_reason

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 60


class LastUses:
    """Writes the first use of a key immediately, and later uses at most once in `seconds_between`.

    When a worker ends, the uses that it has not written are lost.
    """

    def __init__(self, seconds_between: float = SECONDS_BETWEEN_WRITES) -> None:
        self._seconds_between = seconds_between
        self._lock = threading.Lock()
        self._unwritten: dict[str, datetime] = {}
        self._due: dict[str, float] = {}  # the earliest time of a key's next write
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, prefix: str) -> None:
        with self._lock:
            self._unwritten[prefix] = timezone.now()
            if self._thread is None or not self._thread.is_alive():  # a fork copies this object, not its thread
                self._thread = threading.Thread(target=self._run, name="last-uses", daemon=True)
                self._thread.start()
            if prefix not in self._due:
                self._due[prefix] = 0
                self._awake.set()

    def _take_due(self) -> dict[str, datetime]:
        now = time.monotonic()
        with self._lock:
            due = {prefix: at for prefix, at in self._unwritten.items() if self._due[prefix] <= now}
            for prefix in due:
                del self._unwritten[prefix]
                self._due[prefix] = now + self._seconds_between
        return due

    def _seconds_to_wait(self) -> float | None:
        with self._lock:
            due = [self._due[prefix] for prefix in self._unwritten]
        return max(0, min(due) - time.monotonic()) if due else self._seconds_between

    def _run(self) -> None:
        while True:
            self._awake.wait(self._seconds_to_wait())
            self._awake.clear()
            due = self._take_due()
            try:
                for prefix, at in due.items():
                    APIKey.objects.used(prefix, at)
            except Exception as error:  # if the thread ended here, the times in `due` would be lost
                with self._lock:
                    self._unwritten = {**due, **self._unwritten}
                is_known = isinstance(error, Error)
                reason = error_reason(error)
                logger.warning("last use of keys not recorded, to be tried again: %s", reason, exc_info=not is_known)
            finally:
                if due:
                    connections.close_all()  # closes only this thread's connections, because the thread may now sleep


record_use = LastUses().record
