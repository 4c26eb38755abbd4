"""Chunks come out as they went in, or not at all; nothing makes more than it may."""

import bz2
import contextlib
import lzma
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease
from edgekit.release import codec
from edgekit.release.codec import EVERY, THOROUGH, Way, codec_of, difference, pack, restore, unpack
from edgekit.release.manifest import MAX_CHUNK_BYTES, MAX_STORED_BYTES, Codec
from tests.contents import noise, with_flips

ALL: tuple[Codec, ...] = ("raw", *EVERY)
WAYS = tuple(codec._WAYS)


def stored(way: Way, data: bytes) -> bytes:
    return codec._WAYS[way][1](data)


@given(st.binary(min_size=1, max_size=3000), st.sampled_from(WAYS))
def test_each_way_gives_back_what_it_was_given(data: bytes, way: Way) -> None:
    assert unpack(codec_of(way), stored(way, data), len(data)) == data
    assert unpack("raw", data, len(data)) == data


@given(st.binary(min_size=1, max_size=2000))
def test_the_smallest_form_is_taken(data: bytes) -> None:
    kind, raw = pack(data)
    assert unpack(kind, raw, len(data)) == data
    assert len(raw) <= len(data)
    if kind != "raw":
        assert len(raw) == min(len(stored(one, data)) for one in THOROUGH)


def test_what_does_not_get_smaller_stays_as_it_is() -> None:
    data = noise(10_000)
    assert pack(data) == ("raw", data)
    assert pack(data, ()) == ("raw", data)


def test_the_largest_chunk_of_noise_fits_into_what_a_manifest_allows() -> None:
    data = noise(MAX_CHUNK_BYTES)
    assert all(len(stored(way, data)) <= MAX_STORED_BYTES for way in WAYS)


BOMBS: dict[str, tuple[Codec, bytes]] = {
    "zlib": ("zlib", zlib.compress(bytes(64 << 20), 9)),
    "bz2": ("bz2", bz2.compress(bytes(64 << 20), 9)),
    "xz": ("xz", lzma.compress(bytes(64 << 20), format=lzma.FORMAT_XZ, filters=codec._XZ)),
    "bz2 one after the other": ("bz2", bz2.compress(bytes(1 << 20)) * 50),
}


@pytest.mark.parametrize(("kind", "bomb"), BOMBS.values(), ids=BOMBS)
def test_b03_a_bomb_makes_no_more_than_one_byte_too_much(kind: Codec, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptRelease):
            unpack(kind, bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_b03_a_dictionary_of_a_gigabyte_is_refused() -> None:
    raw = bytearray(lzma.compress(b"a" * 1000, format=lzma.FORMAT_XZ, filters=codec._XZ))
    assert unpack("xz", bytes(raw), 1000)
    raw[12:24] = _block_header_with_dictionary_of_a_gigabyte(bytes(raw[12:24]))
    with pytest.raises(CorruptRelease):
        unpack("xz", bytes(raw), 1000)


def _block_header_with_dictionary_of_a_gigabyte(header: bytes) -> bytes:
    """XZ file format 1.2.1, sections 3.1 and 5.3.1: LZMA2's one byte of properties; 36 means 1 GiB."""
    changed = bytearray(header)
    at = changed.index(b"\x21\x01") + 2
    changed[at] = 36
    changed[-4:] = zlib.crc32(bytes(changed[:-4])).to_bytes(4, "little")
    return bytes(changed)


WRONG: dict[str, tuple[Codec, bytes, int]] = {
    "too short": ("raw", b"abc", 4),
    "too long": ("raw", b"abcde", 4),
    "half of zlib": ("zlib", zlib.compress(noise(1000))[:500], 1000),
    "half of bz2": ("bz2", bz2.compress(noise(1000))[:500], 1000),
    "half of xz": ("xz", lzma.compress(noise(1000))[:500], 1000),
    "zlib that is none": ("zlib", b"hello", 5),
    "bz2 that is none": ("bz2", b"hello", 5),
    "xz that is none": ("xz", b"hello", 5),
    "zlib of another length": ("zlib", zlib.compress(b"a" * 10), 11),
    "nothing": ("zlib", b"", 1),
    "a chunk of no size": ("raw", b"", 0),
    "a chunk of a negative size": ("raw", b"", -1),
    "a chunk above 1 MiB": ("raw", bytes(MAX_CHUNK_BYTES + 1), MAX_CHUNK_BYTES + 1),
    "lzma of the old kind": ("xz", lzma.compress(b"a" * 100, format=lzma.FORMAT_ALONE), 100),
}


@pytest.mark.parametrize(("kind", "raw", "size"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_unpacked_is_corrupt(kind: Codec, raw: bytes, size: int) -> None:
    with pytest.raises(CorruptRelease):
        unpack(kind, raw, size)


@given(st.sampled_from(ALL), st.binary(max_size=300), st.integers(-5, 400))
def test_h_any_bytes_are_a_chunk_of_that_size_or_corrupt(kind: Codec, raw: bytes, size: int) -> None:
    with contextlib.suppress(CorruptRelease):
        assert len(unpack(kind, raw, size)) == size


@given(st.sampled_from(WAYS), st.binary(min_size=1, max_size=300), st.data())
def test_h_a_damaged_chunk_is_never_longer_than_it_may_be(way: Way, data: bytes, draw: st.DataObject) -> None:
    raw = bytearray(stored(way, data))
    raw[draw.draw(st.integers(0, len(raw) - 1))] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(CorruptRelease):
        assert len(unpack(codec_of(way), bytes(raw), len(data))) == len(data)


# --- differences ------------------------------------------------------------------------------


@given(st.binary(max_size=500), st.data())
def test_a_difference_restores_the_new_bytes(base: bytes, draw: st.DataObject) -> None:
    new = draw.draw(st.binary(min_size=len(base), max_size=len(base)))
    found = difference(new, base)
    assert found == bytes((a - b) % 256 for a, b in zip(new, base, strict=True))
    assert restore(base, found) == new


def test_what_did_not_change_is_zero_and_packs_to_nothing() -> None:
    base = noise(100_000)
    found = difference(with_flips(base, 5, 70_000), base)
    assert len(found) - found.count(0) == 2
    assert len(pack(found)[1]) < 200


@pytest.mark.parametrize("combine", [difference, restore])
def test_a_base_of_another_length_is_refused(combine: object) -> None:
    assert callable(combine)
    with pytest.raises(CorruptRelease):
        combine(b"abc", b"ab")
