"""Releases made of files in memory, a source that serves them as badly as a test wants, and how they are installed.

made = Maker().make("tiny-1", {"bundle.json": b"{}", "weights": b"..."})
source = FakeSource(made.packs)            source.bad[made.pack_of(sha256)] = ...
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from device_agent.releases.records import Installed, Ref
from device_agent.sync.content import Have, plan, stage
from device_agent.sync.records import Stop, file_path
from edgekit.errors import CorruptRelease, NotInRepository
from edgekit.release.codec import THOROUGH, Way, difference, pack
from edgekit.release.delta import Delta, Difference
from edgekit.release.manifest import Chunk, Kind, Pack, Release, ReleaseFile
from edgekit.release.names import pack_path

GRID = 1000
PACK_BYTES = 10_000
BUNDLE = b'{"format": 1}'

Files = Mapping[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def noise(size: int, *, seed: int = 0) -> bytes:
    """Bytes that no codec makes smaller."""
    return random.Random(seed).randbytes(size)


def with_flips(data: bytes, *places: int) -> bytes:
    """The same bytes with one bit turned at each place."""
    found = bytearray(data)
    for place in places:
        found[place] ^= 1
    return bytes(found)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A release, and what a repository would hold of it: files by path."""

    release: Release
    contents: Files
    packs: Mapping[str, bytes]

    @property
    def manifest(self) -> bytes:
        return self.release.to_bytes()

    @property
    def ref(self) -> Ref:
        release = self.release
        return Ref(id=release.id, kind=release.kind, sequence=release.sequence, sha256=sha256(self.manifest))

    @property
    def as_files(self) -> dict[str, bytes]:
        """What a repository holds that knows files only."""
        return {file_path(sha256(data)): data for data in self.contents.values()}

    def place(self, path: str, at: int = 0) -> tuple[str, Chunk]:
        """The pack's path, and the chunk, of what is at an offset of a file."""
        for file, offset, chunk in self.release.chunks():
            if file.path == path and offset <= at < offset + chunk.size:
                return pack_path(self.release.packs[chunk.pack].sha256), chunk
        raise AssertionError(f"{path} has no byte {at}")

    def install(self, folder: Path) -> Installed:
        """Put the files where a device has them."""
        put(folder, self.contents)
        return self.install_record(folder)

    def install_record(self, folder: Path) -> Installed:
        """What a device would say of it."""
        return Installed(self.ref, folder, self.release)


def put(folder: Path, files: Files) -> None:
    """Write files as they are."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but those whose name begins with a dot."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


class _Packs:
    """Packs being filled, one after the other."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packs: list[bytearray] = [bytearray()]

    def add(self, stored: bytes) -> tuple[int, int]:
        """Number of the pack, and the offset in it."""
        if self._packs[-1] and len(self._packs[-1]) + len(stored) > self._limit:
            self._packs.append(bytearray())
        pack_, offset = self._packs[-1], len(self._packs[-1])
        pack_ += stored
        return len(self._packs) - 1, offset

    def records(self) -> tuple[Pack, ...]:
        return tuple(Pack(sha256(bytes(data)), len(data)) for data in self._packs if data)

    def files(self) -> dict[str, bytes]:
        return {pack_path(sha256(bytes(data))): bytes(data) for data in self._packs if data}


def make(
    files: Files,
    *,
    name: str = "tiny",
    version: str = "1",
    grid: int = GRID,
    pack_bytes: int = PACK_BYTES,
    codecs: tuple[Way, ...] = THOROUGH,
    kind: Kind = "model",
    gap: int = 0,
) -> Made:
    """Cut files on a grid, and pack the chunks with `gap` bytes between them. A `bundle.json` is added."""
    everything = dict(files)
    everything.setdefault("bundle.json" if kind == "model" else "adapter.json", BUNDLE)
    packs = _Packs(pack_bytes)
    known: dict[str, Chunk] = {}
    entries = tuple(
        ReleaseFile(path, len(data), sha256(data), tuple(_chunks(data, grid, packs, known, codecs, gap)))
        for path, data in everything.items()
    )
    release = Release(
        format=1,
        kind=kind,
        name=name,
        version=version,
        sequence=1,
        files=entries,
        packs=packs.records(),
        base="tiny" if kind == "adapter" else None,
    )
    return Made(release=release, contents=everything, packs=packs.files())


def _chunks(
    data: bytes, grid: int, packs: _Packs, known: dict[str, Chunk], codecs: tuple[Way, ...], gap: int
) -> Iterator[Chunk]:
    for at in range(0, len(data), grid):
        piece = data[at : at + grid]
        digest = sha256(piece)
        if digest not in known:
            codec, stored = pack(piece, codecs) if codecs else ("raw", piece)
            number, offset = packs.add(stored)
            known[digest] = Chunk(len(piece), digest, number, offset, len(stored), codec)
            if gap:
                packs.add(b"-" * gap)
        yield known[digest]


def make_delta(base: Made, new: Made, *, grid: int = GRID) -> tuple[Delta, dict[str, bytes]]:
    """Differences of all chunks that are at the same place in files of the same path, and their packs."""
    packs = _Packs(PACK_BYTES)
    found: list[Difference] = []
    for path, data in new.contents.items():
        old = base.contents.get(path, b"")
        for at in range(0, len(data), grid):
            ours, theirs = data[at : at + grid], old[at : at + grid]
            if ours != theirs and len(ours) == len(theirs):
                codec, stored = pack(difference(ours, theirs))
                number, offset = packs.add(stored)
                found.append(Difference(sha256(ours), sha256(theirs), number, offset, len(stored), codec))
    delta = Delta(
        format=1, base=base.release.id, release=new.release.id, packs=packs.records(), differences=tuple(found)
    )
    return delta, packs.files()


@dataclass
class FakeSource:
    """Implements records.Source over files in memory.

    `faults` change what is sent, by path: they get the bytes and how often somebody blamed the source. `break_after` is
    how many more bytes come before the network is gone.
    """

    files: dict[str, bytes]
    holds: Literal["packs", "files"] = "packs"
    piece: int = 700
    faults: dict[str, Callable[[bytes, int], bytes]] = field(default_factory=dict)
    break_after: int | None = None
    gone: Exception | None = None
    blamed: int = 0
    sent_bytes: int = 0
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    name: str = "a fake"

    def read(self, path: str, *, limit: int) -> bytes:
        raise AssertionError("content is streamed")

    def stream(self, path: str, *, start: int, length: int, size: int) -> Iterator[bytes]:
        self.asked.append((path, start, length))
        if path not in self.files:
            raise NotInRepository(path)
        data = self.files[path]
        if len(data) != size:
            raise CorruptRelease(f"{path} has {len(data)} bytes, not {size}")
        if path in self.faults:
            data = self.faults[path](data, self.blamed)
        for at in range(start, start + length, self.piece):
            some = data[at : min(at + self.piece, start + length)]
            if self.break_after is not None:
                some = some[: self.break_after]
                self.break_after -= len(some)
            self.sent_bytes += len(some)
            if some:
                yield some
            if self.break_after == 0 and self.gone is not None:
                raise self.gone

    def blame(self) -> None:
        self.blamed += 1

    def close(self) -> None:
        pass


def source_of(*made: Made, more: Sequence[Mapping[str, bytes]] = ()) -> FakeSource:
    """Everything that these releases consist of."""
    files: dict[str, bytes] = {}
    for packs in (*(one.packs for one in made), *more):
        files.update(packs)
    return FakeSource(files)


class Never:
    """A Stop that never comes."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        return False


class After(Never):
    """A Stop that comes once it was asked so often."""

    def __init__(self, times: int) -> None:
        self._times = times

    def is_set(self) -> bool:
        self._times -= 1
        return self._times < 0


def update(
    made: Made,
    folder: Path,
    source: FakeSource | None = None,
    *,
    have: Sequence[Installed] = (),
    deltas: Sequence[Delta] = (),
    stop: Stop | None = None,
    reserve_bytes: int = 0,
) -> list[int]:
    """Plan a release and stage it; what was told of the bytes that came."""
    source = source or source_of(made)
    found = plan(made.release, Have.of(have), deltas, holds=source.holds)
    told: list[int] = []
    stage(found, folder, source, tell=told.append, stop=stop or Never(), reserve_bytes=reserve_bytes)
    return told
