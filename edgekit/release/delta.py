"""The delta index: chunks of one release as differences from chunks of another.

A JSON target of the role `rollout`, at most 64 MiB. It is a hint: a chunk that a difference made is held against the
digest that the release's manifest says, and fetched whole if it is another one. So a wrong index costs time, and
nothing else.

A difference is [chunk, base, pack, offset, stored, codec]: the digest of the chunk that comes out, that of the chunk
it is counted from (of the same length), and where its bytes are. It is new minus base, byte by byte modulo 256: of two
quantisations of nearly the same weights, mostly zeros (ZipLLM, arXiv:2505.06252, counts likewise with XOR).
"""

from typing import Annotated

import msgspec

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.manifest import Sha256
from edgekit.release.manifest import MAX_CHUNKS, MAX_PACK_BYTES, MAX_STORED_BYTES, Codec, Pack
from edgekit.release.names import ReleaseId

FORMAT = 1
MAX_DELTA_BYTES = 64 << 20


class Difference(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One chunk as a difference."""

    chunk: Sha256
    base: Sha256
    pack: Annotated[int, msgspec.Meta(ge=0, lt=MAX_CHUNKS)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PACK_BYTES)]
    stored: Annotated[int, msgspec.Meta(ge=1, le=MAX_STORED_BYTES)]
    codec: Codec


class Delta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The index as a record."""

    format: int
    base: ReleaseId
    release: ReleaseId
    packs: Annotated[tuple[Pack, ...], msgspec.Meta(max_length=MAX_CHUNKS)]
    differences: Annotated[tuple[Difference, ...], msgspec.Meta(max_length=MAX_CHUNKS)]

    def to_bytes(self) -> bytes:
        """The same bytes for the same facts."""
        return msgspec.json.encode(self) + b"\n"


class _FormatOnly(msgspec.Struct):
    format: int


def parse(raw: bytes) -> Delta:
    """Read an index that was signed. Raises CorruptRelease or UnsupportedRelease."""
    if len(raw) > MAX_DELTA_BYTES:
        raise CorruptRelease(f"the delta index is larger than {MAX_DELTA_BYTES:,} bytes")
    try:
        found = msgspec.json.decode(raw, type=_FormatOnly).format
        if found > FORMAT:
            raise UnsupportedRelease(f"its delta index has format {found}, and this version reads up to {FORMAT}")
        delta = msgspec.json.decode(raw, type=Delta)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRelease(f"the delta index cannot be read: {error}"[:1000]) from error
    for difference in delta.differences:
        if difference.pack >= len(delta.packs) or (
            difference.offset + difference.stored > delta.packs[difference.pack].size
        ):
            raise CorruptRelease("the delta index is wrong: a difference is outside of its pack")
    return delta
