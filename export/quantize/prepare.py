"""From a recipe to a plan and its quantised matrices: calibrate, measure, choose, round, as far as was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch, Rotary
from edgekit.errors import BudgetTooSmall, UsageError
from export.checkpoints import TextFiles
from export.families import shapes
from export.families.weights import Weights
from export.graph import rotary
from export.progress import Progress
from export.quantize import cache, calibrate, calibration, sensitivity
from export.quantize import plan as planning
from export.quantize.budget import allocate
from export.quantize.cache import NO_SCALES, Reach, Scales
from export.quantize.codec import QuantisedMatrix
from export.quantize.freeze import FrozenScales
from export.quantize.plan import Choice, Choices, Plan, PlannedMatrix, Recipe

Ids = npt.NDArray[np.int64]

PROBE_ROWS, PROBE_TOKENS = 3, 96
"""Of the calibration text, what sensitivity is measured on: every matrix of the model costs as many tokens."""

_GRAPH_BYTES_PER_LAYER = 7_000
_OTHER_BYTES = 40_000
"""What model.onnx takes at most, with all matrices stored apart, and filling between aligned weights."""


Quantise = Callable[[PlannedMatrix], QuantisedMatrix]
"""Makes the stored form of a planned matrix."""


@dataclass(frozen=True)
class Prepared:
    """A plan, and how each of its matrices is made. `calibration` says by which text, None if by none.

    `scales` are those of an INT8 cache.
    """

    plan: Plan
    quantise: Quantise
    calibration: str | None
    scales: Scales


def check(recipe: Recipe) -> None:
    """Raises UsageError for wishes that contradict each other."""
    if recipe.method == "gptq" and recipe.precision != "int4":
        raise UsageError(f"--method gptq is for int4: rounding to {recipe.precision} loses nothing that it could save")
    if recipe.size_budget is not None and recipe.precision != "int4":
        raise UsageError(f"--size-budget chooses between INT4 and INT8 by itself: leave out --quant {recipe.precision}")
    if recipe.frozen is not None and (recipe.method != "rtn" or recipe.size_budget is not None):
        raise UsageError(
            "--freeze-scales-from is for --method rtn without --size-budget: GPTQ carries each error on to other"
            " weights, so that hardly a code would stay"
        )


def prepare(
    arch: ModelArch, weights: Weights, recipe: Recipe, text: TextFiles, work: Path, progress: Progress
) -> Prepared:
    """Everything before the first byte of the bundle is written; `work` holds what is too large for memory.

    Raises BudgetTooSmall, CalibrationTooShort or CheckpointNotFound.
    """
    chosen, frozen = planning.choices(arch, recipe, weights), None
    if recipe.frozen is not None:
        frozen = FrozenScales(recipe.frozen, arch, weights)
        chosen = frozen.applied(chosen)
    weighed = recipe.size_budget is not None or any(choice.method == "gptq" for choice in chosen.values())
    if not weighed and recipe.kv == "float32":
        return Prepared(planning.fused(arch, chosen, weights), _nearest(weights, frozen), None, NO_SCALES)
    rows = calibration.ROWS if weighed else calibration.CACHE_ROWS
    ids, name = _text(arch, weights, recipe, text, work, progress, rows)
    if recipe.size_budget is not None:
        progress.stage("measuring what each matrix's rounding costs")
        chosen = _within_budget(arch, weights, recipe, chosen, recipe.size_budget, ids, progress)
    plan = planning.fused(arch, chosen, weights)
    spool, reach = calibrate.Spool(work), Reach(arch) if recipe.kv == "int8" else None
    gptq = any(matrix.method == "gptq" for matrix in plan.values())
    if gptq or reach is not None:
        progress.stage("rounding layer by layer (GPTQ)" if gptq else "measuring keys and values layer by layer")
        calibrate.run(arch, plan, weights, ids, spool, progress.advance, reach)
    nearest = _nearest(weights, frozen)
    return Prepared(
        plan,
        lambda each: spool.take(each) if each.method == "gptq" else nearest(each),
        name,
        NO_SCALES if reach is None else reach.scales(),
    )


def _nearest(weights: Weights, frozen: FrozenScales | None) -> Quantise:
    """Makes what needs no calibration."""

    def make(each: PlannedMatrix) -> QuantisedMatrix:
        if each.method == "frozen" and frozen is not None:
            return frozen.quantise(each, weights)
        return planning.quantise(each, weights)

    return make


def _text(
    arch: ModelArch, weights: Weights, recipe: Recipe, text: TextFiles, work: Path, progress: Progress, rows: int
) -> tuple[Ids, str]:
    if recipe.calibration is not None:
        return calibration.from_file(recipe.calibration, text, arch, rows), recipe.calibration.name
    progress.stage("writing calibration text with the model itself")
    return calibration.from_model(arch, weights, text, work, progress.advance, rows), "its own text"


def _within_budget(
    arch: ModelArch,
    weights: Weights,
    recipe: Recipe,
    chosen: Choices,
    budget: int,
    ids: Ids,
    progress: Progress,
) -> Choices:
    """The best choices that fit; matrices without options (a float embedding) keep theirs."""
    method: planning.Method = "gptq" if recipe.method == "gptq" else "round"
    probe = ids[:PROBE_ROWS, :PROBE_TOKENS]
    measured = sensitivity.measure(arch, weights, probe, method, progress.advance)
    optional = {member for unit in measured for member in unit.members}
    fixed = other_bytes(arch) + (cache.bytes_for(arch) if recipe.kv == "int8" else 0)
    fixed += sum(
        choice.spec.bytes_for(*weights.shape(f"{unit}.weight"))
        for unit, choice in chosen.items()
        if unit not in optional
    )
    if fixed > budget:
        raise BudgetTooSmall(f"norms, biases and the graph alone take {fixed:,} bytes")
    by_name = {unit.members[0]: unit for unit in measured}
    options = {name: measured[unit] for name, unit in by_name.items()}
    picked = allocate(options, budget - fixed)
    best: dict[str, Choice] = dict(chosen)
    for name, option in picked.items():
        best |= dict.fromkeys(by_name[name].members, option.choice)
    return best


def other_bytes(arch: ModelArch) -> int:
    """What the bundle's graph files hold at most beside the matrices: vectors, position tables, operators."""
    vectors = sum(4 * int(np.prod(shape)) for name, shape in shapes(arch) if _is_vector(name))
    kinds = {each.rotary for each in (arch.everywhere, arch.local) if each is not None and each.rotary is not None}
    tables = sum(_rotary_bytes(each, arch.context) for each in kinds)
    return vectors + tables + arch.layers * _GRAPH_BYTES_PER_LAYER + _OTHER_BYTES


def _rotary_bytes(rotation: Rotary, context: int) -> int:
    """Cosines and sines; longrope has them twice."""
    once = sum(table.nbytes for table in rotary.factors(rotary.frequencies(rotation), context, 1.0))
    return 2 * once if rotation.scaling is not None and rotation.scaling.kind == "longrope" else once


def _is_vector(name: str) -> bool:
    return "norm" in name or name.endswith(".bias") or name == "positions.weight"
