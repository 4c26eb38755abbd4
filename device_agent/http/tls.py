"""TLS for the server's non-blocking sockets: certificate files to a context, and a socket that speaks through it.

waitress knows no TLS. Its loop needs a socket that takes and gives what it can at once and raises BlockingIOError
otherwise, and that is what a non-blocking SSL socket does, with three differences which `TlsSocket` hides: it begins
with a handshake that takes turns of reading and writing; reading may bring less than a record, and so nothing; and
OpenSSL's state must not be used by two threads at once, while waitress sends from one and receives on another.

No thread waits for a slow client: a thousand of them in the middle of a handshake cost a thousand small records, and
are cut off as any slow client is (connections.py).
"""

import errno
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Literal

from edgekit.errors import UsageError

RECORD_BYTES = 16 << 10
"""The most that a record holds (RFC 8446, section 5.1): asked for so much, OpenSSL keeps nothing back of one."""


def context(cert: Path, key: Path) -> ssl.SSLContext:
    """A server's side with this certificate: TLS 1.2 or newer. Raises UsageError for files that are not a pair."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION  # a client could keep the processor busy with it
    made.set_alpn_protocols(["http/1.1"])
    load(made, cert, key)
    return made


def load(into: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Use this certificate for connections to come. Raises UsageError; then the one before stays in use."""
    try:
        context_check = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for each in (context_check, into):  # a pair that does not fit must not take the place of one that does
            each.load_cert_chain(cert, key, password=b"")  # an encrypted key would otherwise ask on the terminal
    except (OSError, ValueError) as error:
        raise UsageError(f"the certificate {cert} with the key {key} cannot be used: {error}") from error


class TlsSocket:
    """A connection's socket as waitress's loop uses one. Raises BlockingIOError where it has to wait."""

    def __init__(self, raw: socket.socket, with_context: ssl.SSLContext) -> None:
        raw.settimeout(0)
        self._lock = threading.Lock()
        self._shaken = False
        self.wants: Literal["read", "write"] = "read"
        """What the handshake waits for."""
        self._tls = with_context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)

    @property
    def ready(self) -> bool:
        """Whether the handshake is done."""
        return self._shaken

    def shake(self) -> None:
        """One more step of the handshake. Raises BlockingIOError until it is done, OSError if it never will be."""
        with self._lock:
            self._shake()

    def recv(self, size: int) -> bytes:
        """What has come, at least a whole record if any; b"" once the client has closed."""
        with self._lock:
            self._shake()
            try:
                found = self._tls.recv(max(size, RECORD_BYTES))
                while rest := self._tls.pending():  # the loop only sees what the kernel holds
                    found += self._tls.recv(rest)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise _later() from error
            return found

    def send(self, data: bytes) -> int:
        """How many bytes were taken."""
        with self._lock:
            self._shake()
            try:
                return self._tls.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                raise _later() from error
            except ssl.SSLError as error:  # waitress takes a lost connection for one by its number
                raise ConnectionResetError(errno.ECONNRESET, str(error)) from error

    def close(self) -> None:
        """Say that nothing more comes, so that a client can tell an end from a cut, and close."""
        with self._lock:
            if self._shaken:
                try:
                    self._tls.unwrap()
                except (OSError, ValueError):  # its own goodbye is not waited for, and it may be long gone
                    self._shaken = False
            self._tls.close()

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._tls.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - socket's own signature
        """As waitress asks for: it never blocks."""

    def getsockopt(self, level: int, option: int) -> int:
        """As of the socket below."""
        return self._tls.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """As of the socket below."""
        self._tls.setsockopt(level, option, value)

    def _shake(self) -> None:
        if self._shaken:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError as error:
            self.wants = "read"
            raise _later() from error
        except ssl.SSLWantWriteError as error:
            self.wants = "write"
            raise _later() from error
        self._shaken = True


def _later() -> BlockingIOError:
    return BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
