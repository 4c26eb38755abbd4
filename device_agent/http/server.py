"""The WSGI server: waitress, bound first, drained at the end.

Why waitress: pure Python, sends each chunk of a stream at once, and with `channel_request_lookahead` it notices a
client that left while nothing is written (measured: within 0.2 s).
"""

import errno
import ipaddress
import os
import socket
import threading
import time
from typing import Any, Literal

import msgspec
from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from device_agent.http.settings import HttpSettings
from edgekit.errors import AddressInUse, UsageError

_DISCARD_BYTES = 16 << 20
"""A body over the limit is still read up to here, so that its sender gets to read the answer."""

_JOIN_S = 5.0
"""How long threads may take to notice that their clients were cut off."""

_TURN_S = 0.1
"""How often the draining server looks whether all is sent."""


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses before Flask sees it (malformed or enormous requests), in the API's shape."""

    def execute(self) -> None:
        problem = self.request.error
        message = f"{problem.reason}: {problem.body}"
        kind = "server_error" if problem.code >= 500 else "invalid_request_error"
        body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})
        self.status = f"{problem.code} {problem.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    error_task_class = _JsonErrorTask


class Server:
    """`app` on a port that is taken as soon as this object exists; port 0 takes any free one.

    Raises AddressInUse, or UsageError if there is no such address or no permission for it.
    """

    def __init__(self, app: Flask, *, host: str, port: int, settings: HttpSettings) -> None:
        self._settings = settings
        self._socket = _bind(host, port)
        self._stopping = threading.Event()
        self._lock = threading.RLock()  # re-entrant: a signal handler may call close() inside serve()
        self._state: Literal["new", "serving", "ended"] = "new"
        self._server: Any = create_server(
            app,
            sockets=[self._socket],
            threads=settings.threads,
            connection_limit=settings.connection_limit,
            channel_timeout=settings.idle_timeout_s,
            channel_request_lookahead=1,
            max_request_body_size=max(_DISCARD_BYTES, settings.body_limit_bytes + 1),
            max_request_header_size=64 << 10,
            outbuf_overflow=16 << 20,  # no answer is that long: nothing spills into temporary files
            asyncore_use_poll=True,  # select() ends at 1,024 files
            log_socket_errors=False,  # a client that leaves is no error
            ident="edgekit",
        )
        self._server.channel_class = _Channel

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.effective_port)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the agent; no slash at the end."""
        address = ipaddress.ip_address(self._server.effective_host.partition("%")[0])
        if address.is_unspecified:
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        return f"http://[{address}]:{self.port}" if address.version == 6 else f"http://{address}:{self.port}"

    def serve(self) -> None:
        """Serve until `close` is called, then let running requests finish for `drain_s` and cut off the rest."""
        with self._lock:
            if self._state != "new":
                return
            self._state = "serving"
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=1, use_poll=True, map=self._server._map, count=1)  # noqa: SLF001
            self._drain()
        finally:
            self._end()

    def close(self) -> None:
        """Ask `serve` to end, or give the port back if it never ran. From any thread or signal handler, repeatedly."""
        self._stopping.set()
        with self._lock:
            if self._state == "serving":
                self._server.pull_trigger()
            elif self._state == "new":
                self._end()

    def _drain(self) -> None:
        self._server.accepting = False
        deadline = time.monotonic() + self._settings.drain_s
        while time.monotonic() < deadline and self._busy():
            wasyncore.loop(timeout=_TURN_S, use_poll=True, map=self._server._map, count=1)  # noqa: SLF001

    def _busy(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def _end(self) -> None:
        with self._lock:
            self._state = "ended"
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # requests that still run see that their client is gone, and cancel
        self._server.task_dispatcher.shutdown(timeout=_JOIN_S)
        wasyncore.close_all(self._server._map, ignore_all=True)  # noqa: SLF001


def _bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket; of a name's addresses an IPv4 one, since that is what people type next."""
    where = f"{host or '*'}:{port}"
    if not 0 <= port < 1 << 16:
        raise UsageError(f"cannot listen on {where}: ports go from 0 to 65535.")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot listen on {where}: {error}") from error
    try:
        if os.name == "posix":  # elsewhere this option would let two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{where}: the address is in use.") from error
        raise UsageError(f"cannot listen on {where}: {error}") from error
    return listener
