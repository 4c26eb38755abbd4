"""Files inside of one folder, by the system's plain calls, and what the disk's errors mean to an update.

No link is ever followed, and no file is written that has a second name: it would be another release's too.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgekit.errors import CorruptRelease, NoSpace, StorageFailed, UnsafePath
from edgekit.files import safe_join

READ_BYTES = 1 << 20
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def disk_errors(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Raises NoSpace where no space is left (or no quota), StorageFailed for everything else that a disk can say."""
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise NoSpace(str(folder), needed_bytes, _free_bytes(folder)) from error
        raise StorageFailed(f"{error.filename or folder}: {error.strerror or error}") from error


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


# --- reading ----------------------------------------------------------------------------------


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Up to `size` bytes, fewer at the file's end. Raises OSError, also for a link and for what is no file."""
    handle = open_plain(path)
    try:
        os.lseek(handle, offset, os.SEEK_SET)
        pieces, left = [], size
        while left and (piece := os.read(handle, left)):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        os.close(handle)


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A handle of a regular file that is no link. Raises OSError."""
    if path.is_symlink():  # O_NOFOLLOW says the same without a gap, but Windows does not have it
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    handle = os.open(path, flags | _PLAIN | getattr(os, "O_NONBLOCK", 0), 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return handle


def hash_handle(handle: int, each: Callable[[], None]) -> str:
    """SHA-256 of a whole open file; `each` is called after every 1 MiB. Raises OSError."""
    digest = hashlib.sha256()
    os.lseek(handle, 0, os.SEEK_SET)
    while piece := os.read(handle, READ_BYTES):
        digest.update(piece)
        each()
    return digest.hexdigest()


def hash_file(path: Path, each: Callable[[], None]) -> str:
    """SHA-256 of a whole file. Raises OSError."""
    handle = open_plain(path)
    try:
        return hash_handle(handle, each)
    finally:
        os.close(handle)


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, what is in a folder before the folder. Links are told, and not followed."""
    with os.scandir(folder) as listed:
        found = sorted(listed, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from entries(Path(entry.path))
        yield entry


def relative(folder: Path, entry: os.DirEntry[str]) -> str:
    """An entry's path below `folder`, with `/`."""
    return Path(entry.path).relative_to(folder).as_posix()


def folders_of(paths: Iterable[str]) -> frozenset[str]:
    """Every folder that such relative paths are in."""
    return frozenset(parent.as_posix() for path in paths for parent in Path(path).parents if parent.as_posix() != ".")


# --- writing ----------------------------------------------------------------------------------


def inside(folder: Path, path: str) -> Path:
    """Where a file of a release is, all folders on the way made. Raises CorruptRelease for a link, wherever it is."""
    place = below(folder, path)
    if place.is_symlink():
        raise CorruptRelease(f"{place} is a link")
    return place


def below(folder: Path, path: str) -> Path:
    """The same, whatever the file itself is: to be replaced. Raises CorruptRelease."""
    *parents, name = path.split("/")
    place = folder
    try:
        for depth in range(1, len(parents) + 1):
            place = safe_join(folder, "/".join(parents[:depth]))
            with contextlib.suppress(FileExistsError):
                place.mkdir()
    except UnsafePath as error:
        raise CorruptRelease(str(error)) from error
    return place / name


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write into a file, which is made if it is not there. Raises OSError, and CorruptRelease for a shared file."""
    handle = open_plain_for_writing(path)
    try:
        os.lseek(handle, offset, os.SEEK_SET)
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
    finally:
        os.close(handle)


def open_plain_for_writing(path: Path) -> int:
    """A handle of a file that has one name only. Raises OSError, CorruptRelease."""
    handle = open_plain(path, os.O_WRONLY | os.O_CREAT)
    if os.fstat(handle).st_nlink > 1:
        os.close(handle)
        raise CorruptRelease(f"{path} turned into another file while it was written")
    return handle


def open_to_sync(path: Path) -> int:
    """A handle of a file that is to be fsynced and read. Raises OSError."""
    return open_plain(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes only what may be written


def make_writable(path: Path) -> None:
    """Let the owner write to a file or a folder that is read only. Raises OSError."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if not mode & stat.S_IWUSR:
        path.chmod(mode | stat.S_IWUSR)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder and what is in it; nothing may be there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        for entry in list(entries(path)):
            if entry.is_dir(follow_symlinks=False):
                Path(entry.path).rmdir()
            else:
                _unlink(Path(entry.path))
        path.rmdir()
    else:
        _unlink(path)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        if os.name != "nt":
            raise
        path.chmod(0o600)  # Windows keeps what is read only
        path.unlink()
