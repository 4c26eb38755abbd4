"""A GGUF file, or the first of several parts, as a Checkpoint."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from edgekit.errors import CorruptCheckpoint, MissingTensor, UnsupportedCheckpoint
from export.checkpoints.extents import Extent, require_finite
from export.checkpoints.gguf_blocks import LAYOUTS, to_blocks
from export.checkpoints.gguf_config import config_of, facts_of
from export.checkpoints.gguf_parts import Parts, open_parts
from export.checkpoints.gguf_tokenizer import read_text
from export.checkpoints.gguf_values import READABLE, dtype_name, to_floats
from export.checkpoints.gguf_views import View, views_of
from export.checkpoints.records import Blocks, TensorInfo, TextFiles

_PIECE_BYTES = 16 << 20
"""Stored bytes that are taken apart at a time: bounds the temporaries of a large matrix."""
_MAX_SETTING_ITEMS = 1 << 12
"""Longest tensor that is read as a setting: a table of rotary factors has one per pair of a head's values."""
_FLOATS = ("float32", "float16", "bfloat16")


class GgufCheckpoint:
    """See `Checkpoint`. Made by `open`."""

    kind: Literal["gguf"] = "gguf"

    def __init__(self, file: str, parts: Parts, config: Mapping[str, object], views: Mapping[str, View]) -> None:
        self.file = file
        self.config = config
        self._parts = parts
        self._metadata = parts.header.metadata
        self._views = views
        self._names = {name: TensorInfo(view.shape, _dtype(view)) for name, view in views.items()}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and check the header. Raises as `open_checkpoint` says."""
        parts = open_parts(path)
        try:
            facts = facts_of(parts.header, path.name, lambda name: _vector(parts, name))
            config = config_of(parts.header, facts, path.name)
            views = views_of(parts.header.tensors, facts, path.name)
            for name, view in views.items():
                _check(view, name, path.name)
        except BaseException:
            parts.close()
            raise
        return cls(path.name, parts, config, views)

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
        view = self._find(name)
        if not 0 <= start <= stop <= view.shape[0]:
            raise ValueError(f"rows {start}..{stop} of {name!r} with shape {view.shape}")
        if start == stop:  # the dequantisers take no empty array
            return np.empty((0, *view.shape[1:]), np.float32)
        values = self._values(view, start, stop)
        if view.excess:
            values = values - np.float32(view.excess)
        return require_finite(values, name, self.file)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """All values as float32."""
        return self.rows(name, 0, self._find(name).shape[0])

    def blocks(self, name: str) -> Blocks | None:
        """The stored blocks of a matrix in a type of `LAYOUTS`, in transformers' order of rows."""
        view = self._find(name)
        stored = view.stored
        if stored.type not in LAYOUTS or not view.keeps_blocks:
            return None
        layout, (rows, columns) = LAYOUTS[stored.type], view.shape
        codes = np.empty((rows, columns), np.int8)
        scales = np.empty((rows, columns // layout.block_size), np.float32)
        offsets: NDArray[np.float32] | None = None
        step = max(1, _PIECE_BYTES // stored.row_bytes)
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            raw = self._raw(view, view.first + start, view.first + stop)
            codes[start:stop], scales[start:stop], more = to_blocks(raw, stored.type)
            if more is not None:
                offsets = np.empty_like(scales) if offsets is None else offsets
                offsets[start:stop] = more
        require_finite(scales, name, self.file)
        if offsets is not None:
            require_finite(offsets, name, self.file)
        if view.order is not None:
            order = view.order(np.arange(rows))
            codes, scales, offsets = codes[order], scales[order], None if offsets is None else offsets[order]
        return Blocks(codes, scales, offsets, layout.bits, layout.block_size)

    def close(self) -> None:
        """Close the file."""
        self._parts.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _find(self, name: str) -> View:
        if name not in self._views:
            raise MissingTensor(name)
        return self._views[name]

    def _values(self, view: View, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the first axis, as stored but in transformers' order."""
        if view.transposed:
            return self._columns(view, start, stop)
        if len(view.shape) < len(view.stored.shape):  # one row of a stack
            return self._floats(view, view.first, view.first + 1)[0, start:stop]
        if view.order is None:
            return self._floats(view, view.first + start, view.first + stop)
        order = view.first + view.order(np.arange(start, stop))
        first = int(order.min())
        return self._floats(view, first, int(order.max()) + 1)[order - first]

    def _columns(self, view: View, start: int, stop: int) -> NDArray[np.float32]:
        """Columns of a stored matrix as rows. Reads all of it, a piece at a time."""
        stored = view.stored
        values = np.empty((stop - start, stored.shape[0]), np.float32)
        step = max(1, _PIECE_BYTES // stored.row_bytes)
        for row in range(0, stored.shape[0], step):
            end = min(stored.shape[0], row + step)
            values[:, row:end] = self._floats(view, row, end)[:, start:stop].T
        return values

    def _raw(self, view: View, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes of items `start` to `stop` of the stored tensor's first axis, as uint8 [runs, row_bytes]."""
        stored = view.stored
        item = stored.extent.size // stored.shape[0]
        extent = Extent(stored.extent.offset + start * item, (stop - start) * item)
        raw = self._parts.places[view.source].read(extent)
        return raw.reshape(-1, stored.row_bytes) if len(stored.shape) > 1 else raw.reshape(1, -1)

    def _floats(self, view: View, start: int, stop: int) -> NDArray[np.float32]:
        """Items `start` to `stop` of the stored tensor's first axis."""
        values = to_floats(self._raw(view, start, stop), view.stored.type)
        return values.reshape(stop - start, *view.stored.shape[1:])


def _dtype(view: View) -> str:
    """How it is stored; a matrix in blocks that cannot be handed out as blocks says so."""
    name = dtype_name(view.stored.type)
    return name if view.keeps_blocks or view.stored.type not in LAYOUTS else f"{name} (transposed)"


def _check(view: View, name: str, file: str) -> None:
    """Raise for a tensor whose values nobody could read."""
    kind = view.stored.type
    if kind not in READABLE:
        raise UnsupportedCheckpoint(f"the tensor {name!r} in {file} is stored as {kind.name}, which is not read")
    if len(view.stored.shape) == 1 and GGML_QUANT_SIZES[kind][0] > 1:
        raise CorruptCheckpoint(f"the vector {name!r} is stored in blocks ({kind.name})", file)


def _vector(parts: Parts, name: str) -> tuple[float, ...]:
    """The values of a short float vector that is a setting."""
    stored, file = parts.header.tensors[name], parts.places[name]
    if len(stored.shape) != 1 or stored.shape[0] > _MAX_SETTING_ITEMS or dtype_name(stored.type) not in _FLOATS:
        raise CorruptCheckpoint(f"the tensor {name!r} is no short vector of floats", file.name)
    values = to_floats(file.read(stored.extent).reshape(1, -1), stored.type)[0]
    return tuple(float(str(value)) for value in require_finite(values, name, file.name))
