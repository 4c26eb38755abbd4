"""A delta index is a hint: it may be wrong, but never out of bounds."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease, UnsupportedRelease
from edgekit.release import delta
from edgekit.release.delta import parse
from tests.contents import make, make_delta, noise, with_flips

BASE = make({"w": noise(3000)})
NEW = make({"w": with_flips(noise(3000), 10, 1500)}, version="2")
DELTA, _ = make_delta(BASE, NEW)


def test_what_is_written_is_read() -> None:
    assert parse(DELTA.to_bytes()) == DELTA
    assert len(DELTA.differences) == 2
    assert (DELTA.base, DELTA.release) == ("tiny-1", "tiny-2")


CHUNK, BASE_CHUNK, PACK, OFFSET, STORED, CODEC = range(6)
Change = Callable[[dict[str, Any]], object]


def put(at: int, value: Any) -> Change:
    return lambda found: found["differences"][0].__setitem__(at, value)


WRONG: dict[str, Change] = {
    "pack that is not there": put(PACK, 1),
    "negative pack": put(PACK, -1),
    "beyond the pack": put(OFFSET, 10_000),
    "longer than the pack": put(STORED, 100_000),
    "stored nowhere": put(STORED, 0),
    "stored above a chunk": put(STORED, 2 << 20),
    "2^63": put(OFFSET, 1 << 63),
    "digest of another length": put(CHUNK, "ab"),
    "base is a path": put(BASE_CHUNK, "../../etc/passwd"),
    "unknown codec": put(CODEC, "exec"),
    "one field more": lambda found: found["differences"][0].append(1),
    "pack above 32 MiB": lambda found: found["packs"][0].__setitem__(1, 1 << 40),
    "base with a slash": lambda found: found.update(base="a/b"),
    "unknown field": lambda found: found.update(run="rm"),
    "no format": lambda found: found.pop("format"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_b03_a_wrong_index_is_refused(change: Change) -> None:
    found = json.loads(DELTA.to_bytes())
    change(found)
    with pytest.raises(CorruptRelease):
        parse(json.dumps(found).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * delta.MAX_DELTA_BYTES + b"{}"])
def test_what_is_no_index_is_refused(raw: bytes) -> None:
    with pytest.raises(CorruptRelease):
        parse(raw)


def test_a_newer_format_says_so() -> None:
    with pytest.raises(UnsupportedRelease, match="format 2"):
        parse(b'{"format": 2}')


@given(st.binary(max_size=200))
def test_h_any_bytes_are_an_index_or_a_clear_error(raw: bytes) -> None:
    try:
        parse(raw)
    except CorruptRelease as error:
        assert len(str(error)) < 1500


@given(st.integers(0, len(DELTA.to_bytes()) - 1), st.binary(max_size=3), st.integers(0, 40))
def test_h_a_damaged_index_is_refused_or_stays_inside_its_packs(at: int, instead: bytes, cut: int) -> None:
    raw = DELTA.to_bytes()
    try:
        found = parse(raw[:at] + instead + raw[at + cut :])
    except CorruptRelease:
        return
    assert all(one.offset + one.stored <= found.packs[one.pack].size for one in found.differences)
