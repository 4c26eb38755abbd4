"""Reads the header of a GGUF file, versions 2 and 3 (specification: ggml, docs/gguf.md).

    magic "GGUF" | version u32 | tensors u64 | entries u64
    entries x    key, value type u32, value          a string is u64 length + UTF-8
    tensors x    name, dimensions u32, u64 each (fastest first), type u32, offset u64
    padding to `general.alignment`, then the data; offsets count from there

Ours and not the `gguf` package's reader: that one checks no bounds, maps the whole file, and makes a
numpy view of every element of every array, which takes seconds for a vocabulary. Here every count is
held against the bytes that are left before anything is allocated, so a hostile header costs at most
MAX_HEADER_BYTES.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from edgekit.errors import CheckpointError, CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import Extent, overlap

MAX_HEADER_BYTES = 256 << 20
"""A vocabulary of 262,144 tokens with its merges takes about 16 MB."""
MAX_ARRAY_ITEMS = 1 << 22
MAX_ALIGNMENT = 1 << 16
MAX_NAME_BYTES = 64
MAX_DIMENSIONS = 4
_MIN_ENTRY_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8

Array = NDArray[np.generic] | list[str]
Value = bool | int | float | str | Array

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
"""GGUF value types that are numbers, and their layout in numpy's words."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and how; `shape` is row-major, which is the file's order reversed."""

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    extent: Extent

    @property
    def row_bytes(self) -> int:
        """Bytes of one run of the last axis."""
        block, size = GGML_QUANT_SIZES[self.type]
        return self.shape[-1] // block * size


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata and tensors under the file's own names."""

    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]


def read_header(path: Path) -> Header:
    """Read and check everything before the data.

    Raises CorruptCheckpoint for anything that the specification forbids or the file cannot hold, UnsupportedCheckpoint
    for a version, byte order or tensor type that is not read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 20) as stream:
            return _Reader(stream, size, path.name).header()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error


class _Reader:
    """Takes values off the front of the file, and never more than it holds."""

    def __init__(self, stream: BinaryIO, size: int, file: str) -> None:
        self._stream = stream
        self._size = size
        self._file = file
        self._position = 0

    def header(self) -> Header:
        """The whole header."""
        if self._size < 4 or self._take(4) != b"GGUF":
            raise self._corrupt("it does not begin with the letters GGUF")
        version = self._u32()
        if not version & 0xFFFF:  # 3 in the other byte order
            raise UnsupportedCheckpoint(f"{self._file} is a big-endian GGUF; convert it on a little-endian machine")
        if version not in (2, 3):
            raise UnsupportedCheckpoint(f"{self._file} is a GGUF of version {version}; 2 and 3 are read")
        tensors = self._count(_MIN_TENSOR_BYTES, "tensors", self._u64())
        entries = self._count(_MIN_ENTRY_BYTES, "metadata entries", self._u64())
        metadata = self._metadata(entries)
        return Header(metadata, self._tensors(tensors, self._alignment(metadata)))

    def _metadata(self, entries: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text()
            if key in found:
                raise self._corrupt(f"the metadata key {key!r} appears twice")
            found[key] = self._value(self._u32())
        return found

    def _value(self, kind: int) -> Value:
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self._text()
        if kind == _BOOL:
            return bool(self._bools(1)[0])
        number = self._numbers(kind, 1)[0]
        # The shortest decimal of a 32-bit float is what its author wrote (1e-05), its 64-bit value is not (9.99e-06).
        return float(str(number)) if isinstance(number, np.float32) else number.item()

    def _array(self) -> Array:
        kind, count = self._u32(), self._u64()
        if kind == _ARRAY:
            raise UnsupportedCheckpoint(f"{self._file} has arrays within arrays in its metadata")
        if count > MAX_ARRAY_ITEMS:
            raise self._corrupt(f"it claims an array of {count:,} values")
        if kind == _STRING:
            return [self._text() for _ in range(self._count(8, "strings", count))]
        return self._bools(count) if kind == _BOOL else self._numbers(kind, count)

    def _numbers(self, kind: int, count: int) -> NDArray[np.generic]:
        if kind not in _NUMBERS:
            raise self._corrupt(f"its metadata holds a value of the unknown type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self._take(self._count(dtype.itemsize, "values", count) * dtype.itemsize), dtype)

    def _bools(self, count: int) -> NDArray[np.generic]:
        values = np.frombuffer(self._take(count), np.uint8)
        if values.size and values.max() > 1:
            raise self._corrupt("its metadata holds a truth value that is neither 0 nor 1")
        return values.astype(np.bool_)

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._corrupt("its general.alignment is not a power of two")
        return alignment

    def _tensors(self, count: int, alignment: int) -> dict[str, StoredTensor]:
        relative: dict[str, StoredTensor] = {}
        for _ in range(count):
            name = self._text(MAX_NAME_BYTES)
            if name in relative:
                raise self._corrupt(f"the tensor {name!r} appears twice")
            relative[name] = self._tensor(name, alignment)
        start = -(-self._position // alignment) * alignment
        found = {
            name: StoredTensor(tensor.shape, tensor.type, Extent(start + tensor.extent.offset, tensor.extent.size))
            for name, tensor in relative.items()
        }
        for name, tensor in found.items():
            if tensor.extent.end > self._size:
                raise self._corrupt(
                    f"the tensor {name!r} ends at byte {tensor.extent.end}, but the file has {self._size} bytes"
                )
        if clash := overlap({name: tensor.extent for name, tensor in found.items()}):
            raise self._corrupt(f"the tensors {clash[0]!r} and {clash[1]!r} overlap")
        return found

    def _tensor(self, name: str, alignment: int) -> StoredTensor:
        """A tensor whose offset still counts from the start of the data."""
        dimensions = self._u32()
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._corrupt(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(reversed([self._u64() for _ in range(dimensions)]))
        kind, offset = self._u32(), self._u64()
        try:
            stored = GGMLQuantizationType(kind)
        except ValueError:
            raise UnsupportedCheckpoint(f"the tensor {name!r} in {self._file} has the unknown type {kind}") from None
        block, size = GGML_QUANT_SIZES[stored]
        items = math.prod(shape)
        if not 0 < items <= self._size * block or shape[-1] % block:
            raise self._corrupt(f"the tensor {name!r} cannot have the shape {list(shape)} in {stored.name}")
        if offset % alignment or offset > self._size:
            raise self._corrupt(f"the tensor {name!r} cannot begin at {offset}")
        return StoredTensor(shape, stored, Extent(offset, items // block * size))

    def _count(self, least_bytes: int, what: str, count: int) -> int:
        """`count`, if that many items of at least `least_bytes` fit into the rest."""
        if count * least_bytes > self._left():
            raise self._corrupt(f"it claims {count:,} {what}, more than fit into it")
        return count

    def _left(self) -> int:
        return min(self._size, MAX_HEADER_BYTES) - self._position

    def _take(self, count: int) -> bytes:
        if count > self._left():
            raise self._corrupt(f"its header needs {count:,} bytes at byte {self._position}, but it ends before")
        data = self._stream.read(count)
        if len(data) != count:
            raise self._corrupt("it became shorter while it was read")
        self._position += count
        return data

    def _u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack(self._take(8))[0])

    def _text(self, limit_bytes: int = MAX_HEADER_BYTES) -> str:
        length = self._u64()
        if length > limit_bytes:
            raise self._corrupt(f"it claims a text of {length:,} bytes")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self._corrupt(f"the text at byte {self._position} is not UTF-8") from None

    def _corrupt(self, problem: str) -> CorruptCheckpoint:
        return CorruptCheckpoint(problem, self._file)
