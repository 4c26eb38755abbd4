"""Rounding with the block scales of a bundle that devices have already, so that an update to it is small.

A fine-tune moves every weight a little, and with the largest weight of a row its scales: new scales are float32 with
other last digits, a fifth of an INT4 matrix that no difference can shorten, and codes flip wherever a scale moved over
them. With the scales (and zero points, and constants) of the base only codes change, and only where the weight itself
crossed the middle between two.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgekit import contract
from edgekit.arch import ModelArch
from edgekit.bundle import open_bundle
from edgekit.errors import CorruptBundle, UsageError
from edgekit.onnxfile import MAX_GRAPH_BYTES, external_tensors
from edgekit.quant import QuantSpec
from export.families.weights import Weights
from export.quantize import plan as planning
from export.quantize.codec import QuantisedMatrix
from export.quantize.plan import Choice, Choices, PlannedMatrix, matrix_parts
from export.quantize.refit import refitted

_PIECE_VALUES = 1 << 21
_ENDS = ("embed", "lm_head")
"""Matrices that get further rows when the vocabulary grows."""


Scalar = TypeVar("Scalar", np.uint8, np.float32)


@dataclass(frozen=True)
class _Place:
    """Where a matrix of the checkpoint is in the base: `rows` rows from `first` of `matrix`."""

    matrix: str
    first: int
    rows: int


class _Base:
    """The stored matrices of a finished bundle."""

    def __init__(self, folder: Path) -> None:
        bundle = open_bundle(folder)
        graph = bundle.read(contract.MODEL_FILE, limit_bytes=MAX_GRAPH_BYTES)
        self.name, self.arch = str(folder), bundle.manifest.arch
        self._data = bundle.path(contract.DATA_FILE)
        self._tensors = {tensor.name: tensor for tensor in external_tensors(graph)}
        self.specs = {name: QuantSpec.parse(spec) for name, spec in bundle.manifest.quant.weights.items()}

    def rows(self, matrix: str, columns: int) -> int:
        """Rows of a matrix with so many columns that is stored in blocks; 0 if there is none such."""
        spec, scales = self.specs.get(matrix), self._tensors.get(f"{matrix}.scales")
        if spec is None or spec.bits == 32 or scales is None or len(scales.shape) != 2:
            return 0
        return scales.shape[0] if scales.shape[1] == spec.blocks(columns) else 0

    def stored(self, matrix: str, columns: int, start: int, stop: int) -> QuantisedMatrix:
        """Some of its rows. Raises CorruptBundle."""
        spec = self.specs[matrix]
        blocks, rows = spec.blocks(columns), stop - start
        codes = (blocks, spec.block_size * spec.bits // 8)
        packed = self._read(f"{matrix}.weight", np.uint8, (rows, *codes), start)
        scales = self._read(f"{matrix}.scales", np.float32, (rows, blocks), start)
        if spec.offsets == "none":
            return QuantisedMatrix(spec, columns, packed, scales)
        zeros = self._read(f"{matrix}.zero_points", np.uint8, (rows, -(-blocks * spec.bits // 8)), start)
        return QuantisedMatrix(spec, columns, packed, scales, zeros)

    def _read(self, name: str, kind: type[Scalar], shape: tuple[int, ...], first: int) -> npt.NDArray[Scalar]:
        """Rows from `first` of a tensor, as many as `shape` says. Raises CorruptBundle."""
        tensor = self._tensors.get(name)
        row_bytes = math.prod(shape[1:]) * np.dtype(kind).itemsize
        if tensor is None or tensor.length != self._rows_of(name) * row_bytes:
            raise CorruptBundle(self.name, f"{name} is not the matrix that its manifest says")
        values = np.fromfile(self._data, kind, math.prod(shape), offset=tensor.offset + first * row_bytes)
        return values.reshape(shape)

    def _rows_of(self, name: str) -> int:
        """What the matrix's scales say, whichever of its tensors is named."""
        return self._tensors[f"{name.rpartition('.')[0]}.scales"].shape[0]


class FrozenScales:
    """The stored matrices of a finished bundle, under the names of the checkpoint's matrices."""

    def __init__(self, folder: Path, arch: ModelArch, weights: Weights) -> None:
        """The base of a model with this architecture. Raises BundleError subclasses."""
        self._base = _Base(folder)
        same_basis = self._base.arch.rotated == arch.rotated
        self._places = dict(self._found(arch, weights)) if same_basis else {}

    def applied(self, chosen: Choices) -> Choices:
        """The choices, with the base's layout wherever it has the matrix in as many bits and as large blocks.

        Raises UsageError if it has none so.
        """
        specs = {unit: self._base.specs[place.matrix] for unit, place in self._places.items()}
        frozen = {
            unit: Choice(specs[unit], "frozen")
            for unit, choice in chosen.items()
            if choice.method == "round" and unit in specs and _alike(specs[unit], choice.spec)
        }
        if not frozen:
            raise UsageError(
                f"--freeze-scales-from: {self._base.name} has no matrix of this model's sizes in the layout asked for"
            )
        return {**chosen, **frozen}

    def quantise(self, matrix: PlannedMatrix, weights: Weights) -> QuantisedMatrix:
        """As `plan.quantise`, of a matrix whose method is "frozen". Raises CorruptBundle."""
        return planning.stacked([piece for part in matrix.parts for piece in self._pieces(part, weights)])

    def _found(self, arch: ModelArch, weights: Weights) -> Iterator[tuple[str, _Place]]:
        """By our names of the checkpoint's matrices, fused or apart as the base has them."""
        for name, parts in matrix_parts(arch).items():
            fused = name in self._base.specs
            first = 0
            total = sum(weights.shape(part)[0] for part in parts)
            for part in parts:
                unit, (rows, columns) = part.removesuffix(".weight"), weights.shape(part)
                held = self._base.rows(name if fused else unit, columns)
                if held == (total if fused else rows) or (held and unit in _ENDS):
                    start = first if fused else 0
                    yield unit, _Place(name if fused else unit, start, min(held, start + rows) - start)
                first += rows

    def _pieces(self, part: str, weights: Weights) -> Iterator[QuantisedMatrix]:
        rows, columns = weights.shape(part)
        place = self._places[part.removesuffix(".weight")]
        step = max(1, _PIECE_VALUES // columns)
        for start in range(0, place.rows, step):
            stop = min(start + step, place.rows)
            base = self._base.stored(place.matrix, columns, place.first + start, place.first + stop)
            yield refitted(weights.rows(part, start, stop), base)
        if rows > place.rows:  # tokens that the base does not know
            yield planning.rounded_rows(part, self._base.specs[place.matrix], weights, place.rows, rows)


def _alike(base: QuantSpec, asked: QuantSpec) -> bool:
    """A base that adds constants, as kept GGUF blocks do, keeps them: its layout is no coarser than what was asked."""
    return (base.bits, base.block_size) == (asked.bits, asked.block_size)
