"""The plan of an update: the cheapest way to each chunk. Pure: the same facts, the same plan, and nothing is touched.

A chunk is copied from an installed release; else it is counted from a chunk that is here, where the difference takes
fewer bytes than the chunk itself; else it is fetched whole. A chunk that a release holds several times comes once. What
is fetched is merged into single ranges, one after the other in a pack (servers and caches cope with several ranges in
one request badly or not at all), and the bytes between two of them are fetched too if that saves a request.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from device_agent.sync.content.have import Have, Local
from device_agent.sync.records import Cost, file_path
from edgekit.release.delta import Delta
from edgekit.release.manifest import Chunk, Codec, Pack, Release, ReleaseFile
from edgekit.release.names import pack_path

Holds = Literal["packs", "files"]

MOST_GAP_BYTES = 64 << 10
"""Between two pieces of one read: a request costs more time than so many bytes on most links."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is to be: a path of the release, and the offset in that file."""

    path: str
    offset: int


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes in a repository: `length` from `start` of the file `path`, which has `size` bytes."""

    path: str
    size: int
    start: int
    length: int
    codec: Codec

    @property
    def end(self) -> int:
        """Where they end in their file."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Base:
    """A chunk of this device that another one is counted from."""

    sha256: str
    local: Local


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chunk to be had, and every way to it. `difference` and `base` are both there or both not."""

    sha256: str
    size: int
    places: tuple[Place, ...]
    whole: Stored
    local: Local | None = None
    difference: Stored | None = None
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk that is fetched: whole, or as a difference from `base`."""

    target: Target
    stored: Stored
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """One range of one file of the repository, and the pieces in it, in their order and apart from each other."""

    pieces: tuple[Piece, ...]

    @property
    def path(self) -> str:
        """Of the file."""
        return self.pieces[0].stored.path

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.pieces[0].stored.size

    @property
    def start(self) -> int:
        """The first byte."""
        return self.pieces[0].stored.start

    @property
    def length(self) -> int:
        """Bytes, those between the pieces included."""
        return self.pieces[-1].stored.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done. `links` are whole files of other releases, by path; `targets` all chunks of the release."""

    release: Release
    links: Mapping[str, Path]
    targets: tuple[Target, ...]
    cost: Cost

    @property
    def needed_bytes_on_disk(self) -> int:
        """Bytes that are written if every whole file can be linked."""
        return self.cost.disk_bytes


def plan(release: Release, have: Have, deltas: Sequence[Delta] = (), *, holds: Holds) -> Plan:
    """How to come to a release from what is here.

    Differences are taken from any of `deltas`, whatever release they say they are from: a chunk is what it hashes to.
    They lie in packs, also where whole files are held otherwise.
    """
    targets = tuple(_targets(release, have, _differences(deltas, have), holds))
    links = {file.path: have.files[file.sha256].path for file in release.files if _is_here(file, have)}
    cost = _cost(release, links, targets)
    return Plan(release=release, links=links, targets=targets, cost=cost)


def elsewhere(targets: Iterable[Target], done: frozenset[str]) -> tuple[Target, ...]:
    """The targets without their places in files that are `done`, and without those that have no other place."""
    found = []
    for target in targets:
        places = tuple(place for place in target.places if place.path not in done)
        if places == target.places:
            found.append(target)
        elif places:
            found.append(replace(target, places=places))
    return tuple(found)


def first_way(target: Target) -> Piece:
    """How to fetch a chunk: as a difference, if there is one that is worth it."""
    if target.difference is not None and target.base is not None:
        return Piece(target, target.difference, target.base)
    return Piece(target, target.whole)


def merged(pieces: Iterable[Piece]) -> tuple[Read, ...]:
    """The reads that get all of them. Files come in the order in which a piece of them is first asked for."""
    by_path: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_path.setdefault(piece.stored.path, []).append(piece)
    return tuple(read for group in by_path.values() for read in _ranges(group))


def _ranges(pieces: list[Piece]) -> Iterator[Read]:
    run: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.stored.start):
        if run and not 0 <= piece.stored.start - run[-1].stored.end <= MOST_GAP_BYTES:
            yield Read(tuple(run))
            run = []
        run.append(piece)
    yield Read(tuple(run))


# --- the ways to a chunk ----------------------------------------------------------------------


def _targets(
    release: Release, have: Have, differences: Mapping[str, tuple[Stored, Base]], holds: Holds
) -> Iterator[Target]:
    firsts: dict[tuple[str, int], tuple[Stored, list[Place]]] = {}
    for file, offset, chunk in release.chunks():
        place = Place(file.path, offset)
        key = (chunk.sha256, chunk.size)
        if key in firsts:
            firsts[key][1].append(place)
        else:
            firsts[key] = _stored(release, file, offset, chunk, holds), [place]
    for (sha256, size), (whole, places) in firsts.items():
        target = Target(sha256=sha256, size=size, places=tuple(places), whole=whole)
        yield _with_ways(target, have, differences)


def _with_ways(target: Target, have: Have, differences: Mapping[str, tuple[Stored, Base]]) -> Target:
    local = have.chunks.get(target.sha256)
    if local is not None and local.size != target.size:
        local = None
    difference, base = differences.get(target.sha256, (None, None))
    if difference is None or base is None or difference.length >= target.whole.length or base.local.size != target.size:
        difference = base = None
    return replace(target, local=local, difference=difference, base=base)


def _stored(release: Release, file: ReleaseFile, offset: int, chunk: Chunk, holds: Holds) -> Stored:
    if holds == "files":
        return Stored(file_path(file.sha256), file.size, offset, chunk.size, "raw")
    return _packed(release.packs[chunk.pack], chunk.offset, chunk.stored, chunk.codec)


def _packed(pack: Pack, start: int, length: int, codec: Codec) -> Stored:
    return Stored(pack_path(pack.sha256), pack.size, start, length, codec)


def _differences(deltas: Iterable[Delta], have: Have) -> Mapping[str, tuple[Stored, Base]]:
    """The smallest difference for each chunk, of those whose base is here."""
    found: dict[str, tuple[Stored, Base]] = {}
    for delta in deltas:
        for one in delta.differences:
            local = have.chunks.get(one.base)
            if local is None or (one.chunk in found and found[one.chunk][0].length <= one.stored):
                continue
            stored = _packed(delta.packs[one.pack], one.offset, one.stored, one.codec)
            found[one.chunk] = stored, Base(one.base, local)
    return found


def _is_here(file: ReleaseFile, have: Have) -> bool:
    return file.size > 0 and file.sha256 in have.files and have.files[file.sha256].size == file.size


def _cost(release: Release, links: Mapping[str, Path], targets: Sequence[Target]) -> Cost:
    needed = elsewhere(targets, frozenset(links))
    pieces = [first_way(target) for target in needed if target.local is None]
    linked_bytes = sum(file.size for file in release.files if file.path in links)
    return Cost(
        fetch_bytes=sum(read.length for read in merged(pieces)),
        delta_bytes=sum(piece.stored.length for piece in pieces if piece.base is not None),
        reused_bytes=linked_bytes
        + sum(target.size * len(target.places) for target in needed if target.local is not None),
        full_bytes=sum(target.whole.length for target in targets),
        disk_bytes=release.file_bytes - linked_bytes,
    )
