"""From a folder to a release: cut, store what the repository lacks, and say where everything is."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from edgekit import contract
from edgekit.adapter import open_adapter
from edgekit.bundle import open_bundle
from edgekit.errors import CorruptBundle, NotABundle, PublishError
from edgekit.files import safe_join
from edgekit.manifest import FileEntry
from edgekit.release import codec
from edgekit.release.manifest import (
    FORMAT,
    MAX_CHUNKS,
    Chunk,
    Codec,
    HealthFloor,
    Kind,
    Pack,
    Release,
    ReleaseFile,
    Requires,
    parse,
)
from edgekit.release.names import unportable
from export.publish.chunking import Cut, CutFile, cut
from export.publish.packing import Packed, Packer, Stored, known_chunks, packed, side_by_side
from export.publish.sampling import promising

Tell = Callable[[int, int], None]
"""Told bytes done, of how many."""


@dataclass(frozen=True)
class Named:
    """What a folder says of itself: bundle.json's or adapter.json's words. `base` is an adapter's model."""

    kind: Kind
    name: str
    version: str
    files: tuple[FileEntry, ...]
    base: str | None = None


def named(folder: Path) -> Named:
    """Whose content a folder is. Raises BundleError subclasses for what is neither a bundle nor an adapter."""
    if (folder / contract.MANIFEST_FILE).is_file():
        model = open_bundle(folder).manifest
        return Named("model", model.name, model.version, model.files)
    if (folder / contract.ADAPTER_MANIFEST_FILE).is_file():
        adapter = open_adapter(folder).manifest
        return Named("adapter", adapter.name, adapter.version, adapter.files, adapter.base.name)
    raise NotABundle(str(folder), f"it has neither {contract.MANIFEST_FILE} nor {contract.ADAPTER_MANIFEST_FILE}")


def add_release(
    folder: Path,
    repository: Path,
    *,
    sequence: int,
    earlier: Sequence[Release],
    health: HealthFloor,
    requires: Requires,
    codecs: tuple[Codec, ...] = codec.EVERY,
    tell: Tell | None = None,
) -> Release:
    """Store the content of a bundle or an adapter, and return the manifest that names it. Packs are durable then.

    Only chunks that no `earlier` release has are stored. Raises BundleError subclasses (not one, damaged), PublishError
    (a name that not every device can write, a file that changes meanwhile, too many chunks), or OSError.
    """
    named_as = named(folder)
    files = cut(folder, named_as.kind)
    _check(folder, named_as, files)
    packer = Packer(repository, known_chunks(earlier))
    places = _store(folder, files, packer, codecs, tell)
    made = _release(named_as, files, places, sequence, health, requires)
    return parse(made.to_bytes())  # what devices would refuse fails here


def _check(folder: Path, named_as: Named, files: Sequence[CutFile]) -> None:
    found = {file.path: file for file in files}
    for entry in named_as.files:
        if found[entry.path].sha256 != entry.sha256:
            raise CorruptBundle(str(folder), f"{entry.path} has changed: its SHA-256 is not the one that was recorded")
    for path in found:
        if problem := unportable(path):
            raise PublishError(f"{path!r} cannot be a file on every device: {problem}")
    if sum(len(file.chunks) for file in files) > MAX_CHUNKS:
        raise PublishError(f"it is so large that it would have more than {MAX_CHUNKS:,} chunks")


def _store(
    folder: Path, files: Sequence[CutFile], packer: Packer, codecs: tuple[Codec, ...], tell: Tell | None
) -> Mapping[str, Stored]:
    missing = {each.sha256: (file.path, each) for file in files for each in file.chunks if not packer.has(each.sha256)}
    total = sum(each.size for _, each in missing.values())
    done = 0

    def work(item: tuple[Cut, bytes]) -> tuple[Cut, Packed]:
        return item[0], packed(item[1], promising(item[1], codecs))

    for each, made in side_by_side(work, _read(folder, missing.values())):
        packer.add(each.sha256, made)
        done += each.size
        if tell:
            tell(done, total)
    return packer.close()


def _read(folder: Path, missing: Iterable[tuple[str, Cut]]) -> Iterator[tuple[Cut, bytes]]:
    for path, chunks in itertools.groupby(missing, key=itemgetter(0)):
        with safe_join(folder, path).open("rb") as stream:
            for _, each in chunks:
                stream.seek(each.offset)
                data = stream.read(each.size)
                if hashlib.sha256(data).hexdigest() != each.sha256:
                    raise PublishError(f"{path} changed while it was read")
                yield each, data


def _release(
    named_as: Named,
    files: Sequence[CutFile],
    places: Mapping[str, Stored],
    sequence: int,
    health: HealthFloor,
    requires: Requires,
) -> Release:
    numbers: dict[str, int] = {}
    packs: list[Pack] = []

    def chunk(each: Cut) -> Chunk:
        place = places[each.sha256]
        if place.pack not in numbers:
            numbers[place.pack] = len(packs)
            packs.append(Pack(place.pack, place.pack_size))
        return Chunk(each.size, each.sha256, numbers[place.pack], place.offset, place.stored, place.codec)

    return Release(
        format=FORMAT,
        kind=named_as.kind,
        name=named_as.name,
        version=named_as.version,
        sequence=sequence,
        files=tuple(ReleaseFile(file.path, file.size, file.sha256, tuple(map(chunk, file.chunks))) for file in files),
        packs=tuple(packs),
        requires=requires,
        health=health,
        base=named_as.base,
    )
