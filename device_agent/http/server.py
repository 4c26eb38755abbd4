"""The WSGI server: waitress, bound first, drained at the end.

Why waitress: pure Python, sends each chunk of a stream at once, and with `channel_request_lookahead` it notices a
client that left while nothing is written (measured: within 0.2 s).
"""

import errno
import ipaddress
import os
import socket
import ssl
import sys
import threading
import time
from typing import Literal

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from device_agent.http import tls
from device_agent.http.connections import Listener
from device_agent.http.settings import HttpSettings
from edgekit.errors import AddressInUse, UsageError

_DISCARD_BYTES = 16 << 20
"""A body over the limit is still read up to here, so that its sender gets to read the answer."""

_SPARE_FILES = 128
"""Files that are left for models, logs and databases."""

_JOIN_S = 5.0
"""How long threads may take to notice that their clients were cut off."""

_TURN_S = 0.1
"""How often the draining server looks whether all is sent."""


class Server:
    """`app` on a port that is taken as soon as this object exists; port 0 takes any free one.

    Raises AddressInUse, or UsageError if there is no such address or no permission for it, or for a certificate that
    cannot be used.
    """

    def __init__(self, app: Flask, *, host: str, port: int, settings: HttpSettings) -> None:
        self._settings = settings
        self._tls = tls.context(settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
        self._socket = _bind(host, port)
        self._stopping = threading.Event()
        self._lock = threading.RLock()  # re-entrant: a signal handler may call close() inside serve()
        self._state: Literal["new", "serving", "ended"] = "new"
        try:
            self._server = _listener(app, self._socket, settings, self._tls)
        except BaseException:
            self._socket.close()
            raise

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
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{address}]:{self.port}" if address.version == 6 else f"{scheme}://{address}:{self.port}"

    def renew_certificate(self) -> None:
        """Read the certificate's files again, for connections to come. Raises UsageError; the old one then stays."""
        if self._tls is not None and self._settings.tls_cert and self._settings.tls_key:
            tls.load(self._tls, self._settings.tls_cert, self._settings.tls_key)

    def serve(self) -> None:
        """Serve until `close` is called, then let running requests finish for `drain_s` and cut off the rest."""
        with self._lock:
            if self._state != "new":
                return
            self._state = "serving"
        try:
            while not self._stopping.is_set():
                self._server.tend()
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
            self._server.tend()
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


def _listener(app: Flask, bound: socket.socket, settings: HttpSettings, context: ssl.SSLContext | None) -> Listener:
    adjustments = Adjustments(
        sockets=[bound],
        threads=settings.threads,
        connection_limit=min(settings.connection_limit, _most_files()),
        channel_request_lookahead=1,
        max_request_body_size=max(_DISCARD_BYTES, settings.body_limit_bytes + 1),
        max_request_header_size=64 << 10,
        outbuf_overflow=16 << 20,  # no answer is that long: nothing spills into temporary files
        asyncore_use_poll=True,  # select() ends at 1,024 files
        log_socket_errors=False,  # a client that leaves is no error
        clear_untrusted_proxy_headers=False,  # they are never believed, but tell that a proxy asks (callers.py)
        url_scheme="http" if context is None else "https",
        ident="edgekit",
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(settings.threads)
    return Listener(
        http=settings,
        tls=context,
        application=app,
        map={},
        _sock=bound,
        dispatcher=dispatcher,
        adj=adjustments,
        sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()),
    )


def _most_files() -> int:
    """Connections that leave the rest of the program its files: without one left, nothing could be accepted at all."""
    if sys.platform == "win32":
        return _SPARE_FILES * 4
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_SPARE_FILES // 4, soft - _SPARE_FILES) if soft != resource.RLIM_INFINITY else 1 << 16


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
