"""A repository in one plain .tar file, read where it is by an index of its members; nothing is ever extracted.

Its own reader and not `tarfile`, since the file may be hostile: `tarfile` reads headers of any size into memory,
follows links between members, and has endless loops (CVE-2019-20907, CVE-2025-8194) in versions that devices still
run. Known are plain files, folders (which are passed over), and the two ways of writing long names: pax's `path` and
GNU's `L`. Anything else is refused: links, devices, sparse files, names that no repository has or that come twice.
"""

import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_agent.sync.records import Source
from edgekit.errors import CorruptRelease, NotInRepository, Unreachable

_PLAIN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
BLOCK = 512
MOST_HEADERS = 100_000
MOST_EXTRA_BYTES = 1 << 13
PIECE_BYTES = 1 << 18

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_GRAMMAR = re.compile(
    rf"metadata/(timestamp|\d{{1,15}}\.(root|snapshot|targets|releases|rollout))\.json"
    rf"|targets/(releases|channels|deltas)/[0-9a-f]{{64}}\.{_NAME}\.json"
    rf"|packs/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.pack",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file's bytes are in the tar."""

    offset: int
    size: int


class TarSource(Source):
    """Reads the members of one file, which is opened and indexed when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._index: Mapping[str, Member] = {}

    @property
    def name(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def holds(self) -> Literal["packs", "files"]:
        """Packs, as published."""
        return "packs"

    def read(self, path: str, *, limit: int) -> bytes:
        """A whole member. Raises NotInRepository, Unreachable, CorruptRelease."""
        member = self._member(path)
        if member.size > limit:
            raise CorruptRelease(f"{path} has {member.size:,} bytes, and may have {limit:,}")
        return b"".join(self._pieces(path, member.offset, member.size))

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """A part of a member. Raises NotInRepository, Unreachable, CorruptRelease."""
        member = self._member(path)
        if member.size != size:
            raise CorruptRelease(f"{path} has {member.size:,} bytes, and should have {size:,}")
        yield from self._pieces(path, member.offset + start, length)

    def blame(self) -> None:
        """Nothing else to try."""

    def close(self) -> None:
        """Close the file; it is indexed anew if it is needed again."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle, self._index = None, {}

    def _member(self, path: str) -> Member:
        try:
            if self._handle is None:
                self._open()
        except FileNotFoundError as error:
            raise Unreachable(f"{self.name} is not there") from error
        except OSError as error:
            raise Unreachable(f"{self.name}: {error.strerror or error}") from error
        if path not in self._index:
            raise NotInRepository(f"{path} ({self.name})")
        return self._index[path]

    def _open(self) -> None:
        handle = os.open(self._path, _PLAIN)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):  # a pipe on a stranger's stick would never end
                raise Unreachable(f"{self.name} is no file")
            with os.fdopen(os.dup(handle), "rb", buffering=0) as stream:
                self._index = index(stream, os.fstat(handle).st_size, name=self.name)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def _pieces(self, path: str, offset: int, length: int) -> Iterator[bytes]:
        while length:
            piece = self._read_at(path, offset, min(length, PIECE_BYTES))
            offset += len(piece)
            length -= len(piece)
            yield piece

    def _read_at(self, path: str, offset: int, count: int) -> bytes:
        """Some bytes, at least one. The place is said each time: several streams may be under way."""
        if self._handle is None:
            raise Unreachable(f"{self.name} was closed")
        try:
            os.lseek(self._handle, offset, os.SEEK_SET)
            piece = os.read(self._handle, count)
        except OSError as error:
            raise Unreachable(f"{self.name}: {path}: {error.strerror or error}") from error
        if not piece:
            raise Unreachable(f"{self.name} became shorter while it was read")
        return piece


# --- the index --------------------------------------------------------------------------------


def index(stream: io.RawIOBase, size: int, *, name: str) -> dict[str, Member]:
    """Members of a tar of `size` bytes by their names. Raises CorruptRelease for whatever is no plain repository."""
    try:
        return _index(stream, size)
    except _BadTarError as error:
        raise CorruptRelease(f"{name} is no tar file of a repository: {error}") from error


class _BadTarError(Exception):
    """What is wrong with it."""


def _index(stream: io.RawIOBase, size: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    long_name: str | None = None
    offset = headers = 0
    while not _is_end(block := _block(stream, offset, size)):
        headers += 1
        if headers > MOST_HEADERS:
            raise _BadTarError(f"it has more than {MOST_HEADERS:,} headers")
        header = _header(block)
        offset += BLOCK
        if offset + header.size > size:
            raise _BadTarError(f"it ends in the middle of {header.name[:200]!r}")
        if header.kind in _LONG_NAMES:
            if long_name is not None:
                raise _BadTarError("a file has two long names")
            long_name = _LONG_NAMES[header.kind](_extra(stream, offset, header.size))
        else:
            _add(found, header, long_name or header.name, offset)
            long_name = None
        offset += -(-header.size // BLOCK) * BLOCK
    return found


def _add(found: dict[str, Member], header: "_Header", name: str, offset: int) -> None:
    if header.kind == _FOLDER and not header.size:
        return
    if header.kind not in _FILES:
        raise _BadTarError(f"{name[:200]!r} is no plain file (type {header.kind!r})")
    name = name.removeprefix("./")  # as `tar -cf x.tar .` writes them
    if not _GRAMMAR.fullmatch(name):
        raise _BadTarError(f"no repository has a file called {name[:200]!r}")
    if name in found:
        raise _BadTarError(f"{name!r} is in it twice")
    found[name] = Member(offset, header.size)


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    kind: bytes
    size: int


def _block(stream: io.RawIOBase, offset: int, size: int) -> bytes:
    if offset + BLOCK > size:
        raise _BadTarError("it ends too early")
    return _extra(stream, offset, BLOCK)


def _extra(stream: io.RawIOBase, offset: int, count: int) -> bytes:
    if count > MOST_EXTRA_BYTES:
        raise _BadTarError(f"a header has {count:,} bytes")
    stream.seek(offset)
    read = stream.read(count)
    if read is None or len(read) != count:
        raise _BadTarError("it ends too early")
    return read


def _is_end(block: bytes) -> bool:
    return not block.strip(b"\0")


def _header(block: bytes) -> _Header:
    """POSIX.1-1988 (ustar), and GNU's likeness of it."""
    magic = block[257:265]
    if magic not in (b"ustar\x0000", b"ustar  \0"):
        raise _BadTarError("a header has no mark of a tar file")
    if sum(block[:148]) + sum(block[156:]) + 8 * 0x20 != _octal(block[148:156]):
        raise _BadTarError("the checksum of a header is wrong")
    name = _text(block[:100])
    if magic[5:6] == b"\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return _Header(name, block[156:157], _octal(block[124:136]))


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        raise _BadTarError("a number in a header cannot be read")
    return int(digits, 8)


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode("ascii")
    except UnicodeDecodeError as error:
        raise _BadTarError("a name is not ASCII") from error


def _pax_name(raw: bytes) -> str | None:
    """The path that a pax header gives the next file (POSIX.1-2001), or None."""
    path, at = None, 0
    while at < len(raw):
        match = re.compile(rb"([1-9]\d{0,5}) ([^=\n]{1,100})=").match(raw, at)
        if match is None or raw[at + int(match[1]) - 1 : at + int(match[1])] != b"\n":
            raise _BadTarError("a pax header cannot be read")
        key, value = match[2], raw[match.end() : at + int(match[1]) - 1]
        if key == b"path":
            path = _text(value)
        elif key not in _HARMLESS:
            raise _BadTarError(f"a pax header says {key[:50]!r} of a file")
        at += int(match[1])
    return path


_FILES, _FOLDER = (b"0", b"\0"), b"5"
_LONG_NAMES: Mapping[bytes, Callable[[bytes], str | None]] = {b"x": _pax_name, b"L": _text}
_HARMLESS = frozenset({b"atime", b"ctime", b"mtime", b"uid", b"gid", b"uname", b"gname", b"comment"})
"""What a pax header may say besides. Not `size`, `linkpath` or of sparse files: those change what is read."""
