"""waitress's listener and connections, with three things more: TLS, deadlines for slow clients, and room for new ones.

waitress reads requests in its loop and gives whole ones to threads, so a slow client holds no thread, only a place
among `connection_limit`. It would keep that place for as long as it likes, and with all places taken waitress stops to
listen: so each stage of a request has a deadline, and when all places are taken those that have done nothing for the
longest time are closed. A connection with a request that runs, or an answer on its way, is never closed for room.
"""

import heapq
import logging
import ssl
import time
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask

from device_agent.http.settings import HttpSettings
from device_agent.http.tls import TlsSocket

_AT_ONCE = 8
"""So many clients are let in with each turn of the loop, and so many places are kept free for them."""

_TEND_S = 1.0
"""How often deadlines are looked at."""

_log = logging.getLogger(__name__)


class JsonErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses before Flask sees it (malformed or enormous requests), in the API's shape."""

    def execute(self) -> None:
        """As waitress calls it."""
        problem = self.request.error
        message = f"{problem.reason}: {problem.body}"
        kind = "server_error" if problem.code >= 500 else "invalid_request_error"
        body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})
        self.status = f"{problem.code} {problem.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Connection(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One client's connection."""

    error_task_class = JsonErrorTask

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - waitress's own
        self.since = time.monotonic()
        """When it began to be as idle as it is: opened, or sent the first byte of a request, or got an answer's."""
        self.used = False
        super().__init__(*arguments, **named)

    def received(self, data: bytes) -> bool:
        """As waitress calls it with what has come."""
        if self.request is None:
            self.since = time.monotonic()
        took = bool(super().received(data))
        if self.request is None:
            self.used = True
            self.since = time.monotonic()
        return took

    def service(self) -> None:
        """As waitress calls it on a thread, for each request."""
        super().service()
        self.since = time.monotonic()

    def busy(self) -> bool:
        """Whether a request runs, or an answer is on its way."""
        return bool(self.requests or self.total_outbufs_len)

    def overdue(self, now: float, settings: HttpSettings) -> bool:
        """Whether the client has taken longer for what it does than anybody needs."""
        if self.requests:
            return False
        if self.total_outbufs_len:  # it does not read; last_activity is of the wall clock, and moves with each send
            return bool(time.time() - self.last_activity > settings.idle_s)
        waited_s = now - self.since
        if self.request is not None:
            return bool(waited_s > (settings.body_s if self.request.headers_finished else settings.header_s))
        return waited_s > (settings.idle_s if self.used else settings.header_s)


class TlsConnection(Connection):
    """One that begins with a handshake, and reads by records."""

    def readable(self) -> bool:
        """As the loop asks."""
        if not self.socket.ready:
            return bool(self.socket.wants == "read" and not self.will_close)
        return bool(super().readable())

    def writable(self) -> bool:
        """As the loop asks."""
        if not self.socket.ready and not self.will_close:
            return bool(self.socket.wants == "write")
        return bool(super().writable())

    def handle_read(self) -> None:
        """As the loop calls it. A record that is not whole yet is nothing yet, and no end."""
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            _log.debug("a TLS connection broke: %s", error)
            data = b""
        if not data:
            self.handle_close()
            return
        self.last_activity = time.time()
        self.received(data)

    def handle_write(self) -> None:
        """As the loop calls it."""
        if self.socket.ready or self.will_close:
            super().handle_write()
            return
        try:
            self.socket.shake()
        except BlockingIOError:
            return
        except OSError as error:
            _log.debug("a TLS handshake failed: %s", error)
            self.handle_close()


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """waitress's server on a bound socket."""

    def __init__(self, *, http: HttpSettings, tls: ssl.SSLContext | None, **named: Any) -> None:  # noqa: ANN401 - waitress's
        self._http = http
        self._tls = tls
        self._tended = time.monotonic()
        self.channel_class = Connection if tls is None else TlsConnection
        super().__init__(bind_socket=False, **named)

    def accept(self) -> tuple[Any, Any] | None:
        """As waitress calls it, inside of what catches OSError."""
        found: tuple[Any, Any] | None = super().accept()
        if found is None or self._tls is None:
            return found
        raw, address = found
        try:
            return TlsSocket(raw, self._tls), address
        except (OSError, ValueError) as error:  # it left again already
            raw.close()
            raise OSError(*error.args) from error

    def handle_accept(self) -> None:
        """As the loop calls it when somebody is there: a turn costs as much for several as for one."""
        for _ in range(_AT_ONCE):
            before = len(self._map)
            if before < self.adj.connection_limit:
                super().handle_accept()
            if len(self._map) == before:
                return

    def maintenance(self, now: float) -> None:
        """As waitress calls it, in the middle of its loop: see `tend`."""

    def tend(self) -> None:
        """Close who is too slow, and make room if all places are taken. To be called between two turns of the loop.

        Not within one: the loop has the descriptors of this turn in its hand, and one that is closed may be given to
        the next client at once, who would then be taken for the one before.
        """
        now = time.monotonic()
        if now >= self._tended + _TEND_S:
            self._tended = now
            for connection in list(self.active_channels.values()):
                if connection.overdue(now, self._http):
                    connection.handle_close()
        if self.accepting and len(self._map) > self.adj.connection_limit - _AT_ONCE:
            self._make_room()

    def _make_room(self) -> None:
        idle = [connection for connection in self.active_channels.values() if not connection.busy()]
        for connection in heapq.nsmallest(_AT_ONCE, idle, key=lambda each: each.since):
            connection.handle_close()
        _log.debug(
            "all %d connections are taken: the longest idle of %d made room", self.adj.connection_limit, len(idle)
        )
