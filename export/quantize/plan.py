"""Which matrix is stored how, and why.

A plan is data: one PlannedMatrix per matrix of the graph. The rules here:

- matrices that read the same input are fused (Q|K|V, gate|up): one operator instead of three;
- a checkpoint that is quantised already keeps its blocks if an operator has their layout, because
  rounding them again would only add error;
- the rest is rounded to the precision that was asked for, in blocks of 32;
- the embedding and the LM head are INT8 in every quantised plan: errors there reach every token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.arch import ModelArch
from edgekit.quant import FLOAT, Precision, QuantSpec
from export.families import Weights
from export.quantize import codec, rtn

Method = Literal["float", "round", "keep"]

KEPT: Mapping[str, QuantSpec] = {
    "Q4_0": QuantSpec(4, 32),
    "Q4_1": QuantSpec(4, 32, affine=True),
    "Q8_0": QuantSpec(8, 32),
}
"""GGUF block types that an operator's layout can hold exactly (or, for Q4_1, to within 1/30 of a step)."""

_BITS: Mapping[Precision, int] = {"int4": 4, "int8": 8, "fp32": 32}
_BLOCK = 32
_EMBEDDING_BLOCKS = (64, 32, 16)
_CHUNK_VALUES = 1 << 23
"""Rows are quantised in pieces of this many values, so that a large vocabulary never stands in memory as floats."""


@dataclass(frozen=True)
class PlannedMatrix:
    """A matrix of the graph: `parts` are stacked along its rows, `method` says where its codes come from."""

    name: str
    parts: tuple[str, ...]
    rows: int
    columns: int
    spec: QuantSpec
    method: Method

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return self.spec.bytes_for(self.rows, self.columns)


Plan = Mapping[str, PlannedMatrix]


def plan(arch: ModelArch, precision: Precision, weights: Weights) -> Plan:
    """The plan for one model. Fails with ShapeMismatch or MissingTensor through `weights`."""
    matrices: dict[str, PlannedMatrix] = {}
    for name, parts in matrix_parts(arch).items():
        shapes = [weights.shape(part) for part in parts]
        rows, columns = sum(shape[0] for shape in shapes), shapes[0][1]
        wanted = _wanted(name, columns, precision)
        spec, method = wanted, _method(wanted)
        kept = {KEPT.get(weights.dtype(part)) for part in parts}
        if len(kept) == 1 and (same := kept.pop()) is not None and same.bits == wanted.bits:
            spec, method = same, "keep"
        matrices[name] = PlannedMatrix(name, parts, rows, columns, spec, method)
    return matrices


def matrix_parts(arch: ModelArch) -> dict[str, tuple[str, ...]]:
    """The matrices of the graph in the order they are written, and the checkpoint's matrices they are made of."""
    parts: dict[str, tuple[str, ...]] = {"embed": ("embed.weight",)}
    for i in range(arch.layers):
        at = f"layers.{i}"
        parts[f"{at}.qkv"] = (f"{at}.q.weight", f"{at}.k.weight", f"{at}.v.weight")
        parts[f"{at}.o"] = (f"{at}.o.weight",)
        parts[f"{at}.gate_up"] = (f"{at}.gate.weight", f"{at}.up.weight")
        parts[f"{at}.down"] = (f"{at}.down.weight",)
    if not arch.tied:
        parts["lm_head"] = ("lm_head.weight",)
    return parts


def _wanted(name: str, columns: int, precision: Precision) -> QuantSpec:
    if precision == "fp32":
        return FLOAT
    if name in ("embed", "lm_head"):
        # GatherBlockQuantized wants whole blocks; where none divides the width, the embedding stays float.
        return next((QuantSpec(8, size) for size in _EMBEDDING_BLOCKS if columns % size == 0), FLOAT)
    return QuantSpec(_BITS[precision], _BLOCK)


def _method(spec: QuantSpec) -> Method:
    return "float" if spec.bits == 32 else "round"


def quantise(matrix: PlannedMatrix, weights: Weights) -> codec.QuantisedMatrix:
    """Read, round (or keep) and pack one planned matrix; floats of at most a few rows are in memory at a time."""
    make: Callable[[str], list[codec.QuantisedMatrix]] = {
        "keep": lambda part: [_keep(part, matrix.spec, weights)],
        "round": lambda part: _round(part, matrix.spec, weights),
    }[matrix.method]
    pieces = [piece for part in matrix.parts for piece in make(part)]
    zero_points = [piece.zero_points for piece in pieces if piece.zero_points is not None]
    return codec.QuantisedMatrix(
        matrix.spec,
        matrix.columns,
        np.concatenate([piece.packed for piece in pieces]),
        np.concatenate([piece.scales for piece in pieces]),
        np.concatenate(zero_points) if zero_points else None,
    )


def _keep(part: str, spec: QuantSpec, weights: Weights) -> codec.QuantisedMatrix:
    blocks = weights.blocks(part)
    if blocks.offsets is None:
        return codec.store_symmetric(blocks.codes, blocks.scales, spec)
    return codec.store_affine(blocks.codes, blocks.scales, blocks.offsets, spec)


def _round(part: str, spec: QuantSpec, weights: Weights) -> list[codec.QuantisedMatrix]:
    rows, columns = weights.shape(part)
    step = max(1, _CHUNK_VALUES // columns)
    pieces = []
    for start in range(0, rows, step):
        values = weights.rows(part, start, min(start + step, rows))
        pieces.append(codec.store_symmetric(*rtn.quantise(values, spec.bits, spec.block_size), spec))
    return pieces
