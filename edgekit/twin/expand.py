"""Writing `prefill.onnx.data`: reads a bundle's data file a few rows at a time, writes the twin's from front to back.

Memory stays below 64 MiB whatever the model's size: a tile of rows is unpacked, rounded and turned over into a strip
of columns, and the strip is written.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.onnxfile import MAX_GRAPH_BYTES, ExternalTensor, external_tensors
from edgekit.twin.codes import Reach, StoredRows, int8_rows
from edgekit.twin.layout import Copied, Expanded, Layout, layout_of

Step = Callable[[], None]
"""Called between pieces of work of a few milliseconds; an exception that it raises ends the work."""

Scalar = TypeVar("Scalar", np.float32, np.uint8)
_STRIP_BYTES = 32 << 20
_TILE_VALUES = 1 << 18
_COPY_BYTES = 4 << 20


def read_layout(bundle: Path, specs: Mapping[str, str], prompt: Path | None = None) -> Layout:
    """The layout that a bundle's two graphs describe; `specs` is `quant.weights` of its manifest.

    `prompt` is another graph for reading prompts than the bundle's. Raises ValueError if they do not belong together,
    and OSError.
    """
    data_bytes = (bundle / contract.DATA_FILE).stat().st_size
    decoder = _tensors(bundle / contract.MODEL_FILE)
    return layout_of(decoder, _tensors(prompt or bundle / contract.PREFILL_FILE), specs, data_bytes=data_bytes)


def _tensors(graph: Path) -> list[ExternalTensor]:
    if graph.stat().st_size > MAX_GRAPH_BYTES:
        raise ValueError(f"{graph.name} is larger than {MAX_GRAPH_BYTES:,} bytes")
    return external_tensors(graph.read_bytes())


def expand(data: Path, target: Path, layout: Layout, *, reach: Reach, step: Step) -> str:
    """Write `target` from the decoder's data file `data`; its SHA-256 in hexadecimal digits.

    Raises OSError, ValueError if `data` is too short, and what `step` raises.
    """
    with data.open("rb") as source, target.open("wb") as stream:
        written = _Target(stream)
        for part in layout.parts:
            if isinstance(part, Copied):
                _copy(source, part, written, step)
            else:
                _expand(source, part, written, reach, step)
        return written.digest.hexdigest()


class _Target:
    """The file being written, from front to back, and its SHA-256."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._at = stream, 0
        self.digest = hashlib.sha256()

    def write(self, offset: int, values: npt.NDArray[np.generic]) -> None:
        """The bytes of a contiguous array at `offset`, which is at most an alignment behind the last byte."""
        for piece in (bytes(offset - self._at), values.reshape(-1).view(np.uint8).data):
            self._stream.write(piece)
            self.digest.update(piece)
        self._at = offset + values.nbytes


def _copy(source: BinaryIO, part: Copied, target: _Target, step: Step) -> None:
    for start in range(0, part.length, _COPY_BYTES):
        step()
        count = min(_COPY_BYTES, part.length - start)
        target.write(part.offset + start, _read(source, np.dtype(np.uint8), part.source + start, (count,)))


def _expand(source: BinaryIO, part: Expanded, target: _Target, reach: Reach, step: Step) -> None:
    """Strips of columns, each [columns, rows]; a matrix of up to 32 MiB is one, larger ones are read for each."""
    width = max(1, min(part.columns, _STRIP_BYTES // part.rows))
    height = max(1, _TILE_VALUES // part.spec.columns_stored(part.columns))
    row_scales = np.empty(part.rows, np.float32)
    for left in range(0, part.columns, width):
        right = min(left + width, part.columns)
        strip = np.empty((right - left, part.rows), np.int8)
        for top in range(0, part.rows, height):
            step()
            stop = min(top + height, part.rows)
            codes, row_scales[top:stop] = int8_rows(_rows(source, part, top, stop), reach)
            strip[:, top:stop] = codes[:, left:right].T
        target.write(part.codes_offset + left * part.rows, strip)
    target.write(part.scales_offset, row_scales)


def _rows(source: BinaryIO, part: Expanded, start: int, stop: int) -> StoredRows:
    spec, blocks = part.spec, part.spec.blocks(part.columns)
    bytes_, floats = np.dtype(np.uint8), np.dtype(np.float32)

    def read(dtype: np.dtype[Scalar], at: int, *shape: int) -> npt.NDArray[Scalar]:
        row_bytes = math.prod(shape) * dtype.itemsize
        return _read(source, dtype, at + start * row_bytes, (stop - start, *shape))

    zeros = part.stored_zero_points
    return StoredRows(
        spec,
        part.columns,
        read(bytes_, part.stored, blocks, spec.block_size * spec.bits // 8),
        read(floats, part.stored_scales, blocks),
        None if zeros is None else read(bytes_, zeros, -(-blocks * spec.bits // 8)),
    )


def _read(source: BinaryIO, dtype: np.dtype[Scalar], at: int, shape: tuple[int, ...]) -> npt.NDArray[Scalar]:
    source.seek(at)
    raw = source.read(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)  # ValueError for a file that ends here
