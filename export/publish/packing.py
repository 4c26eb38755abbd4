"""Packs: immutable files of at most 32 MiB in which stored chunks lie end to end, named by their SHA-256.

A pack is written once, durably, and never changed; so servers and sticks may keep it for ever, and a publish that is
cut off leaves at most packs that nothing names yet. A chunk that the repository has already is not stored again,
whichever release brought it.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgekit.errors import PublishError
from edgekit.files import fsync_folder, sha256_of, write_durably
from edgekit.hardware import usable_cores
from edgekit.release import codec
from edgekit.release.codec import Way
from edgekit.release.manifest import MAX_PACK_BYTES, Chunk, Codec, Pack, Release
from edgekit.release.names import pack_path

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """Where a chunk's bytes are in the repository: which pack (and its size), from which byte, how many, packed how."""

    pack: str
    pack_size: int
    offset: int
    stored: int
    codec: Codec


@dataclass(frozen=True)
class Packed:
    """Bytes as they will lie in a pack."""

    codec: Codec
    data: bytes


def known_chunks(releases: Iterable[Release]) -> dict[str, Stored]:
    """Every chunk that the repository has, by its SHA-256; of several places the one named first."""
    found: dict[str, Stored] = {}
    for release in releases:
        for _, _, chunk in release.chunks():
            found.setdefault(chunk.sha256, place_of(chunk, release.packs))
    return found


def place_of(chunk: Chunk, packs: Sequence[Pack]) -> Stored:
    """A manifest's own words for it."""
    pack = packs[chunk.pack]
    return Stored(pack.sha256, pack.size, chunk.offset, chunk.stored, chunk.codec)


class Packer:
    """Fills packs and writes each as soon as it is full; at most one is in memory.

    `known` says by SHA-256 what the repository has already. What was added is known to `close` only, because a pack's
    name depends on all that is in it.
    """

    def __init__(self, repository: Path, known: Mapping[str, Stored]) -> None:
        self._repository, self._known = repository, known
        self._waiting: dict[str, Packed] = {}
        self._bytes = 0
        self._added: dict[str, Stored] = {}
        self._folders: set[Path] = set()

    def has(self, sha256: str) -> bool:
        """Whether the chunk needs no adding."""
        return sha256 in self._known or sha256 in self._added or sha256 in self._waiting

    def add(self, sha256: str, packed: Packed) -> None:
        """Store the chunk that has this SHA-256 (once unpacked), unless it is stored already."""
        if self.has(sha256):
            return
        if self._bytes + len(packed.data) > MAX_PACK_BYTES:
            self._write()
        self._waiting[sha256] = packed
        self._bytes += len(packed.data)

    def close(self) -> Mapping[str, Stored]:
        """Write what is left; all packs are durable afterwards. Where each added or known chunk is, by its SHA-256."""
        self._write()
        for folder in sorted(self._folders, reverse=True):  # a folder's name is durable once its parent is
            fsync_folder(folder)
        self._folders.clear()
        return {**self._added, **self._known}

    def _write(self) -> None:
        if not self._waiting:
            return
        pieces = [packed.data for packed in self._waiting.values()]
        whole = hashlib.sha256()
        for piece in pieces:
            whole.update(piece)
        name = whole.hexdigest()
        self._write_pack(name, pieces)
        at = 0
        for sha256, packed in self._waiting.items():
            self._added[sha256] = Stored(name, self._bytes, at, len(packed.data), packed.codec)
            at += len(packed.data)
        self._waiting, self._bytes = {}, 0

    def _write_pack(self, name: str, pieces: Sequence[bytes]) -> None:
        path = self._repository / pack_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folders |= {self._repository, path.parent.parent}
        if path.is_file() and sha256_of(path) == name:
            # An earlier publish may have been cut off between the pack's rename and the fsync of its folder.
            self._folders.add(path.parent)
            return
        write_durably(path, pieces)


def sweep(repository: Path) -> int:
    """Remove what writers that were killed left beside packs; bytes freed. Only for who holds the repository's lock."""
    freed = 0
    for path in (repository / "packs").glob("*/.*.pack.*"):
        freed += path.stat().st_size
        path.unlink()
    return freed


def packed(data: bytes, ways: Sequence[Way]) -> Packed:
    """The smallest form of a chunk that any of `ways` gives."""
    return Packed(*codec.pack(data, ways))


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work` of each item in their order, on all cores: zlib, bz2 and lzma let go of the interpreter.

    Items are taken as results go, so that what waits in memory stays small.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > 2 * usable_cores():
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def read_chunk(repository: Path, place: Stored, size: int, sha256: str) -> bytes:
    """A chunk of `size` bytes from its pack, held against its SHA-256. Raises PublishError or CorruptRelease."""
    path = repository / pack_path(place.pack)
    try:
        with path.open("rb") as stream:
            stream.seek(place.offset)
            data = codec.unpack(place.codec, stream.read(place.stored), size)
    except FileNotFoundError as error:
        raise PublishError(f"the repository lacks {pack_path(place.pack)}, which one of its releases names") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise PublishError(f"{pack_path(place.pack)} is damaged: restore it from a copy of the repository")
    return data
