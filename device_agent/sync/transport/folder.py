"""A repository in a folder: a disk, a network share, a stick that somebody may pull at any moment."""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from device_agent.sync.records import Source
from edgekit.errors import CorruptRelease, NotInRepository, Unreachable, UnsafePath
from edgekit.files import safe_join
from edgekit.manifest import is_safe_path

PIECE_BYTES = 1 << 18

_PLAIN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_BY_HANDLE = os.open in os.supports_dir_fd and bool(_NO_LINK) and sys.platform != "win32"


class FolderSource(Source):
    """Reads plain files inside of a folder. No symbolic link is followed, and no pipe or device opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def holds(self) -> Literal["packs", "files"]:
        """Packs, as published."""
        return "packs"

    def read(self, path: str, *, limit: int) -> bytes:
        """A whole file. Raises NotInRepository, Unreachable, CorruptRelease."""
        with self._opened(path) as (handle, size):
            if size > limit:
                raise CorruptRelease(f"{path} has {size:,} bytes, and may have {limit:,}")
            return b"".join(_pieces(handle, size, path))

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        """A part of a file. Raises NotInRepository, Unreachable, CorruptRelease."""
        with self._opened(path) as (handle, found):
            if found != size:
                raise CorruptRelease(f"{path} has {found:,} bytes, and should have {size:,}")
            os.lseek(handle, start, os.SEEK_SET)
            yield from _pieces(handle, length, path)

    def blame(self) -> None:
        """Nothing else to try."""

    def close(self) -> None:
        """Nothing is open between two calls, so that a stick may be pulled."""

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[tuple[int, int]]:
        """Handle and size of a plain file; errors of the disk inside of the block are the repository's."""
        try:
            handle = _open_inside(self._folder, path)
            try:
                facts = os.fstat(handle)
                if not stat.S_ISREG(facts.st_mode):
                    raise NotInRepository(f"{path}: what {self.name} has there is no file")
                yield handle, facts.st_size
            finally:
                os.close(handle)
        except UnsafePath as error:
            raise CorruptRelease(str(error)) from error
        except OSError as error:
            raise self._translated(path, error) from error

    def _translated(self, path: str, error: OSError) -> Unreachable | CorruptRelease:
        if error.errno == errno.ELOOP:
            return CorruptRelease(f"{path} in {self.name} leads through a symbolic link")
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        if gone and not self._folder.is_dir():
            return Unreachable(f"the folder {self.name} is not there")
        if gone:
            return NotInRepository(f"{path} ({self.name})")
        return Unreachable(f"{self.name}: {path}: {error.strerror or error}")


def _open_inside(folder: Path, path: str) -> int:
    """Handle of a file. Each part is opened from the one before, so that no link can be slipped in on the way."""
    if not is_safe_path(path):
        raise UnsafePath(str(folder), repr(path))
    if not _BY_HANDLE:
        return os.open(safe_join(folder, path), _PLAIN)
    *parents, last = path.split("/")
    at = os.open(folder, _PLAIN | _FOLDER)
    try:
        for part in parents:
            below = _step(at, part, _FOLDER)
            os.close(at)
            at = below
        return _step(at, last, 0)
    finally:
        os.close(at)


def _step(at: int, part: str, flags: int) -> int:
    try:
        return os.open(part, _PLAIN | _NO_LINK | flags, dir_fd=at)
    except NotADirectoryError:
        # Linux says so of a link too, if a folder is asked for.
        if stat.S_ISLNK(os.stat(part, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
        raise


def _pieces(handle: int, length: int, path: str) -> Iterator[bytes]:
    left = length
    while left:
        piece = os.read(handle, min(left, PIECE_BYTES))
        if not piece:
            raise Unreachable(f"{path} became shorter while it was read")
        left -= len(piece)
        yield piece
