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

_SAMPLE_BYTES = 64 << 10
_HOPELESS, _ONLY_FREQUENCY = 0.98, 0.9
"""What is left of a sample by zlib's quickest level: above, nothing helps; above, only coding by frequency does."""
_NEARLY = 1.05
"""Ways whose sample is so much larger than the best one's are not tried on the whole."""


@dataclass(frozen=True)
class Judged:
    """What a sample promises: ways to try on the whole, and the share of it that the best one leaves (1: all)."""

    ways: tuple[Way, ...]
    share: float


NOTHING = Judged((), 1.0)


def judged(data: bytes, codecs: tuple[Codec, ...], ways: tuple[Way, ...] = CONTENT) -> Judged:
    """Which of `ways` to write one of `codecs` promise most for `data`."""
    sample = _sample(data)
    ways = tuple(way for way in ways if codec_of(way) in codecs)
    quick = len(zlib.compress(sample, 1)) / len(sample)
    if not ways or quick > _HOPELESS:
        return NOTHING
    if quick > _ONLY_FREQUENCY and "zlib by frequency" in ways:
        ways = ("zlib by frequency",)
    sizes = {way: len(pack(sample, (way,))[1]) for way in ways}
    least = min(sizes.values())
    return Judged(tuple(way for way in ways if sizes[way] <= least * _NEARLY), least / len(sample))


def _sample(data: bytes) -> bytes:
    """Four pieces, evenly spread."""
    if len(data) <= _SAMPLE_BYTES:
        return data
    piece, step = _SAMPLE_BYTES // 4, (len(data) - _SAMPLE_BYTES // 4) // 3
    return b"".join(data[at * step : at * step + piece] for at in range(4))
