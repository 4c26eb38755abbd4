"""A bundle is written: into a folder, such as a stick's, or into one plain tar file.

    what is there already -> space -> copy what is missing, hashed on the way -> read all of it again -> timestamp.json

A stick that is pulled in between has what it had before, and the next try goes on where this one was: a file gets its
name once it is whole and fsynced, and `timestamp.json`, which says what is new, comes after everything was read back
and all names are durable.
"""

import collections
import contextlib
import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgekit.errors import NoSpace, PublishError
from edgekit.files import fsync_folder, write_durably
from edgekit.release.names import PACK_SUFFIX
from export.publish.bundles import Piece, Selection
from export.publish.devices import RETURNS
from export.publish.tree import TIMESTAMP, metadata_path

Tell = Callable[[int, int], None]
"""Bytes that were copied or read back, of how many."""

PARTIAL = ".part"
_READ_BYTES = 1 << 20
_SLACK_BYTES = 1 << 20
_BLOCK = 512
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Copied:
    """What was done: bytes that were written, and bytes that were there from before."""

    copied_bytes: int
    kept_bytes: int


class _Timestamp(msgspec.Struct):
    class _Signed(msgspec.Struct):
        version: int

    signed: _Signed


def write_folder(selection: Selection, repository: Path, folder: Path, tell: Tell) -> Copied:
    """Make `folder` a bundle, or bring the one that is in it up to date. What else is in it stays.

    Raises PublishError (another repository's bundle, a newer one, a damaged disk or repository) or NoSpace.
    """
    with _disk_trouble(folder):
        _make(folder, repository)
        _check_before(selection, folder)
        missing = [piece for piece in selection.pieces[:-1] if not _has_size(folder / piece.path, piece.size)]
        _check_space(folder, sum(piece.size for piece in missing))
        _make_folders(folder / RETURNS, folder)
        progress = _Progress(sum(piece.size for piece in missing) + selection.bytes, tell)
        for piece in missing:
            _copy(piece, repository, folder, progress)
        again = [piece for piece in selection.pieces[:-1] if not _is_whole(folder / piece.path, piece, progress)]
        for piece in again:
            _copy(piece, repository, folder, progress)
            if not _is_whole(folder / piece.path, piece, progress):
                raise PublishError(f"{folder / piece.path} reads otherwise than it was written: the disk is damaged")
        _keep_names(selection.pieces, folder)
        last = selection.pieces[-1]
        write_durably(folder / last.path, bytes(last.raw or b""))
        progress.done()
    copied = {piece.path: piece.size for piece in (*missing, *again, last)}
    return Copied(sum(copied.values()), selection.bytes - sum(copied.values()))


def write_tar(selection: Selection, repository: Path, file: Path, tell: Tell) -> Copied:
    """Make one tar file of a bundle, and read it back. It takes its name when it is whole. Raises as `write_folder`."""
    partial = file.with_name(f".{file.name}{PARTIAL}")
    with _disk_trouble(file.parent), _gone_on_failure(partial):
        _check_space(file.parent, selection.bytes + len(selection.pieces) * 4 * _BLOCK)
        progress = _Progress(2 * selection.bytes, tell)
        with partial.open("wb") as stream:
            with tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, copybufsize=_READ_BYTES) as tar:
                for piece in selection.pieces:
                    tar.addfile(_header(piece), _Counted(piece, repository, progress))
            stream.flush()
            os.fsync(stream.fileno())
            _forget(stream.fileno())
        _check_tar(partial, selection.pieces, progress)
        partial.replace(file)
        fsync_folder(file.parent)
        progress.done()
    return Copied(selection.bytes, 0)


# --- before -----------------------------------------------------------------------------------


def _make(folder: Path, repository: Path) -> None:
    where, inside = folder.resolve(), repository.resolve()
    if where.is_relative_to(inside) or inside.is_relative_to(where):
        raise PublishError(f"{folder} and the repository cannot be in one another")
    if not folder.is_dir():
        folder.mkdir()


def _check_before(selection: Selection, folder: Path) -> None:
    """A bundle that is there is of the same repository, and not newer. Raises PublishError."""
    first = metadata_path("root", 1)
    ours = {piece.path: piece.raw for piece in selection.pieces if piece.raw is not None}
    there = folder / first
    if there.is_file() and there.read_bytes() != ours.get(first):
        raise PublishError(f"{folder} holds a bundle of another repository")
    if (folder / TIMESTAMP).is_file():
        has, brings = _version((folder / TIMESTAMP).read_bytes()), _version(bytes(ours[TIMESTAMP] or b""))
        if has > brings:
            raise PublishError(f"{folder} holds a newer bundle: version {has}, and the repository is at {brings}")


def _version(timestamp: bytes) -> int:
    """0 for one that is damaged: it is replaced."""
    try:
        return msgspec.json.decode(timestamp, type=_Timestamp).signed.version
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return 0


def _check_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SLACK_BYTES:
        raise NoSpace(str(folder), needed_bytes + _SLACK_BYTES, free)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


# --- copying ----------------------------------------------------------------------------------


class _Progress:
    def __init__(self, total: int, tell: Tell) -> None:
        self._total, self._tell, self._done = max(total, 1), tell, 0

    def add(self, count: int) -> None:
        self._done += count
        self._tell(min(self._done, self._total - 1), self._total)

    def done(self) -> None:
        self._tell(self._total, self._total)


def _bytes_of(piece: Piece, repository: Path) -> Iterator[bytes]:
    """A file of the repository in pieces, and it is what it must be. Raises PublishError."""
    if piece.raw is not None:
        yield piece.raw
        return
    digest, size = hashlib.sha256(), 0
    with (repository / piece.path).open("rb") as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
            size += len(data)
            yield data
    if size != piece.size or digest.hexdigest() != piece.sha256:
        raise PublishError(f"{repository / piece.path} is damaged: it is not what was published")


def _copy(piece: Piece, repository: Path, folder: Path, progress: _Progress) -> None:
    path = folder / piece.path
    _make_folders(path.parent, folder)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    partial.unlink(missing_ok=True)
    with _gone_on_failure(partial):
        with partial.open("xb") as stream:
            for data in _bytes_of(piece, repository):
                stream.write(data)
                progress.add(len(data))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def _make_folders(folder: Path, top: Path) -> None:
    if folder == top or folder.is_dir():
        return
    _make_folders(folder.parent, top)
    folder.mkdir(exist_ok=True)


def _keep_names(pieces: Sequence[Piece], folder: Path) -> None:
    """Make the names of all files durable, also of those that were there: who copied them may have been cut off."""
    within = {parent for piece in pieces for parent in Path(piece.path).parents}
    for parent in sorted(within, reverse=True):
        fsync_folder(folder / parent)
    with contextlib.suppress(PermissionError):  # where sticks are mounted
        fsync_folder(folder.absolute().parent)


def _is_whole(path: Path, piece: Piece, progress: _Progress) -> bool:
    """Whether the disk, and not its cache, gives the bytes back."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        _forget(stream.fileno())
        while data := stream.read(_READ_BYTES):
            digest.update(data)
            size += len(data)
            progress.add(len(data))
    return size == piece.size and digest.hexdigest() == piece.sha256


def _forget(handle: int) -> None:
    """Drop what the system keeps in memory of a file, where it can be told to."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


# --- tar --------------------------------------------------------------------------------------


def _header(piece: Piece) -> tarfile.TarInfo:
    """Nothing of who made it or when: the same bundle is the same file."""
    header = tarfile.TarInfo(piece.path)
    header.size, header.mode, header.mtime = piece.size, 0o644, 0
    return header


class _Counted(io.RawIOBase):
    """A file of the repository as `tarfile` reads it: its size, in blocks, and no further."""

    def __init__(self, piece: Piece, repository: Path, progress: _Progress) -> None:
        self._pieces = _bytes_of(piece, repository)
        self._buffer = b""
        self._left = piece.size
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end. Raises PublishError once all were read and are not what they must be."""
        while len(self._buffer) < size and (more := next(self._pieces, b"")):
            self._buffer += more
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        self._left -= len(data)
        if self._left <= 0:
            collections.deque(self._pieces, maxlen=0)
        self._progress.add(len(data))
        return data


def _check_tar(file: Path, pieces: Sequence[Piece], progress: _Progress) -> None:
    with tarfile.open(file, mode="r:") as tar:
        for piece, member in zip(pieces, tar, strict=True):
            stream = tar.extractfile(member)
            digest = hashlib.sha256()
            while stream is not None and (data := stream.read(_READ_BYTES)):
                digest.update(data)
                progress.add(len(data))
            if member.name != piece.path or digest.hexdigest() != piece.sha256:
                raise PublishError(f"{file} reads otherwise than it was written: the disk is damaged")


# --- when things go wrong ---------------------------------------------------------------------


@contextlib.contextmanager
def _gone_on_failure(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def _disk_trouble(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise NoSpace(str(folder), 0, shutil.disk_usage(folder).free) from error
        if error.errno == errno.EFBIG:
            raise PublishError(
                f"{folder} holds no file of this size (FAT: 4 GiB): write a folder, not a tar"
            ) from error
        raise PublishError(f"{error.filename or folder}: {error.strerror or error}") from error


# --- what is not needed any more --------------------------------------------------------------


def clean(selection: Selection, folder: Path) -> int:
    """Delete what earlier bundles left in `folder` and this one does not need. Bytes that are free now.

    Only files that a repository has, under the names that it gives them; nobody else's. Raises PublishError.
    """
    needed = {piece.path for piece in selection.pieces}
    freed = 0
    with _disk_trouble(folder):
        for path in _ours(folder):
            if path.relative_to(folder).as_posix() not in needed:
                freed += path.stat().st_size
                path.unlink()
    return freed


def _ours(folder: Path) -> Iterable[Path]:
    yield from sorted(folder.glob(f"packs/??/*{PACK_SUFFIX}"))
    yield from sorted(folder.glob(f"packs/??/.*{PARTIAL}"))
    for place in ("targets/releases", "targets/channels", "targets/deltas", "metadata"):
        yield from sorted(folder.glob(f"{place}/*.json"))
        yield from sorted(folder.glob(f"{place}/.*{PARTIAL}"))
