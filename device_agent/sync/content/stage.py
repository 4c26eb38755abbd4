"""Putting a release together in its staging folder. May be stopped, cut or killed anywhere, and goes on from there.

Nothing is fsynced here: what a power cut takes is found missing by its digest, and fetched again. `seal` makes the
whole durable. Files are not given their sizes beforehand: on disks that cannot leave holes (FAT, many network disks)
that writes every byte twice; the space is looked at before the first byte instead, and may still run out.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from device_agent.sync.content import disk, journal
from device_agent.sync.content.have import Local
from device_agent.sync.content.journal import Journal
from device_agent.sync.content.plan import Piece, Plan, Read, Stored, Target, elsewhere, first_way, merged
from device_agent.sync.records import Source, Stop
from edgekit.errors import CorruptRelease, NoSpace, NotInRepository, SyncError
from edgekit.release.codec import restore, unpack

log = logging.getLogger(__name__)

MOST_TRIES = 4
"""Of one chunk from the repository."""

MOST_BAD = 100
"""Bad chunks until a whole update is given up."""

Tell = Callable[[int], None]


def stage(plan: Plan, folder: Path, source: Source, *, tell: Tell, stop: Stop, reserve_bytes: int = 0) -> None:
    """Have every byte of a release in `folder`, each chunk verified before it is written.

    What is in the folder already is found again. `tell` gets how many bytes were fetched so far of the plan's
    `fetch_bytes`, those of an earlier run first; it may pass them where something had to come twice. `reserve_bytes` of
    the disk stay free.

    Raises NoSpace (before the first byte, or when the disk is full all the same), StorageFailed (it cannot be written
    or read), CorruptRelease (bytes are not what was signed, from any mirror), Unreachable, NotInRepository, and
    SyncError once `stop` is set. What was fetched is kept then.
    """
    with disk.disk_errors(folder, plan.needed_bytes_on_disk + reserve_bytes):
        staging = _Staging(plan, folder, stop)
        staging.tidy()
        todo = staging.unfinished(elsewhere(plan.targets, staging.linked()))
        _refuse_without_space(folder, sum(target.size * len(target.places) for target in todo), reserve_bytes)
        found = frozenset(target.sha256 for target in plan.targets) - {target.sha256 for target in todo}
        with contextlib.closing(Journal(folder, found)) as chunks:
            work = _Work(plan, folder, source, chunks, tell, stop)
            work.fetch(work.copy(todo))


def _refuse_without_space(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes and free_bytes < needed_bytes + reserve_bytes:
        raise NoSpace(str(folder), needed_bytes + reserve_bytes, free_bytes)


def _go_on(stop: Stop) -> None:
    if stop.is_set():
        raise SyncError("it was told to stop. What was fetched is kept: the next run goes on from there")


class _Staging:
    """What is in the staging folder already."""

    def __init__(self, plan: Plan, folder: Path, stop: Stop) -> None:
        self._plan = plan
        self._folder = folder
        self._stop = stop
        self._files = {file.path: file for file in plan.release.files}

    def tidy(self) -> None:
        """Have the folder, and in it nothing but files of the release: no links, nothing that nobody listed."""
        if self._folder.is_symlink():
            raise CorruptRelease(f"{self._folder} is a link, and no folder")
        self._folder.mkdir(parents=True, exist_ok=True)
        folders = disk.folders_of(self._files)
        found = list(disk.entries(self._folder))
        for entry in found:
            if entry.is_dir(follow_symlinks=False):  # read only once a release is to get its place
                disk.make_writable(Path(entry.path))
        for entry in found:
            path = disk.relative(self._folder, entry)
            if entry.is_dir(follow_symlinks=False):
                stays = path in folders
            elif entry.is_file(follow_symlinks=False):
                stays = path == journal.NAME or self._may_stay(path, Path(entry.path))
            else:
                stays = False
            if not stays:
                disk.remove(Path(entry.path))
        for path in (path for path, file in self._files.items() if not file.chunks):
            here = disk.inside(self._folder, path)
            if not here.exists():
                disk.write_at(here, 0, b"")

    def _may_stay(self, path: str, here: Path) -> bool:
        return path in self._files and here.stat().st_size <= self._files[path].size

    def linked(self) -> frozenset[str]:
        """Paths of the files that are here whole, by a link to another release's; those that cannot be are copied."""
        return frozenset(path for path, there in self._plan.links.items() if self._link(path, there))

    def _link(self, path: str, there: Path) -> bool:
        here = disk.inside(self._folder, path)
        if not here.exists():
            try:
                os.link(there, here)
            except OSError as error:
                log.debug("%s is copied: %s", path, error.strerror)
                return False
        is_whole = self._is_whole(here, self._files[path].sha256)
        if here.is_symlink():  # it was one there: links are linked, and not followed
            disk.remove(here)
        return is_whole

    def _is_whole(self, path: Path, sha256: str) -> bool:
        with contextlib.suppress(OSError):
            return disk.hash_file(path, lambda: _go_on(self._stop)) == sha256
        return False

    def unfinished(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        """Those that are not in all of their places: what the journal claims is read and hashed; without one, all.

        A file that the disk cannot read begins anew, and so does one that is to be written and is another release's.
        """
        claimed = journal.claimed(self._folder)
        lost: set[str] = set()
        done = {
            target.sha256
            for target in targets
            if (claimed is None or target.sha256 in claimed) and self._is_there(target, lost)
        }
        touched = {place.path for target in targets if target.sha256 not in done for place in target.places}
        lost.update(path for path in sorted(touched) if not self._is_own(path))
        for path in lost:
            disk.remove(self._folder / path)
        return tuple(
            target
            for target in targets
            if target.sha256 not in done or any(place.path in lost for place in target.places)
        )

    def _is_there(self, target: Target, lost: set[str]) -> bool:
        _go_on(self._stop)
        for place in target.places:
            path = disk.inside(self._folder, place.path)
            try:
                data = disk.read_at(path, place.offset, target.size)
            except FileNotFoundError:
                return False
            except OSError as error:
                log.warning("%s cannot be read (%s) and begins anew", path, error.strerror)
                lost.add(place.path)
                return False
            if not _is(target, data):
                return False
        return True

    def _is_own(self, path: str) -> bool:
        """Whether a file is nobody else's; it can be written then."""
        here = self._folder / path
        if here.exists():
            if here.stat().st_nlink > 1:
                return False
            disk.make_writable(here)
        return True


class _Work:
    """Copying and fetching."""

    def __init__(self, plan: Plan, folder: Path, source: Source, chunks: Journal, tell: Tell, stop: Stop) -> None:
        self._plan = plan
        self._folder = folder
        self._source = source
        self._chunks = chunks
        self._tell = tell
        self._stop = stop
        self._came_bytes = 0
        self._tries: Counter[str] = Counter()

    def copy(self, targets: Iterable[Target]) -> list[Piece]:
        """Copy what an installed release has; what is left to be fetched."""
        left = []
        for target in targets:
            _go_on(self._stop)
            data = None if target.local is None else _read_local(target.local, target.sha256)
            if data is None:
                left.append(first_way(target))
            else:
                self._write(target, data)
        return left

    def fetch(self, pieces: Sequence[Piece]) -> None:
        """Fetch them all. Those that came wrong come once more after all the others, so that nothing waits for them."""
        self._came_bytes = max(0, self._plan.cost.fetch_bytes - sum(read.length for read in merged(pieces)))
        self._tell(self._came_bytes)
        while pieces:
            again: list[Piece] = []
            while pieces:
                pieces = [piece for read in merged(pieces) for piece in self._read(read, again)]
            pieces = again

    def _read(self, read: Read, again: list[Piece]) -> Sequence[Piece]:
        """Pieces that did not come, because one before them was bad: the rest is asked for anew, of another mirror."""
        pieces = read.pieces
        with contextlib.closing(_Range(self._source, read, self._came)) as coming:
            for i, piece in enumerate(pieces):
                try:
                    stored = coming.take(piece.stored)
                except NotInRepository as error:
                    again += self._without(pieces[i:], error)
                    return ()
                except CorruptRelease as error:
                    again.append(self._after_bad(piece, error.problem))
                    return pieces[i + 1 :]
                data = self._made(piece, stored)
                if data is not None:
                    self._write(piece.target, data)
                elif piece.base is not None:
                    again.append(Piece(piece.target, piece.target.whole))
                else:
                    again.append(self._after_bad(piece, "it is not what its digest says"))
                    return pieces[i + 1 :]
        return ()

    def _came(self, count_bytes: int) -> None:
        self._came_bytes += count_bytes
        self._tell(self._came_bytes)
        _go_on(self._stop)

    def _made(self, piece: Piece, stored: bytes) -> bytes | None:
        """The chunk, None if it is not what its digest says."""
        try:
            data = unpack(piece.stored.codec, stored, piece.target.size)
            if piece.base is not None:
                base = _read_local(piece.base.local, piece.base.sha256)
                data = b"" if base is None else restore(base, data)
        except CorruptRelease as error:
            log.debug("%s at %d: %s", piece.stored.path, piece.stored.start, error.problem)
            return None
        return data if _is(piece.target, data) else None

    def _after_bad(self, piece: Piece, problem: str) -> Piece:
        """How to go on after a chunk came wrong: of another mirror, and without the difference, which may be to blame.

        Raises CorruptRelease once it was tried often enough.
        """
        target = piece.target
        log.warning("%s: a chunk of %s is bad: %s", self._source.name, target.places[0].path, problem)
        self._source.blame()
        self._tries[target.sha256] += 1
        if self._tries[target.sha256] >= MOST_TRIES or self._tries.total() > MOST_BAD:
            raise CorruptRelease(
                f"a chunk of {target.places[0].path}, however often it is fetched from {self._source.name}: {problem}"
            )
        return Piece(target, target.whole)

    def _without(self, pieces: Sequence[Piece], error: NotInRepository) -> list[Piece]:
        """What to fetch if a pack is not there: nothing can replace whole chunks, but they replace differences."""
        if all(piece.base is not None for piece in pieces):
            return [Piece(piece.target, piece.target.whole) for piece in pieces]
        raise error

    def _write(self, target: Target, data: bytes) -> None:
        for place in target.places:
            disk.write_at(disk.inside(self._folder, place.path), place.offset, data)
        self._chunks.add(target.sha256)


class _Range:
    """The bytes of one read as they come: never more in memory than one piece and what the source gives at once."""

    def __init__(self, source: Source, read: Read, came: Tell) -> None:
        self._stream = source.stream(read.path, start=read.start, length=read.length, size=read.size)
        self._came = came
        self._at = read.start
        self._buffer = bytearray()

    def take(self, stored: Stored) -> bytes:
        """The bytes of a piece that is further on. Raises CorruptRelease, Unreachable."""
        needed = stored.end - self._at
        while len(self._buffer) < needed:
            some = next(self._stream, b"")
            if not some:
                raise CorruptRelease(f"{stored.path} ends before its {stored.size:,} bytes")
            self._buffer += some
            self._came(len(some))
        data = bytes(self._buffer[needed - stored.length : needed])
        del self._buffer[:needed]
        self._at = stored.end
        return data

    def close(self) -> None:
        """Let the source know that nothing more is wanted."""
        if isinstance(self._stream, Generator):
            self._stream.close()


def _is(target: Target, data: bytes) -> bool:
    return len(data) == target.size and hashlib.sha256(data).hexdigest() == target.sha256


def _read_local(local: Local, sha256: str) -> bytes | None:
    """A chunk of an installed release, None if it is not there (any more)."""
    try:
        data = disk.read_at(local.path, local.offset, local.size)
    except OSError as error:
        log.debug("%s cannot be read: %s", local.path, error.strerror)
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        log.warning("%s is damaged at byte %d", local.path, local.offset)
        return None
    return data
