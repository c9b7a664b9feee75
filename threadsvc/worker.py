"""gunicorn's threaded worker, changed so that no client delays others and errors have our form."""

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

# After the last response on a connection, a worker discards the data that the client still sends. The limits are the
# bytes and seconds for each connection, and the number of such connections.
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 2.0
MAX_LINGERING = 1000
SECONDS_WITHOUT_FILES = 0.01


class Lingering(NamedTuple):
    end: float  # on the monotonic clock
    bytes_left: int


class Worker(ThreadWorker):
    """Closes connections without waiting for the client.

    After the last response on a connection, gunicorn waits up to two seconds for the client to close it. It waits in
    the one thread that dispatches all requests, so a few clients that never close would stop the service.
    """

    def init_process(self) -> None:
        self.lingering: dict[socket.socket, Lingering] = {}
        util.close_graceful = self.linger
        super().init_process()  # serves until the worker ends

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection. If no more files can be opened, close the lingering connections instead.

        gunicorn would end the worker with all its requests.
        """
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            while self.lingering:
                self.let_go(next(iter(self.lingering)))
            time.sleep(SECONDS_WITHOUT_FILES)  # without a pause, accept would fail again immediately in a busy loop

    def linger(self, connection: socket.socket) -> None:
        """Close our side, and discard data that the client still sends for a while.

        If a server closes a connection while data still arrives, TCP resets the connection, and the client can lose
        the response. Source: RFC 9112, 9.6.
        """
        if connection in self.lingering:
            return
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.setblocking(False)
            self.poller.register(connection, EVENT_READ, self.throw_away)
        except (OSError, ValueError, KeyError):  # already closed
            util.close(connection)
            return
        self.lingering[connection] = Lingering(time.monotonic() + LINGER_SECONDS, LINGER_BYTES)
        if len(self.lingering) > MAX_LINGERING:
            self.let_go(next(iter(self.lingering)))

    def throw_away(self, connection: socket.socket) -> None:
        if connection not in self.lingering:  # `let_go` has already closed it, to free a file
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
        """Close the lingering connections that have timed out. gunicorn calls this method periodically."""
        super().murder_pending()
        now = time.monotonic()
        for connection in [connection for connection, left in self.lingering.items() if left.end < now]:
            self.let_go(connection)


def write_error(connection: socket.socket, status: int, reason: str, message: str) -> None:
    """Write an error that gunicorn raises before Django gets the request, in the form of all our errors."""
    if status == HTTPStatus.NOT_IMPLEMENTED:  # an unknown transfer coding is the client's error
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
