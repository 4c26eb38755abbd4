"""One web server that does everything wrong, on request: honest until a test says what to spoil.

    with Hostile({"packs/x": data}) as server:
        server.then(cut(1000), None, says(503, {"Retry-After": "7"}))   # the next three answers; None is honest
        server.always(no_ranges())                                     # all others

A fault makes a bad reply of a good one. The server knows single ranges and keeps connections, and is a proxy for those
who ask it with whole URLs (`tunnels` says where CONNECT leads).
"""

import contextlib
import gzip
import re
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request. `path` has no slash at its beginning; `url` is the whole request target."""

    path: str
    url: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass(frozen=True)
class Reply:
    """What is sent. After `cut` bytes of the body the connection is closed, with a reset if `reset`.

    `endless` is sent again and again after the body, until the client has had enough; `raw` replaces everything.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    cut: int | None = None
    reset: bool = False
    endless: bytes = b""
    raw: bytes | None = None

    def saying(self, **headers: str | None) -> "Reply":
        """With other fields; None takes one away. `_` stands for `-`."""
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        merged = {**self.headers, **named}
        return replace(self, headers={name: value for name, value in merged.items() if value is not None})

    def carrying(self, body: bytes) -> "Reply":
        """With another body, and its length."""
        return replace(self, body=body).saying(content_length=str(len(body)))


Fault = Callable[[Asked, Reply, bytes | None], Reply]
"""From a request, the honest reply, and the whole file if there is one."""


# --- what can go wrong ------------------------------------------------------------------------


def honestly() -> Fault:
    """Nothing."""
    return lambda _asked, reply, _file: reply


def cut(after: int, *, reset: bool = False) -> Fault:
    """The connection ends after so many bytes of the body."""
    return lambda _asked, reply, _file: replace(reply, cut=after, reset=reset)


def no_ranges() -> Fault:
    """200 with the whole file, whatever was asked for."""
    return lambda _asked, reply, file: reply if file is None else whole(file)


def content_range(text: str | None) -> Fault:
    """Another Content-Range, or none."""
    return lambda _asked, reply, _file: reply.saying(content_range=text)


def says(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"no\n") -> Fault:
    """A status instead of the file."""
    return lambda _asked, _reply, _file: Reply(status, {"Content-Length": str(len(body)), **(headers or {})}, body)


def gzipped() -> Fault:
    """What a "data saver" on the way does."""
    return lambda _asked, reply, _file: reply.carrying(gzip.compress(reply.body)).saying(content_encoding="gzip")


def portal(page: bytes = b"<html><h1>Welcome to our lounge</h1></html>") -> Fault:
    """A network that answers everything with a page of its own."""
    return says(200, {"Content-Type": "text/html; charset=utf-8"}, page)


def redirected(to: str, status: int = 302) -> Fault:
    """Somewhere else; "{path}" stands for what was asked for."""
    return lambda asked, _reply, _file: Reply(
        status, {"Content-Length": "0", "Location": to.replace("{path}", asked.path)}
    )


def flipped(at: int) -> Fault:
    """One bit of the body is another one."""

    def fault(_asked: Asked, reply: Reply, _file: bytes | None) -> Reply:
        body = bytearray(reply.body)
        body[at % len(body)] ^= 1
        return replace(reply, body=bytes(body))

    return fault


def instead(body: bytes) -> Fault:
    """Another file, for instance the one of yesterday out of a cache."""
    return lambda _asked, reply, _file: reply.carrying(body)


def over_long(more: int) -> Fault:
    """More bytes than there should be, and a length that says so."""
    return lambda _asked, reply, _file: reply.carrying(reply.body + b"\0" * more)


def chunked(piece: int = 1000) -> Fault:
    """No length, but chunks (RFC 9112, 7.1)."""

    def fault(_asked: Asked, reply: Reply, _file: bytes | None) -> Reply:
        pieces = [reply.body[at : at + piece] for at in range(0, len(reply.body), piece)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in pieces) + b"0\r\n\r\n"
        return replace(reply, body=body).saying(content_length=None, transfer_encoding="chunked")

    return fault


def endless(piece: bytes = b"\0" * 1000) -> Fault:
    """A body without length or end."""
    return lambda _asked, reply, _file: replace(reply, endless=piece).saying(content_length=None, connection="close")


def raw(data: bytes, then: bytes = b"") -> Fault:
    """Bytes that need not be HTTP, and then `then` without end."""
    return lambda _asked, reply, _file: replace(reply, raw=data, endless=then)


def whole(file: bytes) -> Reply:
    return Reply(200, {"Content-Length": str(len(file)), "Content-Type": "application/octet-stream"}, file)


# --- the server -------------------------------------------------------------------------------

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def honest(asked: Asked, file: bytes | None) -> Reply:
    """What a good server answers."""
    if file is None:
        return Reply(404, {"Content-Length": "10", "Content-Type": "text/plain"}, b"not found\n")
    match = _RANGE.fullmatch(asked.range or "")
    if match is None:
        return whole(file)
    first, last = int(match[1]), min(int(match[2] or len(file)), len(file) - 1)
    if first > last:
        return Reply(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(file)}"})
    part = file[first : last + 1]
    headers = {"Content-Range": f"bytes {first}-{last}/{len(file)}", "Content-Length": str(len(part))}
    return Reply(206, headers, part)


@dataclass
class Hostile:
    """Serves a folder or a table of files. `asked` has all requests, `connections` counts; `port` 0 is any free one."""

    files: Path | Mapping[str, bytes]
    tls: ssl.SSLContext | None = None
    tunnels: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._script: deque[Fault | None] = deque()
        self._always: list[tuple[re.Pattern[str], Fault]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.hostile = self
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def then(self, *faults: Fault | None) -> None:
        """What becomes of the next answers."""
        self._script.extend(faults)

    def always(self, fault: Fault, paths: str = ".*") -> None:
        """What becomes of the answers of which `then` says nothing, for paths that match."""
        self._always.insert(0, (re.compile(paths), fault))

    def mend(self) -> None:
        """No more faults."""
        self._script.clear()
        self._always.clear()

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            file = self._file(asked.path)
            good = honest(asked, file)
            fault = self._script.popleft() if self._script else self._fault_of(asked.path)
            return good if fault is None else fault(asked, good, file)

    def _fault_of(self, path: str) -> Fault | None:
        return next((fault for paths, fault in self._always if paths.fullmatch(path)), None)

    def _file(self, path: str) -> bytes | None:
        if isinstance(self.files, Mapping):
            return self.files.get(path)
        found = self.files / path
        return found.read_bytes() if ".." not in path and found.is_file() else None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    hostile: Hostile

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave in the middle are the subject of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20.0  # a thread of a broken test does not stay for ever
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.hostile.connections += 1

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send(self.server.hostile.reply(Asked(path, self.path, headers)))

    def do_CONNECT(self) -> None:
        hostile = self.server.hostile
        hostile.asked.append(Asked("", self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path not in hostile.tunnels:
            self.send(Reply(403, {"Content-Length": "0"}))
            return
        with socket.create_connection(hostile.tunnels[self.path]) as there:
            self.send(Reply(200, {}))
            _relay(self.connection, there)
        self.close_connection = True

    def send(self, reply: Reply) -> None:
        for piece in _wire(reply):
            self.wfile.write(piece)
        if reply.cut is not None or reply.raw is not None or reply.headers.get("Connection") == "close":
            self.close_connection = True
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _wire(reply: Reply) -> Iterator[bytes]:
    if reply.raw is not None:
        yield reply.raw
    else:
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        yield f"HTTP/1.1 {reply.status} X\r\n{head}\r\n".encode("latin-1")
        yield reply.body if reply.cut is None else reply.body[: reply.cut]
    while reply.endless:
        yield reply.endless


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways until either side has ended."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()
