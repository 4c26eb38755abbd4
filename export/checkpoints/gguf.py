"""A GGUF file as a Checkpoint."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import CorruptCheckpoint, MissingTensor
from export.checkpoints.extents import Extent, ExtentFile, require_finite
from export.checkpoints.gguf_config import NamedTensor, architecture_of, config_of, tensors_of
from export.checkpoints.gguf_header import Header, StoredTensor, read_header
from export.checkpoints.gguf_tokenizer import read_text
from export.checkpoints.gguf_values import BLOCK, BLOCK_BITS, dtype_name, to_blocks, to_floats
from export.checkpoints.records import Blocks, TensorInfo, TextFiles

_PIECE_BYTES = 16 << 20
"""Stored bytes that are taken apart at a time: bounds the temporaries of a large matrix."""


class GgufCheckpoint:
    """See `Checkpoint`. Made by `open`."""

    kind: Literal["gguf"] = "gguf"

    def __init__(
        self, file: ExtentFile, header: Header, config: Mapping[str, object], tensors: Mapping[str, NamedTensor]
    ) -> None:
        self.file = file.name
        self.config = config
        self._source = file
        self._metadata = header.metadata
        self._tensors = tensors
        self._names = {
            name: TensorInfo(tensor.stored.shape, dtype_name(tensor.stored.type)) for name, tensor in tensors.items()
        }

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the header. Raises as `open_checkpoint` says."""
        header = read_header(path)
        name, row = architecture_of(header, path.name)
        config = config_of(header, name, row, path.name)
        tensors = tensors_of(header, row, config, path.name)
        return cls(ExtentFile(path), header, config, tensors)

    @property
    def licence(self) -> str | None:
        """`general.license`."""
        found = self._metadata.get("general.license")
        return found if isinstance(found, str) and found else None

    @cached_property
    def text(self) -> TextFiles:
        """Tokenizer and chat template, built from `tokenizer.*`."""
        return read_text(self._metadata, self.file)

    def names(self) -> Mapping[str, TensorInfo]:
        """Every tensor under transformers' name."""
        return self._names

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the first axis as float32, in transformers' order."""
        tensor = self._find(name)
        if not 0 <= start <= stop <= tensor.stored.shape[0]:
            raise ValueError(f"rows {start}..{stop} of {name!r} with shape {tensor.stored.shape}")
        order = _stored_rows(tensor, start, stop)
        if order is None:
            values = self._floats(tensor.stored, start, stop)
        else:
            first, end = int(order.min(initial=start)), int(order.max(initial=start - 1)) + 1
            values = self._floats(tensor.stored, first, end)[order - first]
        return require_finite(values, name, self.file)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values as float32."""
        return self.rows(name, 0, self._find(name).stored.shape[0])

    def blocks(self, name: str) -> Blocks | None:
        """The stored blocks of a Q4_0, Q4_1 or Q8_0 matrix, in transformers' order of rows."""
        tensor = self._find(name)
        stored = tensor.stored
        if stored.type not in BLOCK_BITS or len(stored.shape) != 2:
            return None
        rows, columns = stored.shape
        codes = np.empty((rows, columns), np.int8)
        scales = np.empty((rows, columns // BLOCK), np.float32)
        offsets = np.zeros_like(scales)
        step, symmetric = max(1, _PIECE_BYTES // stored.row_bytes), True
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            codes[start:stop], scales[start:stop], more = to_blocks(self._raw(stored, start, stop), stored.type)
            if more is not None:
                offsets[start:stop], symmetric = more, False
        require_finite(scales, name, self.file)
        require_finite(offsets, name, self.file)
        order = _stored_rows(tensor, 0, rows)
        if order is not None:
            codes, scales, offsets = codes[order], scales[order], offsets[order]
        return Blocks(codes, scales, None if symmetric else offsets, BLOCK_BITS[stored.type], BLOCK)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _find(self, name: str) -> NamedTensor:
        if name not in self._tensors:
            raise MissingTensor(name)
        return self._tensors[name]

    def _raw(self, stored: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
        """Stored bytes of items `start` to `stop` of the first axis, as uint8 [runs, row_bytes]."""
        item = stored.extent.size // stored.shape[0]
        raw = self._source.read(Extent(stored.extent.offset + start * item, (stop - start) * item))
        return raw.reshape(-1, stored.row_bytes) if len(stored.shape) > 1 else raw.reshape(1, -1)

    def _floats(self, stored: StoredTensor, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the first axis in stored order."""
        if start == stop:  # the dequantisers take no empty array
            return np.empty((0, *stored.shape[1:]), np.float32)
        if len(stored.shape) == 1 and stored.type in BLOCK_BITS:
            raise CorruptCheckpoint(f"a vector is stored in blocks ({stored.type.name})", self.file)
        values = to_floats(self._raw(stored, start, stop), stored.type)
        return values.reshape(stop - start, *stored.shape[1:])


def _stored_rows(tensor: NamedTensor, start: int, stop: int) -> NDArray[np.int64] | None:
    """Where rows `start` to `stop` lie in the file; None if they lie there in that order.

    For rotary embedding transformers pairs value j of a head with value j + size / 2, GGML with its neighbour. The
    converter therefore moves row (half p, j) of each head to 2 j + p.
    """
    if tensor.heads is None:
        return None
    size = tensor.stored.shape[0] // tensor.heads
    row = np.arange(start, stop)
    within = row % size
    return row - within + 2 * (within % (size // 2)) + within // (size // 2)
