"""Values of tensors in safetensors files: rows of floats, columns of packed words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CorruptCheckpoint, UnsupportedCheckpoint
from export.checkpoints.extents import Extent, ExtentFile, require_finite
from export.checkpoints.safetensors_header import ITEM_BYTES, StoredTensor

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Stored types whose values are read, and their names in numpy's and torch's words."""

_PIECE_BYTES = 8 << 20
"""Stored bytes that are read at a time where only some columns are wanted."""


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor and the file that it is in."""

    file: ExtentFile
    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Row-major."""
        return self.stored.shape


def read_rows(tensor: Located, name: str, start: int, stop: int) -> NDArray[np.float32]:
    """Items `start` to `stop` of the first axis, exact.

    Raises ValueError (no such items), CorruptCheckpoint (no dimensions, NaN or infinite) or UnsupportedCheckpoint.
    """
    file, stored = tensor.file, tensor.stored
    if not stored.shape:
        raise CorruptCheckpoint(f"the tensor {name!r} has no dimensions", file.name)
    if not 0 <= start <= stop <= stored.shape[0]:
        raise ValueError(f"rows {start}..{stop} of {name!r} with shape {stored.shape}")
    item = stored.extent.size // stored.shape[0] if stored.shape[0] else 0
    raw = file.read(Extent(stored.extent.offset + start * item, (stop - start) * item))
    values = _floats(raw, stored.dtype, name).reshape(stop - start, *stored.shape[1:])
    return require_finite(values, name, file.name)


def read_tensor(tensor: Located, name: str) -> NDArray[np.float32]:
    """All values. Raises as `read_rows` does."""
    return read_rows(tensor, name, 0, tensor.shape[0] if tensor.shape else 0)


def read_columns(tensor: Located, name: str, start: int, stop: int) -> NDArray[np.float32]:
    """Columns `start` to `stop` of a matrix of floats: [rows, stop - start]. Raises as `read_rows` does."""
    rows = tensor.shape[0]
    values = _floats(_columns(tensor, start, stop).reshape(-1), tensor.stored.dtype, name)
    return require_finite(values.reshape(rows, stop - start), name, tensor.file.name)


def read_words(tensor: Located, start: int, stop: int) -> NDArray[np.uint32]:
    """Columns `start` to `stop` of an int32 matrix, as the 32 bits that they are: [rows, stop - start]."""
    return _columns(tensor, start, stop).view("<u4").astype(np.uint32, copy=False)


def read_integers(tensor: Located) -> NDArray[np.int32]:
    """All values of an int32 tensor."""
    return tensor.file.read(tensor.stored.extent).view("<i4").astype(np.int32, copy=False).reshape(tensor.shape)


def _columns(tensor: Located, start: int, stop: int) -> NDArray[np.uint8]:
    """Bytes of some columns, [rows, (stop - start) * item bytes]; the matrix is read once, in bounded pieces."""
    rows, columns = tensor.shape
    size = ITEM_BYTES[tensor.stored.dtype]
    found = np.empty((rows, (stop - start) * size), np.uint8)
    step = max(1, _PIECE_BYTES // max(1, columns * size))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        place = Extent(tensor.stored.extent.offset + first * columns * size, (last - first) * columns * size)
        piece = tensor.file.read(place).reshape(last - first, columns * size)
        found[first:last] = piece[:, start * size : stop * size]
    return found


def _floats(raw: NDArray[np.uint8], dtype: str, name: str) -> NDArray[np.float32]:
    """Little-endian stored values -> float32, exact."""
    if dtype == "F32":
        return raw.view("<f4").astype(np.float32, copy=False)
    if dtype == "F16":
        return raw.view("<f2").astype(np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    raise UnsupportedCheckpoint(f"the tensor {name!r} has the dtype {dtype}; F32, F16 and BF16 are read")
