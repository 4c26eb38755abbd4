"""Bytes of a chunk: packed as small as the standard library can, unpacked within bounds, and counted from a base.

Quantised weights hardly pack; differences and tokenizers do. Of the standard codecs the smallest result is taken, for
each chunk anew: measured on differences of 4-bit weights, bz2 beats zstd -19 at every share of changed codes.

One codec can be written in several ways, which all unpack alike. Searching for repetitions that are not there is slow
and makes things larger: zlib at level 9 takes 1.2 s for a MiB of differences of INT8 weights, and comes out 8 % larger
than by coding bytes by frequency alone, in a hundredth of the time.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from edgekit.errors import CorruptRelease
from edgekit.release.manifest import MAX_CHUNK_BYTES, Codec

_DICTIONARY_BYTES = 1 << 20
_XZ_MEMORY_BYTES = 4 << 20
_ZLIB_MEMORY = 9
"""The most: of weights, longer blocks need fewer tables."""
_XZ = ({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY_BYTES},)

_XZ_SHALLOW = (
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 6,
        "dict_size": _DICTIONARY_BYTES,
        "mf": lzma.MF_BT2,
        "depth": 1,
        "lc": 0,
        "pb": 0,
    },
)

Way = Literal["zlib", "zlib by frequency", "zlib of runs", "bz2", "xz", "xz, shallow"]
"""How a codec writes: as thoroughly as it can; or for weights (no byte tells of the next), zeros, dense differences."""


def _deflated(data: bytes, strategy: int) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, _ZLIB_MEMORY, strategy)
    return made.compress(data) + made.flush()


def _xz(data: bytes, filters: Sequence[Mapping[str, Any]]) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=filters)


_WAYS: Mapping[Way, tuple[Codec, Callable[[bytes], bytes]]] = {
    "zlib": ("zlib", lambda data: zlib.compress(data, 9)),
    "zlib by frequency": ("zlib", lambda data: _deflated(data, zlib.Z_HUFFMAN_ONLY)),
    "zlib of runs": ("zlib", lambda data: _deflated(data, zlib.Z_RLE)),
    "bz2": ("bz2", lambda data: bz2.compress(data, 9)),
    "xz": ("xz", lambda data: _xz(data, _XZ)),
    "xz, shallow": ("xz", lambda data: _xz(data, _XZ_SHALLOW)),
}

SLOW: tuple[Codec, ...] = ("zlib",)
"""For devices whose processor is the bottleneck: zlib unpacks several times faster than the others."""

EVERY: tuple[Codec, ...] = ("zlib", "bz2", "xz")


THOROUGH: tuple[Way, ...] = ("zlib", "bz2", "xz")


def codec_of(way: Way) -> Codec:
    """What unpacks it."""
    return _WAYS[way][0]


def pack(data: bytes, ways: Sequence[Way] = THOROUGH) -> tuple[Codec, bytes]:
    """The smallest form of `data`, at most 1 MiB; as it is if nothing saves a hundredth of it."""
    smallest: tuple[Codec, bytes] = "raw", data
    for way in ways:
        codec, write = _WAYS[way]
        packed = write(data)
        if len(packed) < len(smallest[1]) and len(packed) <= len(data) * 0.99:
            smallest = codec, packed
    return smallest


def unpack(codec: Codec, stored: bytes, size: int) -> bytes:
    """The chunk, which has exactly `size` bytes. Never makes more. Raises CorruptRelease."""
    if not 0 < size <= MAX_CHUNK_BYTES:
        raise CorruptRelease(f"a chunk of {size:,} bytes is none")
    try:
        data = _unpack(codec, stored, size)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise CorruptRelease(f"a chunk cannot be unpacked: {error}") from error
    if len(data) != size:
        raise CorruptRelease("a chunk unpacks to another length")
    return data


def _unpack(codec: Codec, stored: bytes, size: int) -> bytes:
    if codec == "zlib":
        return zlib.decompressobj().decompress(stored, size + 1)
    if codec == "bz2":
        return bz2.BZ2Decompressor().decompress(stored, size + 1)
    if codec == "xz":
        decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        return decompressor.decompress(stored, size + 1)
    return stored


def difference(new: bytes, base: bytes) -> bytes:
    """New minus base, byte by byte modulo 256. Both have the same length."""
    high, a, b = _wide(new, base)
    # Byte lanes in one big number: with the top bit set no lane borrows from its neighbour, and XOR puts it right.
    return (((a | high) - (b & ~high)) ^ ((a ^ ~b) & high)).to_bytes(len(new), "little")


def restore(base: bytes, found: bytes) -> bytes:
    """The new bytes, from the base and what `difference` gave for them. Both have the same length."""
    high, a, b = _wide(base, found)
    return (((a & ~high) + (b & ~high)) ^ ((a ^ b) & high)).to_bytes(len(base), "little")


def _wide(first: bytes, second: bytes) -> tuple[int, int, int]:
    if len(first) != len(second):
        raise CorruptRelease("a difference has another length than its base")
    high = int.from_bytes(b"\x80" * len(first), "little")
    return high, int.from_bytes(first, "little"), int.from_bytes(second, "little")
