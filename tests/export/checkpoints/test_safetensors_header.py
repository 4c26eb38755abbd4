"""The format's rules, on literal bytes."""

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import Extent, ExtentFile
from export.checkpoints.safetensors_header import StoredTensor, read_header


def content(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int = 0, end: int = 8, *, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read(path: Path) -> dict[str, StoredTensor]:
    with contextlib.closing(ExtentFile(path)) as file:
        return dict(read_header(file))


CORRUPT = {
    "empty file": b"",
    "seven bytes": bytes(7),
    "header longer than the file": content({}, length=1 << 20),
    "absurd header length": content({}, length=(1 << 64) - 1),
    "header of no bytes": content(b""),
    "not JSON": content(b"{nonsense}"),
    "not UTF-8": content(b'{"\xff": 1}'),
    "not an object": content([]),
    "leading space": content(b" {}"),
    "nested 100,000 deep": content(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "integer of 5,000 digits": content(b'{"a":' + b"9" * 5000 + b"}"),
    "entry that is no object": content({"a": 1}),
    "unknown field": content({"a": entry() | {"more": 1}}, bytes(8)),
    "no dtype": content({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "dtype as number": content({"a": entry(dtype=1)}, bytes(8)),
    "negative dimension": content({"a": entry(shape=[-2])}, bytes(8)),
    "fractional dimension": content({"a": entry(shape=[2.5])}, bytes(8)),
    "dimension beyond 64 bits": content({"a": entry(shape=[1 << 64, 0])}, bytes(8)),
    "negative offset": content({"a": entry(-8, 0)}, bytes(8)),
    "three offsets": content({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, bytes(8)),
    "end before begin": content({"a": entry(8, 0)}, bytes(8)),
    "size that contradicts the shape": content({"a": entry(0, 4)}, bytes(4)),
    "offset beyond the end": content({"a": entry(1 << 40, (1 << 40) + 8)}, bytes(8)),
    "hole before the first": content({"a": entry(8, 16)}, bytes(16)),
    "hole in between": content({"a": entry(), "b": entry(16, 24)}, bytes(24)),
    "overlap": content({"a": entry(), "b": entry(4, 12)}, bytes(12)),
    "the same bytes twice": content({"a": entry(), "b": entry()}, bytes(8)),
    "bytes that belong to nothing": content({"a": entry()}, bytes(9)),
    "cut within the data": content({"a": entry()}, bytes(7)),
    "a name twice": content(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "metadata that is no text": content({"__metadata__": {"a": 1}}),
    "nine dimensions": content({"a": entry(0, 4, shape=[1] * 9)}, bytes(4)),
}


@pytest.mark.parametrize("raw", CORRUPT.values(), ids=CORRUPT.keys())
def test_what_the_format_forbids_is_refused_without_allocating_for_it(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpoint) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.path == "model.safetensors"
    assert peak < 32 << 20  # JSON nested 100,000 deep takes its share before it is refused


def test_a_dtype_of_unknown_size_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content({"a": entry(dtype="F4")}, bytes(8)))
    with pytest.raises(UnsupportedCheckpoint, match="F4"):
        read(path)


def test_a_valid_header_gives_every_tensor_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "b": entry(8, 12, dtype="BF16", shape=[2, 1]),
        "a": entry(),
        "none": entry(12, 12, shape=[0, 3]),
        "one": entry(12, 16, shape=[]),
        "__metadata__": {"format": "pt"},
    }
    raw = content(json.dumps(header).encode() + b"   ", bytes(16))
    path.write_bytes(raw)
    start = len(raw) - 16
    assert read(path) == {
        "a": StoredTensor("F32", (2,), Extent(start, 8)),
        "b": StoredTensor("BF16", (2, 1), Extent(start + 8, 4)),
        "none": StoredTensor("F32", (0, 3), Extent(start + 12, 0)),
        "one": StoredTensor("F32", (), Extent(start + 12, 4)),
    }


VALID = content({"a": entry(), "b": entry(8, 12, dtype="BF16", shape=[2, 1])}, bytes(12))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.safetensors"


@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_and_nothing_else(data: st.DataObject, scratch: Path) -> None:
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(VALID) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(damaged[: data.draw(st.one_of(st.just(len(VALID)), st.integers(0, len(VALID))))])
    with contextlib.suppress(CheckpointError):
        read(scratch)
