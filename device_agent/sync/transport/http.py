"""A repository on web servers: whole small files, and single ranges of packs.

A range is asked for by `Range: bytes=a-b` and nothing but 206 with exactly that Content-Range counts as one. Never
several ranges at once: caches, object stores and limits of servers get those wrong. A server (or a proxy) that knows no
ranges answers 200 with the whole file: it is read up to where the bytes are, and kept open, since what is asked for
next mostly lies further on.
"""

import re
from collections.abc import Iterator
from typing import Literal

from device_agent.sync.records import Source
from device_agent.sync.transport.throttle import PIECE_BYTES
from device_agent.sync.transport.web import Answer, Web
from edgekit.errors import CorruptRelease, SyncError, Unreachable

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


class HttpSource(Source):
    """Reads below a base address. `piece_bytes` are read at once."""

    def __init__(self, web: Web, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._web = web
        self._piece_bytes = piece_bytes
        self._whole: _Whole | None = None

    @property
    def name(self) -> str:
        """The address, without user name, password and query."""
        return self._web.base.name

    @property
    def holds(self) -> Literal["packs", "files"]:
        """Packs, as published."""
        return "packs"

    @property
    def rest_s(self) -> float:
        """How long the server asked to be left alone, with its last answer."""
        return self._web.rest_s

    def read(self, path: str, *, limit: int) -> bytes:
        """A whole file. Raises NotInRepository, Unreachable, CorruptRelease."""
        self._drop()
        answer = self._web.get(path, {"Cache-Control": "no-cache, no-transform"})
        try:
            self._check_page(answer, path)
            self._check_coding(answer, path)
            if (answer.length or 0) > limit:
                raise CorruptRelease(f"{path} has {answer.length:,} bytes, and may have {limit:,}")
            return self._body(answer, path, limit)
        finally:
            answer.close()

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """A part of a file. Raises NotInRepository, Unreachable, CorruptRelease."""
        if not self._goes_on(path, size, start):
            self._drop()
            headers = {} if length == size else {"Range": f"bytes={start}-{start + length - 1}"}
            answer = self._web.get(path, headers, expect=(200, 206) if headers else (200,))
            if answer.status == 206:
                yield from self._part(answer, path, start, length, size)
                return
            self._whole = self._begun(answer, path, size)
        yield from self._out_of_whole(start, length)

    def blame(self) -> None:
        """Nobody else to ask."""
        self._drop()

    def close(self) -> None:
        """Close connections."""
        self._drop()
        self._web.close()

    # --- whole files ----------------------------------------------------------------------------

    def _body(self, answer: Answer, path: str, limit: int) -> bytes:
        parts, count = [], 0
        for part in answer.pieces(self._piece_bytes):
            parts.append(part)
            count += len(part)
            if count > limit:
                raise CorruptRelease(f"{path} is longer than {limit:,} bytes")
        if answer.length is not None and count < answer.length:
            raise self._cut(path, count, answer.length)
        return b"".join(parts)

    def _begun(self, answer: Answer, path: str, size: int) -> "_Whole":
        """A whole file where a part was asked for. Raises CorruptRelease or Unreachable if it cannot be that file."""
        try:
            if answer.length != size:
                self._check_page(answer, path)
            self._check_coding(answer, path)
            if answer.length not in (None, size):
                raise CorruptRelease(f"{path}: {self.name} has {answer.length:,} bytes of it, and {size:,} were signed")
        except SyncError:
            answer.close()
            raise
        return _Whole(answer, path, size, self._piece_bytes)

    def _goes_on(self, path: str, size: int, start: int) -> bool:
        return self._whole is not None and self._whole.reaches(path, size, start)

    def _out_of_whole(self, start: int, length: int) -> Iterator[bytes]:
        whole = self._whole
        if whole is None:
            return
        self._whole = None  # until this has ended well
        ended = False
        try:
            for piece in whole.take(start, length):
                length -= len(piece)
                yield piece
            if length:
                raise self._cut(whole.path, whole.position, whole.size)
            ended = whole.position < whole.size
        finally:
            if ended:
                self._whole = whole
            else:
                whole.close()

    def _drop(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None

    # --- parts ----------------------------------------------------------------------------------

    def _part(self, answer: Answer, path: str, start: int, length: int, size: int) -> Iterator[bytes]:
        try:
            self._check_coding(answer, path)
            said = answer.headers.get("Content-Range", "")
            if not _is_range(said, start, length, size):
                raise CorruptRelease(
                    f"{path}: bytes {start}-{start + length - 1} of {size} were asked for, and {self.name} says that "
                    f"it sends {said[:100]!r}"
                )
            left = length
            for piece in answer.pieces(self._piece_bytes):
                yield piece[:left]
                left -= min(left, len(piece))
                if not left:
                    return
            raise self._cut(path, length - left, length)
        finally:
            answer.close()

    def _check_page(self, answer: Answer, path: str) -> None:
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            raise Unreachable(
                f"{self.name} answers with a web page instead of {path}: "
                "is this a network where one has to log in first?"
            )

    def _check_coding(self, answer: Answer, path: str) -> None:
        coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise CorruptRelease(f"{path}: {self.name}, or a proxy on the way, sends it as {coding[:40]!r}")

    def _cut(self, path: str, count: int, expected: int) -> Unreachable:
        return Unreachable(f"{self.name}: the connection ended after {count:,} of {expected:,} bytes of {path}")


class _Whole:
    """A file that comes from its beginning, and how much of it has been passed."""

    def __init__(self, answer: Answer, path: str, size: int, piece_bytes: int) -> None:
        self.path = path
        self.size = size
        self.position = 0
        self._answer = answer
        self._pieces = answer.pieces(piece_bytes)
        self._left_over = b""

    def reaches(self, path: str, size: int, start: int) -> bool:
        """Whether bytes from `start` of that file are still to come."""
        return (self.path, self.size) == (path, size) and start >= self.position

    def take(self, start: int, length: int) -> Iterator[bytes]:
        """Bytes from `start`, which may end early as the connection may. Raises Unreachable."""
        while length:
            piece = self._left_over or next(self._pieces, b"")
            self._left_over = b""
            if not piece:
                return
            skipped = min(len(piece), max(0, start - self.position))
            taken = piece[skipped : skipped + length]
            self._left_over = piece[skipped + len(taken) :]
            self.position += skipped + len(taken)
            length -= len(taken)
            if taken:
                yield taken

    def close(self) -> None:
        """Leave the rest."""
        self._answer.close()


def _is_range(said: str, start: int, length: int, size: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(said.strip())
    return (
        match is not None
        and (int(match[1]), int(match[2])) == (start, start + length - 1)
        and match[3] in (str(size), "*")
    )
