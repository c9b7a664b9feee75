"""gunicorn's worker with threads, where one client would keep the others waiting, and where it refuses by itself."""

import errno
import json
import socket
import time
import uuid
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any, NamedTuple

from gunicorn import util
from gunicorn.workers.gthread import ThreadWorker

# How much of what a client still sends is taken in after the last answer, for how long, and from how many at once.
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 2.0
MAX_LINGERING = 1000
SECONDS_WITHOUT_FILES = 0.01


class Lingering(NamedTuple):
    end: float  # by the monotonic clock
    bytes_left: int


class Worker(ThreadWorker):
    """Lets go of connections without waiting.

    gunicorn waits up to two seconds for a client that was told that its connection ends to close it as well, in the one
    thread that hands out all requests: a few clients that do not close would stop the service.
    """

    def init_process(self) -> None:
        self.lingering: dict[socket.socket, Lingering] = {}
        util.close_graceful = self.linger
        super().init_process()  # serves until the worker ends

    def accept(self, listener: socket.socket) -> None:
        """gunicorn's, which ends the worker, and all its requests, where no more files may be open."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            while self.lingering:
                self.let_go(next(iter(self.lingering)))
            time.sleep(SECONDS_WITHOUT_FILES)  # or this would be asked again at once, and nothing else be done

    def linger(self, connection: socket.socket) -> None:
        """Ends our side; what still comes is thrown away for a while, or the client could lose the answer to a reset.

        Source: RFC 9112, 9.6.
        """
        if connection in self.lingering:
            return
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(False)
            self.poller.register(connection, EVENT_READ, self.throw_away)
        except (OSError, ValueError, KeyError):  # gone already
            util.close(connection)
            return
        self.lingering[connection] = Lingering(time.monotonic() + LINGER_SECONDS, LINGER_BYTES)
        if len(self.lingering) > MAX_LINGERING:
            self.let_go(next(iter(self.lingering)))

    def throw_away(self, connection: socket.socket) -> None:
        if connection not in self.lingering:  # let go for another's sake, since it was seen to be readable
            return
        end, bytes_left = self.lingering[connection]
        try:
            received = len(connection.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        if 0 < received < bytes_left:
            self.lingering[connection] = Lingering(end, bytes_left - received)
        else:
            self.let_go(connection)

    def let_go(self, connection: socket.socket) -> None:
        del self.lingering[connection]
        self.poller.unregister(connection)
        util.close(connection)

    def murder_pending(self) -> None:
        """gunicorn's name for what it does again and again."""
        super().murder_pending()
        now = time.monotonic()
        for connection in [connection for connection, left in self.lingering.items() if left.end < now]:
            self.let_go(connection)


def write_error(connection: socket.socket, status: int, reason: str, message: str) -> None:
    """What gunicorn refuses before there is a request for Django, in the form that all our refusals have."""
    if status == HTTPStatus.NOT_IMPLEMENTED:  # a transfer coding that nobody knows: the client's doing, not a failure
        status, reason = HTTPStatus.BAD_REQUEST, HTTPStatus.BAD_REQUEST.phrase
    body = json.dumps({"detail": message[:200] or reason})
    headers: dict[str, Any] = {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": len(body),
        "x-request-id": uuid.uuid4().hex,
    }
    lines = [f"HTTP/1.1 {int(status)} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", body]
    util.write_nonblock(connection, "\r\n".join(lines).encode("ascii"))


util.write_error = write_error
