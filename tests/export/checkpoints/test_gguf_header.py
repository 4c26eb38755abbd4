"""A GGUF header is untrusted: whatever it says, it is read in bounds or refused with one sentence."""

import contextlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CheckpointError, CheckpointNotFound, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints import gguf_header, open_checkpoint
from export.checkpoints.gguf_header import read_header
from tests import tiny
from tests.export.checkpoints import raw_gguf as raw

HUGE = (1 << 63) - 1
SIXTEEN = bytes(16)

CORRUPT = {
    "empty file": b"",
    "three bytes": b"GGU",
    "another format": b"PK\x03\x04" + bytes(100),
    "only the magic": b"GGUF",
    "ends within the counts": raw.header()[:12],
    "absurd number of tensors": raw.header(tensor_count=HUGE),
    "absurd number of entries": raw.header(entry_count=HUGE),
    "more entries than bytes": raw.header(entry_count=3, data=bytes(20)),
    "absurd key length": raw.header([struct.pack("<Q", HUGE)]),
    "absurd text length": raw.header([raw.entry("a", raw.STRING, struct.pack("<Q", HUGE))]),
    "absurd array of numbers": raw.header([raw.array("a", raw.U64, HUGE, b"")]),
    "absurd array of texts": raw.header([raw.array("a", raw.STRING, HUGE, b"")]),
    "array larger than the rest": raw.header([raw.array("a", raw.U64, 1 << 20, SIXTEEN)]),
    "texts larger than the rest": raw.header([raw.array("a", raw.STRING, 1 << 20, SIXTEEN)]),
    "unknown value type": raw.header([raw.entry("a", 13, SIXTEEN)]),
    "unknown type in an array": raw.header([raw.array("a", 99, 1, SIXTEEN)]),
    "truth value of 2": raw.header([raw.entry("a", raw.BOOL, b"\x02")]),
    "truth value of 2 in an array": raw.header([raw.array("a", raw.BOOL, 2, b"\x01\x02")]),
    "key that is not UTF-8": raw.header([raw.text(b"\xff") + struct.pack("<I", raw.U8) + b"\0"]),
    "text that is not UTF-8": raw.header([raw.string("a", b"\xc3\x28")]),
    "key given twice": raw.header([raw.u32("a", 1), raw.u32("a", 1)]),
    "alignment of zero": raw.header([raw.u32("general.alignment", 0)]),
    "alignment of 24": raw.header([raw.u32("general.alignment", 24)]),
    "alignment of 2 GiB": raw.header([raw.u32("general.alignment", 1 << 31)]),
    "alignment as text": raw.header([raw.string("general.alignment", "32")]),
    "tensor given twice": raw.header(
        tensors=[raw.tensor("a"), raw.tensor("a", offset=32)], data=bytes(64)
    ),
    "tensor without dimensions": raw.header(tensors=[raw.tensor("a", ())], data=SIXTEEN),
    "tensor with five dimensions": raw.header(tensors=[raw.tensor("a", (1, 1, 1, 1, 1))], data=SIXTEEN),
    "tensor with 2^32 dimensions": raw.header(tensors=[raw.text("a") + b"\xff" * 4 + bytes(20)], data=SIXTEEN),
    "tensor with an empty dimension": raw.header(tensors=[raw.tensor("a", (0, 4))], data=SIXTEEN),
    "tensor whose size overflows 64 bits": raw.header(tensors=[raw.tensor("a", (1 << 32, 1 << 32))], data=SIXTEEN),
    "tensor that is larger than the file": raw.header(tensors=[raw.tensor("a", (1 << 20,))], data=SIXTEEN),
    "tensor beyond the end": raw.header(tensors=[raw.tensor("a", offset=1 << 40)], data=SIXTEEN),
    "tensor half beyond the end": raw.header(tensors=[raw.tensor("a", (8,))], data=SIXTEEN),
    "tensor out of alignment": raw.header(tensors=[raw.tensor("a", offset=8)], data=bytes(64)),
    "tensors that overlap": raw.header(
        tensors=[raw.tensor("a", (16,)), raw.tensor("b", offset=32)], data=bytes(64)
    ),
    "rows that are not whole blocks": raw.header(tensors=[raw.tensor("a", (33, 32), raw.Q4_1)], data=bytes(2000)),
    "tensor name of 65 bytes": raw.header(tensors=[raw.tensor("a" * 65)], data=SIXTEEN),
}  # fmt: skip

UNSUPPORTED = {
    "version 1": raw.header(version=1),
    "version 4": raw.header(version=4),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "array of arrays": raw.header([raw.array("a", raw.ARRAY, 1, SIXTEEN)]),
    "unknown tensor type": raw.header(tensors=[raw.tensor("a", kind=200)], data=SIXTEEN),
    "tensor type that was removed": raw.header(tensors=[raw.tensor("a", kind=4)], data=SIXTEEN),
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_header_is_refused_without_allocating_for_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpoint) as caught:
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.path == "model.gguf"
    assert peak < 8 << 20  # the read buffer is one of them


@pytest.mark.parametrize("content", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_is_valid_but_not_read_is_told_apart_from_damage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedCheckpoint):
        read_header(path)


@pytest.mark.parametrize("version", [2, 3])
def test_values_of_every_type_are_read(version: int, tmp_path: Path) -> None:
    entries = [
        raw.entry("u8", 0, b"\xff"),
        raw.entry("i8", 1, b"\xff"),
        raw.entry("u16", 2, b"\xff\xff"),
        raw.entry("i16", 3, b"\xfe\xff"),
        raw.u32("u32", 7),
        raw.entry("i32", 5, struct.pack("<i", -7)),
        raw.f32("f32", 1e-5),
        raw.entry("bool", raw.BOOL, b"\x01"),
        raw.string("text", "é"),
        raw.entry("u64", 10, struct.pack("<Q", 1 << 63)),
        raw.entry("i64", 11, struct.pack("<q", -(1 << 62))),
        raw.entry("f64", 12, struct.pack("<d", 0.1)),
        raw.strings("texts", ["a", "", "b"]),
        raw.array("numbers", raw.I32, 2, struct.pack("<2i", 1, -1)),
        raw.array("truths", raw.BOOL, 2, b"\x01\x00"),
        raw.array("nothing", raw.STRING, 0, b""),
    ]
    path = tmp_path / "model.gguf"
    path.write_bytes(raw.header(entries, version=version))
    found = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in read_header(path).metadata.items()
    }
    assert found == {
        "u8": 255, "i8": -1, "u16": 65535, "i16": -2, "u32": 7, "i32": -7, "f32": 1e-05, "bool": True, "text": "é",
        "u64": 1 << 63, "i64": -(1 << 62), "f64": 0.1, "texts": ["a", "", "b"], "numbers": [1, -1],
        "truths": [True, False], "nothing": [],
    }  # fmt: skip


def test_alignment_moves_the_data(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    content = raw.header([raw.u32("general.alignment", 512)], [raw.tensor("a")], data=SIXTEEN, alignment=512)
    path.write_bytes(content)
    assert read_header(path).tensors["a"].extent.offset == 512


@pytest.mark.parametrize("limit", ["MAX_HEADER_BYTES", "MAX_ARRAY_ITEMS"])
def test_a_header_larger_than_the_limits_is_refused(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw.header([raw.strings("a", ["x"] * 200)]))
    assert read_header(path).metadata["a"] == ["x"] * 200
    monkeypatch.setattr(gguf_header, limit, 199)
    with pytest.raises(CorruptCheckpoint):
        read_header(path)


def test_a_missing_file_is_told_apart_from_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"nowhere\.gguf"):
        open_checkpoint(tmp_path / "nowhere.gguf")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny.write_gguf(
        tmp_path_factory.mktemp("model") / "tiny.gguf", tiny.Config(layers=1, vocab=288), tensor_type="Q8_0"
    ).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


@given(data=st.data())
def test_a_damaged_file_opens_or_is_refused_and_nothing_else(data: st.DataObject, model: bytes, scratch: Path) -> None:
    damaged = bytearray(model)
    header_bytes = model.index(b"blk.0.ffn_up.weight") + 60
    for _ in range(data.draw(st.integers(0, 4), label="flips")):
        at = data.draw(st.one_of(st.integers(0, header_bytes), st.integers(0, len(model) - 1)), label="at")
        damaged[at] = data.draw(st.integers(0, 255), label="byte")
    end = data.draw(st.one_of(st.just(len(model)), st.integers(0, len(model))), label="end")
    scratch.write_bytes(damaged[:end])
    # Anything but a CheckpointError, a warning included, fails the test.
    with contextlib.suppress(CheckpointError), open_checkpoint(scratch) as checkpoint:
        for name in checkpoint.names():
            checkpoint.tensor(name)
            checkpoint.blocks(name)
        _ = checkpoint.text
