from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from edgekit.quant import QuantSpec
from export.divergence import Divergence
from export.layerwise import Layerwise
from export.quantize import calibrate, codec, gptq
from export.quantize import plan as planning
from export.quantize.calibrate import Spool
from export.quantize.codec import QuantisedMatrix
from export.quantize.plan import Choice, Plan, PlannedMatrix, Recipe
from tests import tiny
from tests.export.families.cases import falcon, gemma2, gpt2, olmo2
from tests.export.random_weights import RandomWeights, arch_from, as_weights
from tests.export.recording import inputs_of, logits_of

Floats = NDArray[np.float32]
IDS = np.random.default_rng(1).integers(3, 300, (5, 32))
SETTINGS = {
    "llama": tiny.hf_config(),
    "gemma2": next(iter(gemma2.CASES.values())),
    "falcon": next(iter(falcon.CASES.values())),
    "gpt2": next(iter(gpt2.CASES.values())),
    "olmo2": next(iter(olmo2.CASES.values())),
}
every_model = pytest.mark.parametrize("name", SETTINGS)
GPTQ = Recipe("int4", method="gptq")


def model(name: str) -> tuple[ModelArch, RandomWeights]:
    arch = arch_from(SETTINGS[name])
    return arch, RandomWeights(arch)


def silent(done: int, total: int) -> None:
    pass


def calibrated(arch: ModelArch, weights: RandomWeights, plan: Plan, folder: Path) -> dict[str, QuantisedMatrix]:
    """Every matrix that GPTQ rounds."""
    spool = Spool(folder)
    calibrate.run(arch, plan, as_weights(weights), IDS, spool, silent)
    return {name: spool.take(planned) for name, planned in plan.items() if planned.method == "gptq"}


def with_matrices(
    arch: ModelArch, weights: RandomWeights, plan: Plan, made: dict[str, QuantisedMatrix]
) -> RandomWeights:
    """The checkpoint that these matrices mean."""
    changed = RandomWeights(arch)
    changed.values = dict(weights.values)
    for name, matrix in made.items():
        values, start = codec.dequantise(matrix), 0
        for part in plan[name].parts:
            rows = weights.shape(part)[0]
            changed.values[part] = values[start : start + rows]
            start += rows
    return changed


@every_model
def test_every_matrix_of_gptq_is_in_the_spool_and_nothing_else(name: str, tmp_path: Path) -> None:
    arch, weights = model(name)
    plan = planning.plan(arch, GPTQ, as_weights(weights))
    calibrate.run(arch, plan, as_weights(weights), IDS, Spool(tmp_path), silent)
    rounded = [each for each in plan.values() if each.method == "gptq"]
    assert {each.name for each in rounded} == {name for name in plan if name.startswith("layers.")}
    assert len(list(tmp_path.iterdir())) == 2 * len(rounded)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == sum(each.bytes for each in rounded)
    for each in rounded:
        matrix = Spool(tmp_path).take(each)
        assert matrix.spec == each.spec
        values = np.concatenate([weights.values[part] for part in each.parts])
        assert codec.dequantise(matrix).shape == values.shape
        assert np.corrcoef(codec.dequantise(matrix).ravel(), values.ravel())[0, 1] > 0.95
    assert list(tmp_path.iterdir()) == []


def test_the_spool_gives_back_what_was_put(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for spec, columns in ((QuantSpec(4, 32, twin=True), 80), (QuantSpec(8, 16), 32)):
        codes = random.integers(-8, 8, (5, columns)).astype(np.int8)
        scales = random.random((5, spec.blocks(columns)), np.float32)
        matrix = codec.store_symmetric(codes, scales, spec)
        spool = Spool(tmp_path)
        spool.put("layers.0.qkv", matrix)
        found = spool.take(PlannedMatrix("layers.0.qkv", ("x",), 5, columns, spec, "gptq"))
        assert (found.spec, found.columns, found.zero_points) == (spec, columns, None)
        np.testing.assert_array_equal(found.packed, matrix.packed)
        np.testing.assert_array_equal(found.scales, matrix.scales)


@every_model
def test_a_layer_is_rounded_for_the_inputs_that_rounded_layers_give_it(name: str, tmp_path: Path) -> None:
    """Layer 1 sees a layer 0 that is rounded already; within a layer, inputs are those of its float weights."""
    arch, weights = model(name)
    plan = planning.plan(arch, GPTQ, as_weights(weights))
    made = calibrated(arch, weights, plan, tmp_path)
    before = with_matrices(arch, weights, plan, {n: each for n, each in made.items() if n.startswith("layers.0.")})
    for layer, checkpoint in ((0, weights), (1, before)):
        for kind in ("qkv", "o", "gate_up" if arch.gated else "up", "down"):
            at = f"layers.{layer}.{kind}"
            x = inputs_of(arch, checkpoint, IDS.tolist(), at).reshape(-1, plan[at].columns)
            values = np.concatenate([weights.values[part] for part in plan[at].parts])
            codes, scales = gptq.quantise(values, gptq.inputs_of(x.T @ x), 4, 32, twin=True)
            expected = codec.dequantise(codec.store_symmetric(codes, scales, plan[at].spec))
            np.testing.assert_allclose(made[at].scales, scales, rtol=1e-5)
            assert np.isclose(codec.dequantise(made[at]), expected, rtol=1e-4).mean() > 0.97, at  # near ties may tip


@every_model
def test_less_is_lost_on_the_text_than_with_rounding_to_nearest(name: str, tmp_path: Path) -> None:
    arch, weights = model(name)
    truth = Divergence([logits_of(arch, weights, row) for row in IDS.tolist()])

    def lost(plan: Plan, made: dict[str, QuantisedMatrix]) -> float:
        changed = with_matrices(arch, weights, plan, made)
        return truth.of(logits_of(arch, changed, row) for row in IDS.tolist())

    plan = planning.plan(arch, GPTQ, as_weights(weights))
    nearest = planning.plan(arch, Recipe("int4"), as_weights(weights))
    made = calibrated(arch, weights, plan, tmp_path)
    plain = {at: planning.quantise(nearest[at], as_weights(weights)) for at in made}
    assert lost(plan, made) < 0.9 * lost(nearest, plain)


def mixed_plan(arch: ModelArch, weights: RandomWeights) -> Plan:
    """Of layer 0, keys are INT8, queries and values INT4 in different blocks, down INT8; layer 1 is all INT8."""
    chosen = dict(planning.choices(arch, GPTQ, as_weights(weights)))
    eight = Choice(QuantSpec(8, 32), "round")
    chosen |= {"layers.0.k": eight, "layers.0.down": eight}
    chosen["layers.0.v"] = Choice(QuantSpec(4, 16, twin=True), "gptq")
    chosen |= dict.fromkeys((unit for unit in chosen if unit.startswith("layers.1.")), eight)
    return planning.fused(arch, chosen, as_weights(weights))


def test_parts_that_are_stored_apart_are_rounded_apart(tmp_path: Path) -> None:
    arch, weights = model("llama")
    plan = mixed_plan(arch, weights)
    made = calibrated(arch, weights, plan, tmp_path)
    assert set(made) == {"layers.0.q", "layers.0.v", "layers.0.o", "layers.0.gate_up"}
    x = inputs_of(arch, weights, IDS.tolist(), "layers.0.qkv").reshape(-1, 64)
    inputs = gptq.inputs_of(x.T @ x)
    for part, block in (("q", 32), ("v", 16)):
        at = f"layers.0.{part}"
        codes, scales = gptq.quantise(weights.values[f"{at}.weight"], inputs, 4, block, twin=True)
        expected = codec.dequantise(codec.store_symmetric(codes, scales, plan[at].spec))
        assert np.isclose(codec.dequantise(made[at]), expected, rtol=1e-4).mean() > 0.97


def test_matrices_are_not_read_where_nothing_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of which all is kept or INT8 needs one pass only."""
    arch, weights = model("llama")
    tapped: list[int] = []
    tap = Layerwise.run_with_inputs

    def counted(self: Layerwise, i: int, *rest: object) -> object:
        tapped.append(i)
        return tap(self, i, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Layerwise, "run_with_inputs", counted)
    calibrated(arch, weights, mixed_plan(arch, weights), tmp_path)
    assert tapped == [0]


def test_rows_that_pass_in_batches_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, weights = model("llama")
    plan = planning.plan(arch, GPTQ, as_weights(weights))
    whole = calibrated(arch, weights, plan, tmp_path)
    monkeypatch.setattr(calibrate, "_BATCH_TOKENS", 2 * IDS.shape[1])
    for name, matrix in calibrated(arch, weights, plan, tmp_path).items():
        same = np.isclose(codec.dequantise(matrix), codec.dequantise(whole[name]), rtol=1e-4)
        assert same.mean() > 0.97, name


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    arch, weights = model("llama")
    plan = planning.plan(arch, GPTQ, as_weights(weights))
    first, second = (calibrated(arch, weights, plan, tmp_path) for _ in range(2))
    for name, matrix in first.items():
        np.testing.assert_array_equal(matrix.packed, second[name].packed)
        np.testing.assert_array_equal(matrix.scales, second[name].scales)


def test_progress_counts_layers(tmp_path: Path) -> None:
    arch, weights = model("llama")
    heard: list[tuple[int, int]] = []
    plan = planning.plan(arch, GPTQ, as_weights(weights))
    calibrate.run(arch, plan, as_weights(weights), IDS, Spool(tmp_path), lambda *each: heard.append(each))
    assert heard == [(1, 2), (2, 2)]


def test_inputs_of_shared_norms_are_counted_once_for_each_matrix() -> None:
    """Q|K|V and the MLP of Falcon read the same values."""
    arch, weights = model("falcon")
    x = inputs_of(arch, weights, IDS.tolist(), "layers.0.up").reshape(-1, arch.hidden)
    layerwise = Layerwise(arch, as_weights(weights))
    batches = [slice(0, 4), slice(4, 5)]
    found = calibrate._hessians(layerwise, 0, layerwise.load(0), layerwise.embed(IDS), batches)
    for name in ("qkv", "up"):
        np.testing.assert_allclose(found[name], x.T @ x, rtol=1e-3, atol=1e-3)
