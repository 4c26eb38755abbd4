"""Where the numpy reference reads its numbers: the checkpoint, or the bytes of a finished bundle."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.errors import VerificationFailed
from edgekit.hardware import usable_cores
from export.families.weights import Weights
from export.quantize import codec
from export.quantize.plan import Plan, PlannedMatrix, matrix_parts, parts_apart

Floats = npt.NDArray[np.float32]
Scalar = TypeVar("Scalar", np.float32, np.uint8)
_PRODUCT_VALUES, _TILE_VALUES = 1 << 24, 1 << 19
"""Values of a matrix that are multiplied at a time, and that are read at a time: a tile stays in the processor's cache
while it is unpacked; a product is large enough to keep the cores busy."""


def _by_rows(rows: int, columns: int, piece: Callable[[int, int], Floats], x: Floats, *, threads: int) -> Floats:
    """x times the transpose of a matrix that is only ever seen a block of rows at a time."""
    out = np.empty((len(x), rows), np.float32)
    step, tile = (max(1, values // columns) for values in (_PRODUCT_VALUES, _TILE_VALUES))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            block = np.empty((stop - start, columns), np.float32)

            def fill(at: int, start: int = start, stop: int = stop, block: Floats = block) -> None:
                end = min(at + tile, stop)
                block[at - start : end - start] = piece(at, end)

            for _ in pool.map(fill, range(start, stop, tile)):
                pass
            out[:, start:stop] = x @ block.T
    return out


class CheckpointMatrices:
    """The checkpoint's own float values, fused as the graph fuses them."""

    def __init__(self, arch: ModelArch, weights: Weights) -> None:
        self._parts, self._weights = matrix_parts(arch), weights

    def multiply(self, name: str, x: Floats) -> Floats:
        """As `reference.Matrices`."""
        return np.concatenate([self._part(part, x) for part in self._parts[name]], axis=1)

    def _part(self, part: str, x: Floats) -> Floats:
        rows, columns = self._weights.shape(part)
        out = _by_rows(rows, columns, lambda start, stop: self._weights.rows(part, start, stop), x, threads=1)
        bias = "lm_head.bias" if part == "embed.weight" else part.removesuffix("weight") + "bias"
        return out + self._weights.tensor(bias) if self._weights.has(bias) else out

    def lookup(self, ids: Sequence[int]) -> Floats:
        """As `reference.Matrices`."""
        return np.concatenate([self._weights.rows("embed.weight", token, token + 1) for token in ids])

    def vector(self, name: str) -> Floats:
        """As `reference.Matrices`."""
        return self._weights.tensor(name)

    def has(self, name: str) -> bool:
        """As `reference.Matrices`."""
        return self._weights.has(name)


class BundleMatrices:
    """What a bundle's bytes mean, read back from disk by the operators' own rules."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._plan = plan
        self._data = folder / contract.DATA_FILE
        graph = onnx.load(str(folder / contract.MODEL_FILE), load_external_data=False).graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.external_data}

    def multiply(self, name: str, x: Floats) -> Floats:
        """As `reference.Matrices`."""
        if name not in self._plan:  # stored apart, because its parts have different layouts
            return np.concatenate([self.multiply(part, x) for part in parts_apart(name)], axis=1)
        planned = self._plan[name]
        spec, columns = planned.spec, planned.columns
        if spec.affine:
            means = codec.as_blocks(x, spec.block_size).mean(-1)
            x, columns = np.concatenate([x, means], axis=1), spec.columns_stored(columns)
        out = _by_rows(
            planned.rows, columns, lambda start, stop: self._rows(planned, start, stop), x, threads=usable_cores()
        )
        bias = "lm_head.bias" if name == "embed" else f"{name}.bias"
        return out + self._floats(bias) if bias in self._tensors else out

    def lookup(self, ids: Sequence[int]) -> Floats:
        """As `reference.Matrices`."""
        return np.concatenate([self._rows(self._plan["embed"], token, token + 1) for token in ids])

    def vector(self, name: str) -> Floats:
        """As `reference.Matrices`."""
        return self._floats(name)

    def has(self, name: str) -> bool:
        """As `reference.Matrices`."""
        return name in self._tensors

    def _rows(self, planned: PlannedMatrix, start: int, stop: int) -> Floats:
        name, spec = planned.name, planned.spec
        if spec.bits == 32:
            return self._floats(f"{name}.weight", start, stop)
        codes = self._codes(f"{name}.weight", start, stop)
        matrix = codec.QuantisedMatrix(
            spec,
            planned.columns,
            codes.reshape(stop - start, spec.blocks(planned.columns), -1),  # an embedding is stored flat
            self._floats(f"{name}.scales", start, stop),
            self._codes(f"{name}.zero_points", start, stop) if spec.offsets != "none" else None,
        )
        return codec.stored_values(matrix)

    def _floats(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        return self._read(name, np.dtype(np.float32), start, stop)

    def _codes(self, name: str, start: int, stop: int) -> codec.Packed:
        return self._read(name, np.dtype(np.uint8), start, stop)

    def _read(self, name: str, dtype: np.dtype[Scalar], start: int, stop: int | None) -> npt.NDArray[Scalar]:
        tensor: TensorProto = self._tensors[name]
        if helper.tensor_dtype_to_np_dtype(tensor.data_type) != dtype:
            raise VerificationFailed(f"{name} is not stored as {dtype}")
        place = {entry.key: entry.value for entry in tensor.external_data}
        shape = tuple(tensor.dims)
        stop = shape[0] if stop is None else stop
        row = int(np.prod(shape[1:], dtype=np.int64))
        with self._data.open("rb") as stream:
            stream.seek(int(place["offset"]) + start * row * dtype.itemsize)
            flat = np.fromfile(stream, dtype, (stop - start) * row)
        return flat.reshape(stop - start, *shape[1:])
