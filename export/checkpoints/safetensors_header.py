"""Reads the header of a safetensors file.

Format (huggingface/safetensors README): 8 bytes little-endian header length N, N bytes of JSON that
begin with `{`, then the data. Each JSON entry gives dtype, shape and the two offsets of its bytes,
counted from the end of the header; together the tensors cover all data, without overlap or hole.

Ours and not the package's reader, which maps the whole file and keeps the map while it is open.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import Extent, ExtentFile

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's reference implementation."""
MAX_DIMENSIONS = 8

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Dtypes of whole bytes. Weights are read from F32, F16 and BF16; others may be buffers that nobody asks for."""

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[_Count, _Count]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and how: a dtype of ITEM_BYTES and a row-major shape."""

    dtype: str
    shape: tuple[int, ...]
    extent: Extent


def read_header(file: ExtentFile) -> Mapping[str, StoredTensor]:
    """All tensors of a safetensors file.

    Raises CorruptCheckpoint for anything that the format forbids and UnsupportedCheckpoint for a dtype of unknown size.
    """
    if file.size < 8:
        raise CorruptCheckpoint("it is too short for a safetensors file", file.name)
    length = int.from_bytes(file.read(Extent(0, 8)).tobytes(), "little")
    if length > min(MAX_HEADER_BYTES, file.size - 8):
        raise CorruptCheckpoint(f"it claims a header of {length:,} bytes", file.name)
    entries = _entries(file.read(Extent(8, length)).tobytes(), file.name)
    start = 8 + length
    tensors = {name: _stored(name, entry, start, file.name) for name, entry in entries.items()}
    _check_cover(tensors, start, file)
    return tensors


def _entries(raw: bytes, file: str) -> dict[str, _Entry]:
    """The JSON object, typed; `__metadata__` is checked and dropped."""
    if not raw.startswith(b"{"):
        raise CorruptCheckpoint("its header is not a JSON object", file)
    try:
        decoded = json.loads(raw, object_pairs_hook=_no_duplicates)
        msgspec.convert(decoded.pop("__metadata__", {}), dict[str, str])
        return msgspec.convert(decoded, dict[str, _Entry])
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise CorruptCheckpoint(f"its header is not valid: {error}"[:500], file) from error


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two entries of one name would mean different models to different readers."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _stored(name: str, entry: _Entry, start: int, file: str) -> StoredTensor:
    if entry.dtype not in ITEM_BYTES:
        raise UnsupportedCheckpoint(f"the tensor {name!r} in {file} has the dtype {entry.dtype!r}")
    begin, end = entry.data_offsets
    size = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
    if end - begin != size:
        raise CorruptCheckpoint(
            f"the tensor {name!r} of shape {list(entry.shape)} takes {size} bytes, but {end - begin} are given", file
        )
    return StoredTensor(entry.dtype, entry.shape, Extent(start + begin, size))


def _check_cover(tensors: Mapping[str, StoredTensor], start: int, file: ExtentFile) -> None:
    """Raise CorruptCheckpoint unless the tensors lie end to end from `start` to the file's end."""
    position = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].extent.offset, item[1].extent.size)):
        if tensor.extent.offset != position:
            what = "overlaps the one before it" if tensor.extent.offset < position else "leaves a hole before it"
            raise CorruptCheckpoint(f"the tensor {name!r} {what}", file.name)
        position = tensor.extent.end
    if position != file.size:
        raise CorruptCheckpoint(f"its tensors end at byte {position}, but it has {file.size} bytes", file.name)
