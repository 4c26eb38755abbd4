"""Which ways of packing a chunk are worth their time: told by a sample, before the whole is packed.

Quantised weights are coded by how common each byte is, and nothing else helps at ten times the cost; their scales lose
two thirds to xz. Differences are mostly zeros, or small numbers: bz2, or xz that hardly searches.
"""

import zlib
from dataclasses import dataclass

from edgekit.release.codec import Way, codec_of, pack
from edgekit.release.manifest import Codec

CONTENT: tuple[Way, ...] = ("zlib by frequency", "zlib", "bz2", "xz")
"""What chunks of files are tried with. Some of it lasts long for little: hence the samples."""
DIFFERENCES: tuple[Way, ...] = ("zlib by frequency", "zlib of runs", "bz2", "xz, shallow")

_SAMPLE_BYTES, _LARGE_SAMPLE_BYTES = 64 << 10, 256 << 10
"""The large one is for what speaks for many chunks: bz2's tables weigh too much in small samples of sparse bytes."""
_HOPELESS, _ONLY_FREQUENCY = 0.98, 0.9
"""What is left of a sample by zlib's quickest level: above, nothing helps; above, only coding by frequency does."""
_NEARLY = 1.02
"""Ways whose sample is so much larger than the best one's are not tried on the whole."""


@dataclass(frozen=True)
class Judged:
    """What a sample promises: ways to try on the whole, and the share of it that the best one leaves (1: all)."""

    ways: tuple[Way, ...]
    share: float


def promising(data: bytes, codecs: tuple[Codec, ...]) -> tuple[Way, ...]:
    """How to pack a chunk of a file with `codecs`: all ways, if it is hardly larger than a sample."""
    ways = _thinkable(data, codecs, CONTENT)
    return ways if len(data) <= 2 * _SAMPLE_BYTES or len(ways) == 1 else _judged(data, ways, _SAMPLE_BYTES).ways


def judged(data: bytes, codecs: tuple[Codec, ...]) -> Judged:
    """What may be expected of a difference and others like it."""
    return _judged(data, _thinkable(data, codecs, DIFFERENCES), _LARGE_SAMPLE_BYTES)


def _thinkable(data: bytes, codecs: tuple[Codec, ...], ways: tuple[Way, ...]) -> tuple[Way, ...]:
    """Ways that the quickest one does not rule out."""
    sample = _sample(data, _SAMPLE_BYTES)
    quick = len(zlib.compress(sample, 1)) / len(sample)
    if quick > _HOPELESS:
        return ()
    allowed = tuple(way for way in ways if codec_of(way) in codecs)
    frequency: tuple[Way, ...] = ("zlib by frequency",)
    return frequency if quick > _ONLY_FREQUENCY and set(frequency) <= set(allowed) else allowed


def _judged(data: bytes, ways: tuple[Way, ...], count: int) -> Judged:
    sample = _sample(data, count)
    sizes = {way: len(pack(sample, (way,))[1]) for way in ways}
    least = min(sizes.values(), default=len(sample))
    return Judged(tuple(way for way in ways if sizes[way] <= least * _NEARLY), least / len(sample))


def _sample(data: bytes, count: int) -> bytes:
    """Four pieces, evenly spread, of `count` bytes together."""
    if len(data) <= count:
        return data
    piece = count // 4
    step = (len(data) - piece) // 3
    return b"".join(data[at * step : at * step + piece] for at in range(4))
