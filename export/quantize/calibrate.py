"""GPTQ over a whole model: each layer sees the inputs that the layers before it, already rounded, will give it.

Two passes over a layer: the first, with float weights, gathers H = X^T X of every matrix; then its matrices are
rounded, and the second pass makes the stream for the next layer. Streams of all calibration rows stay in memory
([rows, tokens, hidden]); of the weights only one layer's, and results go to a folder.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from export.families.weights import Weights
from export.layerwise import Layer, Layerwise
from export.quantize import codec, gptq
from export.quantize.cache import Reach
from export.quantize.codec import QuantisedMatrix
from export.quantize.plan import Plan, PlannedMatrix, matrix_parts

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Advance = Callable[[int, int], None]
_BATCH_TOKENS = 4096


class Spool:
    """Quantised matrices on disk, between calibration and the graph that stores them. Symmetric layouts only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, matrix: QuantisedMatrix) -> None:
        """Write one."""
        (self._folder / f"{name}.codes").write_bytes(matrix.packed.tobytes())
        (self._folder / f"{name}.scales").write_bytes(matrix.scales.tobytes())

    def take(self, planned: PlannedMatrix) -> QuantisedMatrix:
        """Read one and remove it."""
        blocks = planned.spec.blocks(planned.columns)
        codes, scales = (self._folder / f"{planned.name}.{kind}" for kind in ("codes", "scales"))
        matrix = QuantisedMatrix(
            planned.spec,
            planned.columns,
            np.fromfile(codes, np.uint8).reshape(planned.rows, blocks, -1),
            np.fromfile(scales, np.float32).reshape(planned.rows, blocks),
        )
        codes.unlink()
        scales.unlink()
        return matrix


def run(
    arch: ModelArch,
    plan: Plan,
    weights: Weights,
    ids: Ids,
    spool: Spool,
    advance: Advance,
    reach: Reach | None = None,
) -> None:
    """Round every matrix that `plan` gives to GPTQ and leave it in `spool`. `ids` [rows, tokens]; counts layers.

    `reach` sees the keys and values of all layers, so rounded.
    """
    model = Layerwise(arch, weights)
    stream = model.embed(ids)
    step = max(1, _BATCH_TOKENS // ids.shape[1])
    batches = [slice(at, at + step) for at in range(0, len(ids), step)]
    fused = matrix_parts(arch)
    for i in range(arch.layers):
        layer = model.load(i)
        planned = _planned_of(i, plan, fused)
        if any(each.method == "gptq" for matrices in planned.values() for each in matrices):
            hessians = _hessians(model, i, layer, stream, batches)
            layer = _rounded(layer, planned, hessians, spool)
        for batch in batches:
            if reach is None:
                stream[batch] = model.run(i, layer, stream[batch])
                continue
            stream[batch], keys, values = model.run_with_cache(i, layer, stream[batch])
            reach.see(i, keys, values)
        advance(i + 1, arch.layers)


def _planned_of(i: int, plan: Plan, fused: Mapping[str, tuple[str, ...]]) -> dict[str, list[PlannedMatrix]]:
    """The planned matrices of a layer, by the fused matrix whose rows they are, in order."""
    at = f"layers.{i}."
    found: dict[str, list[PlannedMatrix]] = {}
    for name, parts in fused.items():
        if name.startswith(at):
            members = [name] if name in plan else [part.removesuffix(".weight") for part in parts]
            found[name.removeprefix(at)] = [plan[member] for member in members]
    return found


def _hessians(
    model: Layerwise, i: int, layer: Layer, stream: Floats, batches: list[slice]
) -> dict[str, npt.NDArray[np.float32]]:
    sums: dict[str, npt.NDArray[np.float32]] = {}
    for batch in batches:
        _, inputs = model.run_with_inputs(i, layer, stream[batch])
        seen: dict[int, npt.NDArray[np.float32]] = {}
        for name, values in inputs.items():
            if id(values) not in seen:  # matrices that read the same input share one H
                flat = values.reshape(-1, values.shape[-1])
                seen[id(values)] = flat.T @ flat
            sums[name] = sums[name] + seen[id(values)] if name in sums else seen[id(values)]
    return sums


def _rounded(
    layer: Layer, planned: Mapping[str, list[PlannedMatrix]], hessians: Mapping[str, Floats], spool: Spool
) -> Layer:
    """The layer as it will be: rounded where GPTQ is asked for. What is kept or INT8 counts as exact."""
    for name, matrices in planned.items():
        if all(each.method != "gptq" for each in matrices):
            continue
        inputs = gptq.inputs_of(hessians[name])
        values = layer.matrices[name].copy()
        start = 0
        for each in matrices:
            rows = slice(start, start + each.rows)
            start += each.rows
            if each.method == "gptq":
                spec = each.spec
                codes, scales = gptq.quantise(values[rows], inputs, spec.bits, spec.block_size, twin=spec.twin)
                matrix = codec.store_symmetric(codes, scales, spec)
                spool.put(each.name, matrix)
                values[rows] = codec.dequantise(matrix)
        layer = layer.with_matrix(name, values)
    return layer
