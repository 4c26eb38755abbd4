"""The only room that writes files: durably, or not at all.

A durable write is: temporary file in the same folder, write, flush, fsync, rename, fsync the folder.
POSIX promises that the rename is atomic; only the two fsyncs make it survive a power cut. Windows
cannot fsync a folder; there the rename alone has to do.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.errors import DiskFull, ExportError, OutputExists, UnsafePath
from edgekit.manifest import is_safe_path

Buffer = bytes | memoryview

_READ_BYTES = 1 << 20
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes | Sequence[Buffer], *, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that a reader or a power cut sees the old bytes or the new, never a mixture.

    Pieces are written one after the other, so that large data need not be joined in memory first. Raises OSError, which
    names the file also where the system does not (a full disk).
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines([data] if isinstance(data, bytes) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(problem, OSError) and problem.filename is None:
            problem.filename = str(path)
        raise
    fsync_folder(path.parent)


def create_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that is not there yet: whole, durable, and from the beginning readable to whom `mode` says only.

    Raises FileExistsError if somebody was faster; theirs is then whole too.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        _take_free_name(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    fsync_folder(path.parent)


def _take_free_name(temporary: Path, path: Path) -> None:
    """A second name, since a link never replaces what is there; where a disk has no links (FAT), a look must do."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is inside of the block, of those that name the same lock file. It stays behind, empty.

    Windows has no such lock in the standard library; there the last of two writers wins, with a whole file.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)  # given back when the file is closed, also by a crash
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def taken(path: Path, note: bytes) -> Iterator[None]:
    """As `locked`, but whoever comes second does not wait: raises BlockingIOError. The file then says `note`.

    The system gives the lock back when its process ends, however it ends: what a file says after a crash locks nobody
    out, and nothing is ever removed. The note is for people alone.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take_at_once(handle)
        os.ftruncate(handle, 0)
        os.write(handle, note)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _take_at_once(handle: int) -> None:
    """Raises BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 30, os.SEEK_SET)  # beyond the note, which others may read
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def staging(target: Path, *, needed_bytes: int = 0) -> Iterator[Path]:
    """A new folder beside `target` that takes its name when the block ends well, and is gone when it does not.

    Raises OutputExists if `target` is there already, DiskFull before the first byte if `needed_bytes` do not
    fit, and DiskFull for a write inside the block that found no space.
    """
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise OutputExists(str(target))
    if not target.parent.is_dir():
        raise ExportError(f"the folder {target.parent} does not exist")
    free = shutil.disk_usage(target.parent).free
    if free < needed_bytes:
        raise DiskFull(str(target.parent), needed_bytes, free)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.partial-"))
    try:
        yield folder
        folder.chmod(0o755)
        for file in folder.rglob("*"):
            if file.is_file():
                _fsync_file(file)
        fsync_folder(folder)
        _take_name(folder, target)
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise DiskFull(str(target.parent), needed_bytes, shutil.disk_usage(target.parent).free) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_name(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise OutputExists(str(target)) from error
        raise
    fsync_folder(target.parent)


def _fsync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 lower-case hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def safe_join(folder: Path, relative: str) -> Path:
    """`folder / relative` if that is a plain path inside `folder` with no symbolic link on the way.

    Raises UnsafePath otherwise: absolute, with `..`, or through a link.
    """
    if not is_safe_path(relative):
        raise UnsafePath(str(folder), repr(relative))
    path = folder
    for part in relative.split("/"):
        path = path / part
        if path.is_symlink():
            raise UnsafePath(str(folder), f"{relative!r} is a symbolic link")
    return path
