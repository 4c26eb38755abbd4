"""The release manifest: the files of a bundle or an adapter, cut into chunks, and where each chunk's bytes are.

A JSON target of the role `releases`, at most 64 MiB:

    format      1; a reader refuses a larger number than it knows
    kind        "model" (a bundle) or "adapter" (a LoRA beside one)
    name, version  those of bundle.json or adapter.json; the release is called `<name>-<version>`
    sequence    its number in the repository: later ones are larger. The floor that `releases` signs is such a number
    files       every file: path, size, SHA-256 of the whole, and its chunks in order
    packs       SHA-256 and size of the packs that chunks are in
    requires    what a device must have
    health      what the release must show on a device before it serves (device_agent/activation)
    base        of an adapter: the name of the model that it stands beside

A chunk is [bytes, sha256, pack, offset, stored, codec]: its length and digest once unpacked, the pack's place in
`packs`, and where and how its stored bytes are. A file's chunks lie end to end, so that no manifest can say a gap or
an overlap. The grid of 1 MiB restarts at each tensor (export/publish/chunking.py), so that a tensor that did not
change has the same chunks wherever it moved.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.manifest import Bytes, Name, Sha256
from edgekit.release.names import MOST_ID_CHARS, ReleaseId, twins, unportable

FORMAT = 1
MAX_RELEASE_BYTES = 64 << 20
MAX_FILES = 10_000
MAX_CHUNKS = 1 << 18
MAX_PACK_BYTES = 32 << 20
MAX_CHUNK_BYTES = 1 << 20
MAX_STORED_BYTES = MAX_CHUNK_BYTES + (64 << 10)
MAX_FILE_BYTES = 1 << 42

Kind = Literal["model", "adapter"]
Codec = Literal["raw", "zlib", "bz2", "xz"]
WantedVersion = Annotated[str, msgspec.Meta(max_length=100)]
ChunkBytes = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_BYTES)]


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece of a file, and where its bytes are stored."""

    size: ChunkBytes
    sha256: Sha256
    pack: Annotated[int, msgspec.Meta(ge=0, lt=MAX_CHUNKS)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PACK_BYTES)]
    stored: Annotated[int, msgspec.Meta(ge=1, le=MAX_STORED_BYTES)]
    codec: Codec = "raw"


class Pack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A pack file."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_PACK_BYTES)]


class ReleaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file. `chunks` are end to end; an empty file has none."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    sha256: Sha256
    chunks: tuple[Chunk, ...]


class Requires(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a device must have: versions as "1.31" (at least), processors by platform.machine() (none: any)."""

    edgekit: WantedVersion | None = None
    onnxruntime: WantedVersion | None = None
    machines: tuple[str, ...] = ()
    memory_bytes: Bytes = 0


class HealthFloor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a release must show before it serves, and for how long it is watched afterwards.

    `agreement` is the share of golden tokens that must come out; `probe_s` the time that all of it may take. After the
    switch it must serve `soak_s` without a fault before the one before it may go.
    """

    agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    decode_tokens_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    rss_bytes: Bytes | None = None
    probe_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    soak_s: Annotated[float, msgspec.Meta(ge=0, le=86_400 * 7)] = 60.0


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The manifest as a record; see the module's text for each field."""

    format: int
    kind: Kind
    name: Name
    version: Name
    sequence: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    files: Annotated[tuple[ReleaseFile, ...], msgspec.Meta(min_length=1, max_length=MAX_FILES)]
    packs: Annotated[tuple[Pack, ...], msgspec.Meta(max_length=MAX_CHUNKS)]
    requires: Requires = Requires()
    health: HealthFloor = HealthFloor()
    base: Name | None = None

    @property
    def id(self) -> ReleaseId:
        """`<name>-<version>`."""
        return f"{self.name}-{self.version}"

    @property
    def file_bytes(self) -> int:
        """Size of all files on a device's disk."""
        return sum(file.size for file in self.files)

    def chunks(self) -> Iterator[tuple[ReleaseFile, int, Chunk]]:
        """Every chunk with its file and its offset in the file."""
        for file in self.files:
            offset = 0
            for chunk in file.chunks:
                yield file, offset, chunk
                offset += chunk.size

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.encode(self) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


def parse(raw: bytes) -> Release:
    """Read a manifest that was signed. Raises CorruptRelease or UnsupportedRelease (made by a newer publisher)."""
    if len(raw) > MAX_RELEASE_BYTES:
        raise CorruptRelease(f"its manifest is larger than {MAX_RELEASE_BYTES:,} bytes")
    try:
        found = msgspec.json.decode(raw, type=_FormatOnly).format
        if found > FORMAT:
            raise UnsupportedRelease(f"its manifest has format {found}, and this version reads up to {FORMAT}")
        release = msgspec.json.decode(raw, type=Release)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRelease(f"its manifest cannot be read: {error}"[:1000]) from error
    for problem in _contradictions(release):
        raise CorruptRelease(f"its manifest is wrong: {problem}")
    return release


def _contradictions(release: Release) -> Iterator[str]:
    if release.format < 1:
        yield f"format {release.format} does not exist"
    if len(release.id) > MOST_ID_CHARS:
        yield f"its name and version are longer than {MOST_ID_CHARS} characters together"
    if sum(len(file.chunks) for file in release.files) > MAX_CHUNKS:
        yield f"it has more than {MAX_CHUNKS:,} chunks"
    for file in release.files:
        if problem := unportable(file.path):
            yield f"{file.path[:200]!r}: {problem}"
        if sum(chunk.size for chunk in file.chunks) != file.size:
            yield f"the chunks of {file.path} are not {file.size:,} bytes together"
        yield from (f"{file.path}: {problem}" for chunk in file.chunks for problem in wrong_place(chunk, release.packs))
    if pair := twins(file.path for file in release.files):
        yield f"{pair[0]!r} and {pair[1]!r} cannot be two files everywhere"
    entry = "adapter.json" if release.kind == "adapter" else "bundle.json"
    if entry not in {file.path for file in release.files}:
        yield f"there is no {entry}"
    if (release.base is not None) != (release.kind == "adapter"):
        yield "an adapter has a base, and a model has none"


def wrong_place(chunk: Chunk, packs: tuple[Pack, ...]) -> Iterator[str]:
    """What cannot be true of where a chunk is stored."""
    if chunk.pack >= len(packs):
        yield f"a chunk is in pack {chunk.pack}, and there are {len(packs)}"
    elif chunk.offset + chunk.stored > packs[chunk.pack].size:
        yield "a chunk ends after its pack"
    if chunk.codec == "raw" and chunk.stored != chunk.size:
        yield "a raw chunk is stored with another length"
