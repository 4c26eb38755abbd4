"""What a sample says is true of the whole, and costs less than trying everything."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.release import codec
from edgekit.release.codec import Way, pack, unpack
from edgekit.release.manifest import Codec
from export.publish.packing import packed
from export.publish.sampling import judged, promising

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

Rule = Callable[[bytes, tuple[Codec, ...]], tuple[Way, ...]]


def of_differences(data: bytes, codecs: tuple[Codec, ...]) -> tuple[Way, ...]:
    return judged(data, codecs).ways


CHUNKS: dict[str, tuple[bytes, Rule, set[Codec]]] = {
    "noise": (noise(MIB), promising, {"raw"}),
    "weights": (nibbles(MIB), promising, {"zlib"}),
    "zeros": (bytes(MIB), promising, {"zlib", "bz2", "xz"}),
    "text": (TEXT, promising, {"bz2", "xz"}),
    "one byte": (b"x", promising, {"raw"}),
    "few changes": (sparse(MIB, 0.02), of_differences, {"bz2", "xz"}),
    "small changes": (small(MIB), of_differences, {"xz", "bz2", "zlib"}),
    "a difference of nothing alike": (noise(MIB), of_differences, {"raw"}),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_the_way_is_chosen_by_what_it_saves(name: str) -> None:
    data, rule, expected = CHUNKS[name]
    found = packed(data, rule(data, codec.EVERY))
    assert found.codec in expected
    assert codec.unpack(found.codec, found.data, len(data)) == data
    least = min(len(pack(data, (way,))[1]) for way in codec.THOROUGH)
    assert len(found.data) <= least * 1.02 + 20, "no larger than what trying everything thoroughly gives"


def test_weights_are_coded_by_frequency_alone() -> None:
    """Searching them for repetitions takes thirty times as long, for nothing."""
    assert promising(nibbles(MIB), codec.EVERY) == ("zlib by frequency",)


@pytest.mark.parametrize("data", [sparse(MIB, 0.02), sparse(MIB, 0.2), small(MIB)])
def test_differences_are_not_tried_with_what_searches_long(data: bytes) -> None:
    assert not {"zlib", "xz"} & set(judged(data, codec.EVERY).ways)


def test_what_is_promised_is_what_the_whole_becomes() -> None:
    for data in (nibbles(MIB), sparse(MIB, 0.1), small(MIB)):
        found = judged(data, codec.EVERY)
        assert len(packed(data, found.ways).data) / len(data) == pytest.approx(found.share, rel=0.1)


def test_noise_is_not_tried() -> None:
    assert promising(noise(MIB), codec.EVERY) == ()
    assert judged(noise(MIB), codec.EVERY).ways == ()
    assert judged(noise(MIB), codec.EVERY).share == 1


def test_codecs_that_are_not_allowed_are_not_used() -> None:
    def found(data: bytes, *codecs: Codec) -> Codec:
        return packed(data, promising(data, codecs)).codec

    assert found(TEXT, *codec.SLOW) == "zlib"
    assert found(TEXT) == "raw"
    assert found(nibbles(MIB), "bz2") in {"bz2", "raw"}
    assert packed(small(MIB), judged(small(MIB), codec.SLOW).ways).codec == "zlib"


@given(data=st.binary(min_size=1, max_size=4000) | st.integers(1, 300_000).map(bytes))
def test_packed_chunks_unpack(data: bytes) -> None:
    found = packed(data, promising(data, codec.EVERY))
    assert unpack(found.codec, found.data, len(data)) == data
