"""Which matrix is stored how, and why.

A plan is data: one PlannedMatrix per matrix of the graph. The rules here:

- a checkpoint that is quantised already keeps its blocks if an operator has their layout, because
  rounding them again would only add error;
- the rest is rounded to the precision that was asked for, by the method that was asked for;
- in a file that is quantised to 4 bits, matrices that its maker stored finer stay finer: INT8;
- the embedding and the LM head are INT8 in every quantised plan: errors there reach every token;
- matrices that read the same input are fused (Q|K|V, gate|up) if their layouts agree: one operator instead of three.

Under a byte budget, `sensitivity` and `budget` choose among the same layouts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgekit.arch import ModelArch
from edgekit.contract import CacheType
from edgekit.errors import UnsupportedCheckpoint
from edgekit.quant import FLOAT, Precision, QuantSpec
from export.families.weights import Weights
from export.quantize import codec, rtn

Method = Literal["float", "round", "gptq", "keep", "frozen"]
"""Where codes come from: "frozen" rounds with another bundle's scales (export.quantize.freeze)."""
Rounding = Literal["rtn", "gptq"]
ROUNDINGS: tuple[Rounding, ...] = ("rtn", "gptq")

KEPT: Mapping[str, QuantSpec] = {
    "Q4_0": QuantSpec(4, 32),
    "Q4_1": QuantSpec(4, 32, "affine"),
    "Q4_K": QuantSpec(4, 32, "affine"),
    "Q3_K": QuantSpec(4, 16),
    "Q2_K": QuantSpec(4, 16, "affine"),
    "Q8_0": QuantSpec(8, 32),
    "Q5_0": QuantSpec(8, 32),
    "Q5_1": QuantSpec(8, 32, "affine"),
    "Q5_K": QuantSpec(8, 32, "affine"),
    "IQ4_NL": QuantSpec(8, 32),
}
"""GGUF block types that an operator's layout can hold exactly (or, with affine constants, to 1/30 of a step)."""

PACKED: Mapping[str, int] = {"GPTQ4": 4, "AWQ4": 4, "GPTQ8": 8}
"""Formats of Hugging Face folders whose blocks are kept with zero points, and their bits."""

_FINER = frozenset({"Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS"})
"""What a maker of a 4-bit file chooses for the matrices that matter most."""

_BITS: Mapping[Precision, int] = {"int4": 4, "int8": 8, "fp32": 32}
EMBEDDING_BLOCKS = (64, 32, 16)

ROTATE_IN, ROTATE_OUT = "rotate_in", "rotate_out"
ROTATIONS = (ROTATE_IN, ROTATE_OUT)
"""Matrices [hidden, hidden] of a rotated model: of the embedded tokens, and back before the last norm."""

_CHUNK_VALUES = 1 << 23
"""Rows are quantised in pieces of this many values, so that a large vocabulary never stands in memory as floats."""

FUSED: Mapping[str, tuple[str, ...]] = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
"""Matrices that read the same input, and what they are together."""


@dataclass(frozen=True)
class Recipe:
    """What was asked for.

    `block_size` is that of layers' matrices, `method` how they are rounded; with a `size_budget` (bytes of
    model.onnx and its data) layouts are chosen by measurement; `calibration` is a text file, None the model's own text;
    `rotate` asks for a residual rotation (export.quantize.rotate); `kv` is the type of cached keys and values;
    `frozen` is a bundle whose block scales are to be used again.
    """

    precision: Precision
    block_size: int = 32
    method: Rounding = "rtn"
    size_budget: int | None = None
    calibration: Path | None = None
    rotate: bool = False
    kv: CacheType = "float32"
    frozen: Path | None = None


@dataclass(frozen=True)
class Choice:
    """How one matrix of the checkpoint is stored."""

    spec: QuantSpec
    method: Method


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
Choices = Mapping[str, Choice]
"""By our name of the checkpoint's matrix, without ".weight"."""


def plan(arch: ModelArch, recipe: Recipe, weights: Weights) -> Plan:
    """The plan for one model. Fails with ShapeMismatch or MissingTensor through `weights`."""
    return fused(arch, choices(arch, recipe, weights), weights)


def choices(arch: ModelArch, recipe: Recipe, weights: Weights) -> Choices:
    """What the rules say of each matrix by itself."""
    units = list(matrices(arch))
    layered = [unit for unit in units if unit.startswith("layers.")]
    four_bit = sum(kept_as(unit, weights, 4) is not None for unit in layered) * 2 > len(layered)
    return {unit: _choice(unit, recipe, weights, four_bit_file=four_bit) for unit in units}


def fused(arch: ModelArch, chosen: Choices, weights: Weights) -> Plan:
    """The matrices of the graph in the order they are written: what reads the same input is one, if stored alike."""
    planned: dict[str, PlannedMatrix] = {}
    for name, parts in matrix_parts(arch).items():
        apart = [part.removesuffix(".weight") for part in parts]
        together = len({chosen[part] for part in apart}) == 1
        for unit, of in [(name, parts)] if together else [(part, (f"{part}.weight",)) for part in apart]:
            shapes = [weights.shape(part) for part in of]
            choice = chosen[of[0].removesuffix(".weight")]
            rows = sum(shape[0] for shape in shapes)
            planned[unit] = PlannedMatrix(unit, of, rows, shapes[0][1], choice.spec, choice.method)
    return planned


def matrices(arch: ModelArch) -> Iterator[str]:
    """The checkpoint's matrices by our names, without ".weight"."""
    for parts in matrix_parts(arch).values():
        yield from (part.removesuffix(".weight") for part in parts)


def matrix_parts(arch: ModelArch) -> dict[str, tuple[str, ...]]:
    """The matrices of the graph, all fused, and the checkpoint's matrices they are made of."""
    parts: dict[str, tuple[str, ...]] = {"embed": ("embed.weight",)}
    for i in range(arch.layers):
        at = f"layers.{i}"
        for name in ("qkv", "o", *(("gate_up",) if arch.gated else ("up",)), "down"):
            parts[f"{at}.{name}"] = tuple(f"{at}.{part}.weight" for part in FUSED.get(name, (name,)))
    if arch.rotated:
        parts |= {name: (f"{name}.weight",) for name in ROTATIONS}
    if not arch.tied:
        parts["lm_head"] = ("lm_head.weight",)
    return parts


def parts_apart(name: str) -> list[str]:
    """Names of the matrices that a fused one is made of: "layers.0.qkv" -> "layers.0.q", ..."""
    at, _, kind = name.rpartition(".")
    return [f"{at}.{part}" for part in FUSED[kind]]


def kept_as(unit: str, weights: Weights, bits: int) -> QuantSpec | None:
    """The layout that holds a matrix's stored blocks exactly with so many bits, or None."""
    info = weights.info(f"{unit}.weight")
    columns = weights.shape(f"{unit}.weight")[1]
    if info.dtype in PACKED:
        whole = info.block_size is not None and columns % info.block_size == 0
        if PACKED[info.dtype] != bits or not whole or info.block_size is None:
            return None
        return QuantSpec(bits, info.block_size, "zero_points")
    spec = KEPT.get(info.dtype)
    if spec is None or spec.bits != bits or columns % spec.block_size or not weights.has_blocks(f"{unit}.weight"):
        return None
    return spec if spec.offsets == "none" or unit != "embed" else None  # the embedding's operator adds no constants


def _choice(unit: str, recipe: Recipe, weights: Weights, *, four_bit_file: bool) -> Choice:
    if recipe.precision == "fp32":
        return Choice(FLOAT, "float")
    if unit in ROTATIONS:
        return Choice(rotation_spec(weights.shape(f"{unit}.weight")[1]), "keep")
    ends = unit in ("embed", "lm_head")
    bits = 8 if ends else _BITS[recipe.precision]
    kept = kept_as(unit, weights, bits)
    if kept is not None:
        return Choice(kept, "keep")
    if ends:
        spec = embedding_spec(weights.shape(f"{unit}.weight")[1])
        return Choice(spec, "float" if spec.bits == 32 else "round")
    if bits == 4 and four_bit_file and weights.dtype(f"{unit}.weight") in _FINER:
        finer = kept_as(unit, weights, 8)
        return Choice(QuantSpec(8, 32), "round") if finer is None else Choice(finer, "keep")
    return rounded(recipe, bits)


def rounded(recipe: Recipe, bits: int) -> Choice:
    """How a matrix is stored that has no blocks of its own worth keeping."""
    if bits == 8:
        return Choice(QuantSpec(8, recipe.block_size), "round")
    return Choice(QuantSpec(4, recipe.block_size, twin=True), "gptq" if recipe.method == "gptq" else "round")


def embedding_spec(columns: int) -> QuantSpec:
    """INT8 for the embedding and the LM head.

    GatherBlockQuantized wants whole blocks; where none divides the width, the embedding stays float.
    """
    return next((QuantSpec(8, size) for size in EMBEDDING_BLOCKS if columns % size == 0), FLOAT)


def rotation_spec(columns: int) -> QuantSpec:
    """Of the rotations, whose values are one number with either sign in each block: 4 bits say that exactly."""
    return next(QuantSpec(4, size) for size in EMBEDDING_BLOCKS if columns % size == 0)


def quantise(matrix: PlannedMatrix, weights: Weights) -> codec.QuantisedMatrix:
    """Read, round (or keep) and pack one planned matrix; floats of at most a few rows are in memory at a time."""
    make: Callable[[str], list[codec.QuantisedMatrix]] = {
        "keep": lambda part: [keep(part, matrix.spec, weights)],
        "round": lambda part: _round(part, matrix.spec, weights),
    }[matrix.method]
    return stacked([piece for part in matrix.parts for piece in make(part)])


def stacked(pieces: list[codec.QuantisedMatrix]) -> codec.QuantisedMatrix:
    """Pieces of the same layout, one above the other."""
    zero_points = [piece.zero_points for piece in pieces if piece.zero_points is not None]
    return codec.QuantisedMatrix(
        pieces[0].spec,
        pieces[0].columns,
        np.concatenate([piece.packed for piece in pieces]),
        np.concatenate([piece.scales for piece in pieces]),
        np.concatenate(zero_points) if zero_points else None,
    )


def keep(part: str, spec: QuantSpec, weights: Weights) -> codec.QuantisedMatrix:
    """The checkpoint's own blocks in the operator's layout."""
    blocks = weights.blocks(part)
    if blocks is None:
        raise UnsupportedCheckpoint(f"{part} is not stored in blocks")
    if spec.offsets == "none":
        return codec.store_symmetric(blocks.codes, blocks.scales, spec)
    offsets = np.zeros_like(blocks.scales) if blocks.offsets is None else blocks.offsets
    store = codec.store_affine if spec.affine else codec.store_with_zero_points
    return store(blocks.codes, blocks.scales, offsets, spec)


def _round(part: str, spec: QuantSpec, weights: Weights) -> list[codec.QuantisedMatrix]:
    rows, columns = weights.shape(part)
    step = max(1, _CHUNK_VALUES // columns)
    return [rounded_rows(part, spec, weights, at, min(at + step, rows)) for at in range(0, rows, step)]


def rounded_rows(part: str, spec: QuantSpec, weights: Weights, start: int, stop: int) -> codec.QuantisedMatrix:
    """Some rows of a matrix of the checkpoint, to nearest; `spec` has no offsets."""
    codes, scales = rtn.quantise(weights.rows(part, start, stop), spec.bits, spec.block_size, twin=spec.twin)
    return codec.store_symmetric(codes, scales, spec)
