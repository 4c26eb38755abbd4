"""Differences between two releases: measured when one is published, so that devices fetch little and people know it.

Chunks are matched by the tensor that they belong to and where in it they begin, wherever both lie in their files; what
belongs to no tensor, by path and place. Of two quantisations of nearly the same weights most bytes are equal, and their
difference is mostly zeros. A difference is kept only if it is smaller than the chunk is as stored.

Tensors of one kind (the same ones of all layers) change alike. So a few chunks of each kind are tried first: they say
how the others are packed, and where nothing is alike (INT4 and INT8 weights) the others are not even read.

Both releases can be read from the repository's packs: whoever publishes needs no folder of the base any more.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import PublishError
from edgekit.files import safe_join
from edgekit.onnxfile import MAX_GRAPH_BYTES, external_tensors
from edgekit.release import codec
from edgekit.release.codec import Way
from edgekit.release.delta import FORMAT, Delta, Difference
from edgekit.release.delta import parse as parse_delta
from edgekit.release.manifest import Chunk, Codec, Pack, Release, ReleaseFile
from export.publish.packing import Packed, Packer, Stored, packed, place_of, read_chunk, side_by_side
from export.publish.sampling import DIFFERENCES, judged

Place = tuple[str, str, int, int]
"""Of a chunk: "tensor" and its name, or "file" and its path; where in it the chunk begins; the chunk's length."""

_ENTRY_BYTES = 200
"""What a difference adds to the index: so much it must save at least."""
_TRIED = 4
"""Chunks of each kind that say whether differences of it are worth counting."""
_LAYER = re.compile(r"\d+")


@dataclass(frozen=True)
class Share:
    """What a device that has the base fetches of one file: nothing, differences, and whole chunks.

    `here_bytes` counts what it has (unpacked), the others what it fetches (as stored).
    """

    path: str
    here_bytes: int
    difference_bytes: int
    whole_bytes: int

    @property
    def bytes(self) -> int:
        """What is fetched of it."""
        return self.difference_bytes + self.whole_bytes


@dataclass(frozen=True)
class Prediction:
    """What devices fetch: `bytes` those that have the base, `full_bytes` those that have nothing. Manifests count."""

    shares: tuple[Share, ...]
    bytes: int
    full_bytes: int


def make_delta(
    base: Release,
    base_folder: Path | None,
    new: Release,
    new_folder: Path | None,
    repository: Path,
    codecs: tuple[Codec, ...] = codec.EVERY,
) -> Delta:
    """Differences that are worth having of the chunks that `new` has and `base` has not; their packs are durable then.

    A folder that is given saves unpacking; without one, packs are read. Raises PublishError for a repository that lacks
    what its releases name.
    """
    before, after = _Content(base, base_folder, repository), _Content(new, new_folder, repository)
    packer = Packer(repository, {})
    made: list[tuple[_Pair, str]] = []
    pairs = list(_pairs(before, after))
    ways = _ways(pairs, before, after, codecs)
    alike = [pair for pair in pairs if ways[pair.kind]]
    for pair, sha256, found in side_by_side(lambda pair: _count(pair, before, after, ways[pair.kind]), alike):
        if found.codec != "raw" and len(found.data) + _ENTRY_BYTES < pair.new.chunk.stored:
            packer.add(sha256, found)
            made.append((pair, sha256))
    return _index(base, new, made, packer.close())


def predict(base: Release, new: Release, delta: Delta | None) -> Prediction:
    """What a device fetches for `new`, if it has `base` whole and uses `delta`."""
    differences = {} if delta is None else {each.chunk: each.stored for each in delta.differences}
    present = {chunk.sha256 for _, _, chunk in base.chunks()}
    shares: list[Share] = []
    full = 0
    seen: set[str] = set()
    for file in new.files:
        here = difference = whole = 0
        for chunk in file.chunks:
            again = chunk.sha256 in seen
            seen.add(chunk.sha256)
            full += 0 if again else chunk.stored
            if again or chunk.sha256 in present:
                here += chunk.size
            elif chunk.sha256 in differences:
                difference += differences[chunk.sha256]
            else:
                whole += chunk.stored
        shares.append(Share(file.path, here, difference, whole))
    manifest = len(new.to_bytes())
    index = 0 if delta is None else len(delta.to_bytes())
    return Prediction(tuple(shares), sum(share.bytes for share in shares) + manifest + index, full + manifest)


@dataclass(frozen=True)
class _Piece:
    """A chunk and where it is: in which file, from which byte, and in which pack."""

    path: str
    offset: int
    chunk: Chunk
    stored: Stored


@dataclass(frozen=True)
class _Pair:
    """A chunk that the new release has and the base has not, and the base's at the same place.

    `kind` is its tensor's name, alike in all layers; or its file's path.
    """

    new: _Piece
    base: _Piece
    kind: str


class _Content:
    """A release's chunks by place, and their bytes."""

    def __init__(self, release: Release, folder: Path | None, repository: Path) -> None:
        self._release, self._folder, self._repository = release, folder, repository

    def pieces(self) -> Iterator[tuple[Place, _Piece]]:
        """Every chunk and its place."""
        tensors = {path: _Tensors(found) for path, found in self._tensors().items()}
        for file, offset, chunk in self._release.chunks():
            known = tensors.get(file.path)
            within = None if known is None else known.around(offset)
            place = ("file", file.path, offset, chunk.size) if within is None else ("tensor", *within, chunk.size)
            yield place, _Piece(file.path, offset, chunk, place_of(chunk, self._release.packs))

    def read(self, piece: _Piece) -> bytes:
        """A chunk's bytes. Raises PublishError if they are not what the release says."""
        chunk = piece.chunk
        if self._folder is None:
            return read_chunk(self._repository, piece.stored, chunk.size, chunk.sha256)
        with safe_join(self._folder, piece.path).open("rb") as stream:
            stream.seek(piece.offset)
            data = stream.read(chunk.size)
        if hashlib.sha256(data).hexdigest() != chunk.sha256:
            raise PublishError(f"{piece.path} changed after it was published")
        return data

    def _tensors(self) -> Mapping[str, Mapping[int, tuple[str, int]]]:
        """By file and offset: name and length of each tensor, as the first graph has it."""
        found: dict[str, dict[int, tuple[str, int]]] = {}
        for file in self._release.files:
            if not file.path.endswith(".onnx") or file.size > MAX_GRAPH_BYTES:
                continue
            for each in sorted(external_tensors(self._whole(file)), key=lambda tensor: tensor.name):
                found.setdefault(each.location, {}).setdefault(each.offset, (each.name, each.length or 0))
        return found

    def _whole(self, file: ReleaseFile) -> bytes:
        offset, data = 0, bytearray()
        for chunk in file.chunks:
            data += self.read(_Piece(file.path, offset, chunk, place_of(chunk, self._release.packs)))
            offset += chunk.size
        return bytes(data)


class _Tensors:
    """Tensors of one file: which one is at an offset."""

    def __init__(self, found: Mapping[int, tuple[str, int]]) -> None:
        self._starts, self._found = sorted(found), found

    def around(self, offset: int) -> tuple[str, int] | None:
        """The tensor's name, and how far in it the offset is."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0:
            return None
        start = self._starts[at]
        name, length = self._found[start]
        return (name, offset - start) if offset < start + length else None


def _pairs(before: _Content, after: _Content) -> Iterator[_Pair]:
    places: dict[Place, _Piece] = {}
    seen: set[str] = set()
    for place, piece in before.pieces():
        places.setdefault(place, piece)
        seen.add(piece.chunk.sha256)
    for place, piece in after.pieces():
        if piece.chunk.sha256 not in seen and place in places:
            yield _Pair(piece, places[place], _LAYER.sub("N", place[1]))
        seen.add(piece.chunk.sha256)


def _ways(
    pairs: Sequence[_Pair], before: _Content, after: _Content, codecs: tuple[Codec, ...]
) -> Mapping[str, tuple[Way, ...]]:
    """By kind: how its differences are packed; in no way where the chunks that were tried promise nothing.

    The chunks to try are spread over all of a kind, so that a model of which some layers changed is not misjudged.
    """
    kinds: dict[str, list[_Pair]] = {}
    for pair in pairs:
        kinds.setdefault(pair.kind, []).append(pair)
    tried = [pair for kind in kinds.values() for pair in _spread(kind)]
    found: dict[str, set[Way]] = {kind: set() for kind in kinds}
    for pair, promise in side_by_side(lambda pair: (pair, _promise(pair, before, after, codecs)), tried):
        found[pair.kind].update(promise)
    return {kind: tuple(way for way in DIFFERENCES if way in ways) for kind, ways in found.items()}


def _spread(pairs: Sequence[_Pair]) -> list[_Pair]:
    """The first, the last, and others between."""
    last = len(pairs) - 1
    return [pairs[at] for at in sorted({last * step // (_TRIED - 1) for step in range(_TRIED)})]


def _promise(pair: _Pair, before: _Content, after: _Content, codecs: tuple[Codec, ...]) -> tuple[Way, ...]:
    """How to pack a difference; in no way if its sample says that it will be no smaller than the chunk as stored."""
    found = judged(codec.difference(after.read(pair.new), before.read(pair.base)), codecs)
    return found.ways if found.share * pair.new.chunk.size < pair.new.chunk.stored else ()


def _count(pair: _Pair, before: _Content, after: _Content, ways: Sequence[Way]) -> tuple[_Pair, str, Packed]:
    """The difference, packed, and its SHA-256."""
    found = codec.difference(after.read(pair.new), before.read(pair.base))
    return pair, hashlib.sha256(found).hexdigest(), packed(found, ways)


def _index(base: Release, new: Release, made: list[tuple[_Pair, str]], places: Mapping[str, Stored]) -> Delta:
    packs = {place.pack: Pack(place.pack, place.pack_size) for place in (places[sha256] for _, sha256 in made)}
    numbers = {name: number for number, name in enumerate(packs)}

    def entry(pair: _Pair, place: Stored) -> Difference:
        return Difference(
            pair.new.chunk.sha256, pair.base.chunk.sha256, numbers[place.pack], place.offset, place.stored, place.codec
        )  # fmt: skip

    found = tuple(entry(pair, places[sha256]) for pair, sha256 in made)
    made_of = Delta(format=FORMAT, base=base.id, release=new.id, packs=tuple(packs.values()), differences=found)
    return parse_delta(made_of.to_bytes())
