from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.arch import ModelArch
from edgekit.errors import BudgetTooSmall, CalibrationTooShort, CheckpointNotFound, UsageError
from edgekit.quant import Precision, QuantSpec
from export.checkpoints import open_checkpoint
from export.families.weights import Weights
from export.graph import decoder
from export.quantize import calibration, codec, prepare, sensitivity
from export.quantize import plan as planning
from export.quantize.codec import QuantisedMatrix
from export.quantize.plan import FUSED, Plan, Recipe, Rounding
from export.quantize.prepare import Prepared, check, other_bytes
from tests import tiny
from tests.export.exports import opened
from tests.export.families.cases import falcon, gemma3_text, gpt2, olmo2, phi, phi3, qwen3, stablelm
from tests.export.random_weights import RandomWeights, arch_from, as_weights
from tests.export.silent import Heard

SHORT = tiny.Config(context=24)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_hf_folder(tmp_path_factory.mktemp("source") / "tiny", SHORT)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    file = tmp_path / "calibration.txt"
    file.write_text("and then hello in the hall, the other one: 1, 2, 3. " * 60)
    return file


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def prepared(
    source: Path, recipe: Recipe, work: Path, heard: Heard | None = None
) -> tuple[Prepared, Mapping[str, QuantisedMatrix]]:
    """What was prepared, and every matrix of it."""
    with open_checkpoint(source) as checkpoint, opened(source) as (arch, weights):
        check(recipe)
        made = prepare.prepare(arch, weights, recipe, checkpoint.text, work, heard or Heard())
        return made, {name: made.quantise(each) for name, each in made.plan.items() if each.method != "float"}


def size_of(plan: Plan) -> int:
    return sum(matrix.bytes for matrix in plan.values())


def methods(plan: Plan) -> Counter[str]:
    return Counter(matrix.method for name, matrix in plan.items() if name.startswith("layers."))


def test_plain_rounding_reads_no_text_and_writes_nothing(source: Path, work: Path) -> None:
    heard = Heard()
    made, matrices = prepared(source, Recipe("int4", calibration=Path("missing")), work, heard)
    assert made.calibration is None
    assert methods(made.plan) == {"round": 8}
    assert (heard.stages, list(work.iterdir())) == ([], [])
    with opened(source) as (_, weights):
        for name, matrix in matrices.items():
            np.testing.assert_array_equal(matrix.packed, planning.quantise(made.plan[name], weights).packed)


def test_gptq_by_the_model_s_own_text(source: Path, work: Path) -> None:
    heard = Heard()
    made, matrices = prepared(source, Recipe("int4", method="gptq"), work, heard)
    assert made.calibration == "its own text"
    assert methods(made.plan) == {"gptq": 8}
    assert [stage.partition(" ")[0] for stage in heard.stages] == ["writing", "rounding"]
    assert heard.advances[-1] == (2, 2)
    for name, matrix in matrices.items():
        assert matrix.spec == made.plan[name].spec
    assert not list(work.glob("layers.*"))  # taken


def test_gptq_by_a_file(source: Path, work: Path, text_file: Path) -> None:
    heard = Heard()
    made, _ = prepared(source, Recipe("int4", method="gptq", calibration=text_file), work, heard)
    assert made.calibration == "calibration.txt"
    assert [stage.partition(" ")[0] for stage in heard.stages] == ["rounding"]
    assert list(work.iterdir()) == []  # no graph that writes text


@pytest.mark.parametrize("method", planning.ROUNDINGS)
def test_a_budget_is_spent_on_some_matrices(method: Rounding, source: Path, work: Path, text_file: Path) -> None:
    with opened(source) as (arch, _):
        other = other_bytes(arch)
    budget = other + 90_000
    made, matrices = prepared(source, Recipe("int4", 64, method, budget, text_file), work)
    assert 0.97 * 90_000 < size_of(made.plan) <= 90_000
    specs = {matrix.spec.bits for name, matrix in made.plan.items() if name.startswith("layers.")}
    assert specs == {4, 8}
    four_bit = {matrix.method for matrix in made.plan.values() if matrix.spec.bits == 4 and "layers" in matrix.name}
    assert four_bit == {"gptq" if method == "gptq" else "round"}
    assert {matrix.method for matrix in made.plan.values() if matrix.spec.bits == 8} == {"round"}
    assert sum(each.packed.nbytes + each.scales.nbytes for each in matrices.values()) == size_of(made.plan)


def test_a_larger_budget_never_costs_quality(source: Path, work: Path, text_file: Path) -> None:
    with opened(source) as (arch, weights):
        smallest, largest = (
            sum(spec.bytes_for(*weights.shape(f"{unit}.weight")) for unit in planning.matrices(arch))
            for spec in (sensitivity.LAYER_SPECS[0], sensitivity.LAYER_SPECS[-1])
        )
        other = other_bytes(arch)
        values = {name: weights.tensor(f"{name}.weight") for name in planning.matrices(arch)}
    errors, specs = [], []
    for size in np.linspace(1.1 * smallest, 1.1 * largest, 4):
        made, matrices = prepared(source, Recipe("int4", size_budget=other + int(size), calibration=text_file), work)
        error = 0.0
        for name, matrix in matrices.items():
            parts = [part.removesuffix(".weight") for part in made.plan[name].parts]
            error += float(np.square(codec.dequantise(matrix) - np.concatenate([values[part] for part in parts])).sum())
        errors.append(error)
        specs.append({matrix.spec for matrix in made.plan.values()})
    assert errors == sorted(errors, reverse=True)
    assert specs[-1] == {sensitivity.LAYER_SPECS[-1]}  # enough for the best


@pytest.mark.parametrize("short", [1, 3000, 10**6], ids=["a byte", "some", "not even the vectors"])
def test_a_budget_that_cannot_be_met_is_told(short: int, source: Path, work: Path, text_file: Path) -> None:
    with opened(source) as (arch, weights):
        least = other_bytes(arch)
        for unit in planning.matrices(arch):
            specs = sensitivity.LAYER_SPECS if unit.startswith("layers.") else sensitivity.END_SPECS
            least += min(spec.bytes_for(*weights.shape(f"{unit}.weight")) for spec in specs)
    recipe = Recipe("int4", size_budget=least, calibration=text_file)
    assert size_of(prepared(source, recipe, work)[0].plan) + other_bytes(arch) == least
    with pytest.raises(BudgetTooSmall, match="bytes"):
        prepared(source, replace(recipe, size_budget=max(0, least - short)), work)


def test_an_embedding_that_stays_float_is_paid_for(tmp_path: Path, work: Path, text_file: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "odd", tiny.Config(context=24, hidden=40))
    with opened(source) as (arch, _):
        other = other_bytes(arch)
    budget = other + 2 * 320 * 40 * 4 + 45_000
    made, _ = prepared(source, Recipe("int4", size_budget=budget, calibration=text_file), work)
    assert made.plan["embed"].method == made.plan["lm_head"].method == "float"
    assert 35_000 < size_of(made.plan) - 2 * 320 * 40 * 4 <= 45_000


@pytest.mark.parametrize(
    "recipe", [Recipe("int4", method="gptq"), Recipe("int4", size_budget=10**6)], ids=["gptq", "budget"]
)
def test_a_text_that_is_missing_or_too_short_is_one_error(
    recipe: Recipe, source: Path, work: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointNotFound, match="no such text file"):
        prepared(source, replace(recipe, calibration=tmp_path / "missing"), work)
    (tmp_path / "short.txt").write_text("hello and the end")
    with pytest.raises(CalibrationTooShort, match=r"short\.txt has"):
        prepared(source, replace(recipe, calibration=tmp_path / "short.txt"), work)
    assert list(work.iterdir()) == []


WRONG: Mapping[str, tuple[Recipe, str]] = {
    "gptq of INT8": (Recipe("int8", method="gptq"), "--method gptq is for int4"),
    "gptq of floats": (Recipe("fp32", method="gptq"), "--method gptq is for int4"),
    "a budget of floats": (Recipe("fp32", size_budget=10**9), "--size-budget"),
    "a budget of INT8": (Recipe("int8", size_budget=10**9), "--size-budget"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wishes_that_contradict_each_other_are_refused(name: str) -> None:
    recipe, said = WRONG[name]
    with pytest.raises(UsageError, match=said):
        check(recipe)


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_plain_wishes_are_not(precision: Precision) -> None:
    check(Recipe(precision))


def test_no_text_is_written_for_a_file_whose_blocks_are_all_kept(tmp_path: Path, work: Path) -> None:
    source = tiny.write_gguf(tmp_path / "tiny.gguf", SHORT, tensor_type="Q4_0")
    heard = Heard()
    made, _ = prepared(source, Recipe("int4", method="gptq"), work, heard)
    assert (heard.stages, made.calibration, methods(made.plan)) == ([], None, {"keep": 8})


def test_blocks_that_cost_nothing_are_kept_under_a_budget(tmp_path: Path, work: Path, text_file: Path) -> None:
    source = tiny.write_gguf(tmp_path / "tiny.gguf", SHORT, tensor_type="Q4_0")
    made, _ = prepared(source, Recipe("int4", size_budget=10**7, calibration=text_file), work)
    assert methods(made.plan) == {"keep": 8}


def test_sensitivity_is_measured_on_a_part_of_the_text(
    source: Path, work: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    measure = sensitivity.measure

    def noted(arch: ModelArch, weights: Weights, ids: calibration.Ids, *rest: object) -> object:
        seen.append(ids.shape)
        return measure(arch, weights, ids, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(sensitivity, "measure", noted)
    prepared(source, Recipe("int4", size_budget=10**6, calibration=text_file), work)
    assert seen == [(prepare.PROBE_ROWS, 24)]


MODULES = (falcon, gemma3_text, gpt2, olmo2, phi, phi3, qwen3, stablelm)
SHAPES = {
    f"{module.__name__.rpartition('.')[2]}; {name}": case for module in MODULES for name, case in module.CASES.items()
}
LONG_CONTEXT = {"max_position_embeddings": 131_072, "num_hidden_layers": 12}


@pytest.mark.parametrize("longer", [{}, LONG_CONTEXT], ids=["tiny", "12 layers, long context"])
@pytest.mark.parametrize("name", SHAPES)
def test_what_lies_beside_the_matrices_is_never_more_than_was_reckoned(
    name: str, longer: Mapping[str, object], tmp_path: Path
) -> None:
    """All matrices stored apart: the most operators that a plan can need."""
    per_layer = ("layer_types",) if longer else ()
    arch = arch_from({key: value for key, value in SHAPES[name].items() if key not in per_layer} | dict(longer))
    weights = as_weights(RandomWeights(arch))
    chosen = dict(planning.choices(arch, Recipe("int4"), weights))
    for i in range(arch.layers):
        for part, size in (("q", 16), ("k", 32), ("v", 64), ("gate", 128)):
            if f"layers.{i}.{part}" in chosen:
                chosen[f"layers.{i}.{part}"] = planning.Choice(QuantSpec(4, size), "round")
    plan = planning.fused(arch, chosen, weights)
    decoder.save(tmp_path, arch, plan, weights, lambda each: planning.quantise(each, weights), lambda _: None)
    beside = sum(file.stat().st_size for file in tmp_path.iterdir()) - size_of(plan)
    assert beside <= other_bytes(arch)
    assert other_bytes(arch) - beside < 60_000 + 12_000 * arch.layers  # and little is left unused
    assert not FUSED.keys() & {name.rpartition(".")[2] for name in plan}
