"""What a sample says is true of the whole, and costs less than trying everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.release import codec
from edgekit.release.codec import Way, pack, unpack
from edgekit.release.manifest import Codec
from export.publish.packing import packed
from export.publish.sampling import CONTENT, DIFFERENCES, NOTHING, judged

MIB = 1 << 20


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def nibbles(size: int) -> bytes:
    """As INT4 weights are distributed: few extremes."""
    codes = np.clip(np.rint(np.random.default_rng(0).normal(8, 3, 2 * size)), 0, 15).astype(np.uint8)
    return (codes[::2] | codes[1::2] << 4).tobytes()


def sparse(size: int, share: float) -> bytes:
    random = np.random.default_rng(0)
    return np.where(random.random(size) < share, random.integers(1, 256, size), 0).astype(np.uint8).tobytes()


def small(size: int) -> bytes:
    """Differences of INT8 weights: most bytes changed, by one."""
    return np.rint(np.random.default_rng(0).normal(0, 0.8, size)).astype(np.int8).tobytes()


TEXT = b"".join(b'"%d": "token %d",\n' % (n, n * n) for n in range(20_000))

CHUNKS: dict[str, tuple[bytes, tuple[Way, ...], set[Codec]]] = {
    "noise": (noise(MIB), CONTENT, {"raw"}),
    "weights": (nibbles(MIB), CONTENT, {"zlib"}),
    "zeros": (bytes(MIB), CONTENT, {"zlib", "bz2", "xz"}),
    "text": (TEXT, CONTENT, {"bz2", "xz"}),
    "one byte": (b"x", CONTENT, {"raw"}),
    "few changes": (sparse(MIB, 0.02), DIFFERENCES, {"bz2"}),
    "small changes": (small(MIB), DIFFERENCES, {"xz", "bz2", "zlib"}),
    "a difference of nothing alike": (noise(MIB), DIFFERENCES, {"raw"}),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_the_way_is_chosen_by_what_it_saves(name: str) -> None:
    data, ways, expected = CHUNKS[name]
    found = packed(data, judged(data, codec.EVERY, ways).ways)
    assert found.codec in expected
    assert codec.unpack(found.codec, found.data, len(data)) == data
    least = min(len(pack(data, (way,))[1]) for way in codec.THOROUGH)
    assert len(found.data) <= least * 1.02 + 20, "no larger than what trying everything thoroughly gives"


def test_weights_are_coded_by_frequency_alone() -> None:
    """Searching them for repetitions takes thirty times as long, for nothing."""
    assert judged(nibbles(MIB), codec.EVERY).ways == ("zlib by frequency",)


@pytest.mark.parametrize("data", [sparse(MIB, 0.02), sparse(MIB, 0.2), small(MIB)])
def test_differences_are_not_tried_with_what_searches_long(data: bytes) -> None:
    assert not {"zlib", "xz"} & set(judged(data, codec.EVERY, DIFFERENCES).ways)


def test_what_is_promised_is_what_the_whole_becomes() -> None:
    for data in (nibbles(MIB), sparse(MIB, 0.1), small(MIB)):
        found = judged(data, codec.EVERY, DIFFERENCES)
        assert len(packed(data, found.ways).data) / len(data) == pytest.approx(found.share, rel=0.1)


def test_noise_is_not_tried() -> None:
    assert judged(noise(MIB), codec.EVERY) == NOTHING


def test_codecs_that_are_not_allowed_are_not_used() -> None:
    def found(data: bytes, *codecs: Codec) -> Codec:
        return packed(data, judged(data, codecs).ways).codec

    assert found(TEXT, *codec.SLOW) == "zlib"
    assert found(TEXT) == "raw"
    assert found(nibbles(MIB), "bz2") in {"bz2", "raw"}
    assert packed(small(MIB), judged(small(MIB), codec.SLOW, DIFFERENCES).ways).codec == "zlib"


@given(data=st.binary(min_size=1, max_size=4000) | st.integers(1, 300_000).map(bytes))
def test_packed_chunks_unpack(data: bytes) -> None:
    found = packed(data, judged(data, codec.EVERY).ways)
    assert unpack(found.codec, found.data, len(data)) == data
