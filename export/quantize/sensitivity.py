"""What each matrix's rounding costs, measured: KL of the whole float model's next token with one matrix rounded.

Layer by layer: the float stream that enters a layer is run through variants of it, one matrix rounded in each;
the variants then pass the later layers side by side, so that each layer is read once for all variants of another
and the model is never in memory. One layout per matrix is measured so; the others' cost follows from it by their
squared error, weighted by how strongly calibration moves each input.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch
from edgekit.quant import QuantSpec
from export.divergence import Divergence
from export.families.weights import Weights
from export.layerwise import Ends, Layer, Layerwise
from export.quantize import codec, rtn
from export.quantize.budget import Option
from export.quantize.plan import FUSED, Choice, Method, kept_as

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Advance = Callable[[int, int], None]

LAYER_SPECS = (QuantSpec(4, 64, twin=True), QuantSpec(4, 32, twin=True), QuantSpec(8, 64), QuantSpec(8, 32))
END_SPECS = (QuantSpec(4, 32), QuantSpec(8, 64), QuantSpec(8, 32))
"""Layouts to choose from, for layers and for embedding and LM head; the first is the one that is measured."""

_GPTQ_LEAVES = 0.35
"""Share of the KL of rounding to nearest that calibration leaves (SmolLM2-135M in blocks of 32: 0.099 of 0.289)."""

_READ = slice(2, None, 3)
"""Positions whose logits are compared: a large vocabulary would cost as much as all layers together."""

_BATCH_TOKENS = 4096
"""Tokens that pass a layer at a time."""


@dataclass(frozen=True)
class Unit:
    """Matrices of the checkpoint that get one layout together: their rows in their layer's fused matrix."""

    members: tuple[str, ...]
    fused: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Candidate:
    """A layout, and the weighted squared error of what the weights become in it."""

    choice: Choice
    bytes: int
    error: float


_Ladder = list[_Candidate]
"""The first is the one whose KL is measured."""


def measure(arch: ModelArch, weights: Weights, ids: Ids, method: Method, advance: Advance) -> dict[Unit, list[Option]]:
    """Options of every unit with their KL. `ids` [rows, tokens] is calibration text; `advance` counts layers.

    `method` is how 4-bit layouts will be rounded in the end; here all are rounded to nearest.
    """
    model = Layerwise(arch, weights)
    streams = [model.embed(ids)]
    for i in range(arch.layers):
        streams.append(_passed(model, i, model.load(i), streams[-1]))
    truth = Divergence([model.logits(row[_READ]) for row in streams[-1]])
    options = _ends(arch, weights, ids, truth, streams[-1])
    for i in range(arch.layers):
        options |= _layer(arch, weights, model, i, streams[i], truth, method)
        streams[i] = np.empty(0, np.float32)  # no variant needs it any more
        advance(i + 1, arch.layers)
    return options


def units(arch: ModelArch, weights: Weights, layer: int) -> Iterator[Unit]:
    """Of one layer: queries, keys and values apart, since the last two are small and matter much; gate and up not."""
    at = f"layers.{layer}."
    start = 0
    for part in FUSED["qkv"]:
        rows = weights.shape(f"{at}{part}.weight")[0]
        yield Unit((f"{at}{part}",), "qkv", start, start + rows)
        start += rows
    for fused in ("o", "gate_up" if arch.gated else "up", "down"):
        members = tuple(f"{at}{part}" for part in FUSED.get(fused, (fused,)))
        yield Unit(members, fused, 0, sum(weights.shape(f"{member}.weight")[0] for member in members))


def _layer(
    arch: ModelArch, weights: Weights, model: Layerwise, i: int, stream: Floats, truth: Divergence, method: Method
) -> dict[Unit, list[Option]]:
    layer = model.load(i)
    _, inputs = model.run_with_inputs(i, layer, stream)
    ladders: dict[Unit, _Ladder] = {}
    variants = []
    for unit in units(arch, weights, i):
        values = layer.matrices[unit.fused][unit.start : unit.stop]
        moved: Floats = np.square(inputs[unit.fused]).mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        ladders[unit], rounded = _ladder(unit, values, moved, weights, LAYER_SPECS, method)
        changed = layer.matrices[unit.fused].copy()
        changed[unit.start : unit.stop] = rounded
        variants.append(_passed(model, i, layer.with_matrix(unit.fused, changed), stream))
    rows = len(stream)
    together = np.concatenate(variants)
    for later in range(i + 1, arch.layers):
        together = _passed(model, later, model.load(later), together)
    return {
        unit: _options(ladder, truth.of(model.logits(row[_READ]) for row in together[at * rows : (at + 1) * rows]))
        for at, (unit, ladder) in enumerate(ladders.items())
    }


def _ends(arch: ModelArch, weights: Weights, ids: Ids, truth: Divergence, last: Floats) -> dict[Unit, list[Option]]:
    """Embedding and LM head; a tied table is both."""
    found: dict[Unit, list[Option]] = {}
    for name in ("embed",) if arch.tied else ("embed", "lm_head"):
        values = weights.tensor(f"{name}.weight")
        unit = Unit((name,), name, 0, len(values))
        specs = [spec for spec in END_SPECS if values.shape[1] % spec.block_size == 0]
        if not specs:  # GatherBlockQuantized wants whole blocks: it stays float
            continue
        ladder, rounded = _ladder(unit, values, np.ones(values.shape[1], np.float32), weights, specs, "round")
        changed = Layerwise(arch, weights, Ends(name, rounded))
        stream = last
        if name == "embed":
            stream = changed.embed(ids)
            for i in range(arch.layers):
                stream = _passed(changed, i, changed.load(i), stream)
        found[unit] = _options(ladder, truth.of(changed.logits(row[_READ]) for row in stream))
    return found


def _passed(model: Layerwise, i: int, layer: Layer, stream: Floats) -> Floats:
    """The stream after a layer, a few rows at a time."""
    step = max(1, _BATCH_TOKENS // stream.shape[1])
    return np.concatenate([model.run(i, layer, stream[at : at + step]) for at in range(0, len(stream), step)])


def _ladder(
    unit: Unit, values: Floats, moved: Floats, weights: Weights, specs: Sequence[QuantSpec], method: Method
) -> tuple[_Ladder, Floats]:
    """Layouts as `specs` has them, then the checkpoint's own blocks if they can be kept; the weights in the first."""
    rows, columns = values.shape
    first = values
    ladder = _Ladder()
    for spec in specs:
        codes, scales = rtn.quantise(values, spec.bits, spec.block_size, twin=spec.twin, importance=moved)
        rounded = codec.dequantise(codec.store_symmetric(codes, scales, spec))
        error = float(np.einsum("rc,c->", np.square(rounded - values), moved, dtype=np.float64))
        how: Method = method if spec.bits == 4 else "round"
        first = first if ladder else rounded
        ladder.append(_Candidate(Choice(spec, how), spec.bytes_for(rows, columns), error))
    for bits in (4, 8):
        kept = {kept_as(member, weights, bits) for member in unit.members}
        if len(kept) == 1 and (spec_kept := kept.pop()) is not None:
            ladder.append(_Candidate(Choice(spec_kept, "keep"), spec_kept.bytes_for(rows, columns), 0.0))
    return ladder, first


def _options(ladder: _Ladder, kl: float) -> list[Option]:
    """KL of the first, rounded to nearest, was measured; the others cost in proportion to their squared error."""
    per_error = max(kl, 0.0) / (ladder[0].error or 1.0)
    left = {"gptq": _GPTQ_LEAVES}
    return [
        Option(each.choice, each.bytes, per_error * each.error * left.get(each.choice.method, 1.0)) for each in ladder
    ]
