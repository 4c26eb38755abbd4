"""What a matrix's rounding costs: measured layer by layer, against the same checkpoint with that matrix replaced."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from edgekit.quant import QuantSpec
from export.divergence import divergence
from export.layerwise import Layer, Layerwise
from export.quantize import codec, rtn, sensitivity
from export.quantize.budget import Option
from export.quantize.plan import Method
from export.quantize.sensitivity import END_SPECS, LAYER_SPECS, Unit, measure
from tests import tiny
from tests.export.exports import opened
from tests.export.families.cases import cohere, falcon, gemma2, gpt2
from tests.export.random_weights import RandomWeights, arch_from, as_weights
from tests.export.recording import inputs_of, logits_of

Floats = NDArray[np.float32]
IDS = np.random.default_rng(1).integers(3, 300, (2, 24))
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "llama": tiny.hf_config(),
    "llama, tied": tiny.hf_config(tiny.Config(tied=True)),
    "gemma2": next(iter(gemma2.CASES.values())),
    "falcon": next(iter(falcon.CASES.values())),
    "gpt2": next(iter(gpt2.CASES.values())),
    "cohere": next(iter(cohere.CASES.values())),
}
every_model = pytest.mark.parametrize("name", SETTINGS)


def model(name: str) -> tuple[ModelArch, RandomWeights]:
    arch = arch_from(SETTINGS[name])
    return arch, RandomWeights(arch)


def measured(arch: ModelArch, weights: RandomWeights, method: Method = "round") -> dict[str, list[Option]]:
    """By the first matrix of each unit."""
    found = measure(arch, as_weights(weights), IDS, method, lambda *_: None)
    return {unit.members[0]: options for unit, options in found.items()}


def moved(arch: ModelArch, weights: RandomWeights, unit: str) -> Floats:
    """Mean square of each input of a matrix."""
    if not unit.startswith("layers."):
        return np.ones(arch.hidden, np.float32)
    at, _, kind = unit.rpartition(".")
    fused = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up"}.get(kind, kind)
    inputs = inputs_of(arch, weights, IDS.tolist(), f"{at}.{fused}")
    found: Floats = np.square(inputs).mean(axis=(0, 1)).astype(np.float32)
    return found


def rounded(values: Floats, spec: QuantSpec, importance: Floats) -> Floats:
    codes, scales = rtn.quantise(values, spec.bits, spec.block_size, twin=spec.twin, importance=importance)
    return codec.dequantise(codec.store_symmetric(codes, scales, spec))


def members_of(unit: str) -> list[str]:
    return [unit, unit.removesuffix("gate") + "up"] if unit.endswith(".gate") else [unit]


@every_model
def test_the_first_layout_costs_what_replacing_the_matrix_costs(name: str) -> None:
    arch, weights = model(name)
    truth = np.concatenate([logits_of(arch, weights, row)[2::3] for row in IDS.tolist()])
    for unit, options in measured(arch, weights).items():
        changed, importance = RandomWeights(arch), moved(arch, weights, unit)
        for member in members_of(unit):
            values = weights.values[f"{member}.weight"]
            changed.values[f"{member}.weight"] = rounded(values, options[0].choice.spec, importance)
        found = np.concatenate([logits_of(arch, changed, row)[2::3] for row in IDS.tolist()])
        expected = divergence(truth, found)[0]
        assert expected > 1e-5
        assert options[0].kl == pytest.approx(expected, rel=0.02), unit


@every_model
def test_other_layouts_cost_in_proportion_to_their_weighted_error(name: str) -> None:
    arch, weights = model(name)
    for unit, options in measured(arch, weights).items():
        values = np.concatenate([weights.values[f"{member}.weight"] for member in members_of(unit)])
        importance = moved(arch, weights, unit)
        errors = [
            float((np.square(rounded(values, each.choice.spec, importance) - values) * importance).sum())
            for each in options
        ]
        found, expected = [each.kl / options[0].kl for each in options], [each / errors[0] for each in errors]
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_four_bits_cost_less_where_calibration_rounds_them() -> None:
    arch, weights = model("llama")
    nearest, calibrated = measured(arch, weights), measured(arch, weights, "gptq")
    for unit, options in calibrated.items():
        for option, other in zip(options, nearest[unit], strict=True):
            if option.choice.method == "gptq":
                assert option.kl < 0.6 * other.kl
            else:
                assert option.kl == pytest.approx(other.kl, rel=1e-6)


@every_model
def test_every_matrix_has_its_layouts_and_their_sizes(name: str) -> None:
    arch, weights = model(name)
    found = measured(arch, weights, "gptq")
    mlp = ("gate", "down") if arch.gated else ("up", "down")
    layered = {f"layers.{i}.{kind}" for i in range(arch.layers) for kind in ("q", "k", "v", "o", *mlp)}
    ends = {"embed"} if arch.tied else {"embed", "lm_head"}
    assert set(found) == layered | ends
    for unit, options in found.items():
        specs = END_SPECS if unit in ends else LAYER_SPECS
        four_bit = "round" if unit in ends else "gptq"
        assert [each.choice.spec for each in options] == list(specs)
        assert [each.choice.method for each in options] == [four_bit if each.bits == 4 else "round" for each in specs]
        shapes = [weights.shape(f"{member}.weight") for member in members_of(unit)]
        assert [each.bytes for each in options] == [sum(spec.bytes_for(*shape) for shape in shapes) for spec in specs]


@pytest.mark.parametrize("name", ["llama", "falcon"])
def test_units_are_rows_of_the_fused_matrices(name: str) -> None:
    arch, weights = model(name)
    layer = Layerwise(arch, as_weights(weights)).load(0)
    for unit in sensitivity.units(arch, as_weights(weights), 0):
        values = np.concatenate([weights.values[f"{member}.weight"] for member in unit.members])
        np.testing.assert_array_equal(layer.matrices[unit.fused][unit.start : unit.stop], values)


@pytest.mark.parametrize(
    ("hidden", "specs"),
    [(96, [QuantSpec(4, 32), QuantSpec(8, 32)]), (48, None)],
    ids=["no whole blocks of 64", "no whole blocks of 32: not for choosing"],
)
def test_an_embedding_has_layouts_of_whole_blocks(hidden: int, specs: list[QuantSpec] | None) -> None:
    arch = arch_from(tiny.hf_config(tiny.Config(hidden=hidden)))
    found = measured(arch, RandomWeights(arch))
    assert ("embed" in found) == ("lm_head" in found) == (specs is not None)
    if specs is not None:
        assert [each.choice.spec for each in found["embed"]] == specs


KEPT = {"Q4_0": QuantSpec(4, 32), "Q4_1": QuantSpec(4, 32, "affine"), "Q8_0": QuantSpec(8, 32)}


@pytest.mark.parametrize("stored", KEPT)
def test_blocks_that_can_be_kept_cost_nothing(stored: str, tmp_path: Path) -> None:
    with opened(tiny.write_gguf(tmp_path / "tiny.gguf", tensor_type=stored)) as (arch, weights):
        found = measure(arch, weights, IDS, "round", lambda *_: None)
        for unit, options in found.items():
            kept = [each for each in options if each.choice.method == "keep"]
            if unit.members == ("embed",) and KEPT[stored].affine:  # its operator adds no constants
                assert kept == []
                continue
            (only,) = kept
            shapes = [weights.shape(f"{member}.weight") for member in unit.members]
            assert only.choice.spec == KEPT[stored]
            assert (only.kl, only.bytes) == (0.0, sum(KEPT[stored].bytes_for(*shape) for shape in shapes))
            assert len(options) == 1 + len(END_SPECS if unit.fused in ("embed", "lm_head") else LAYER_SPECS)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_rows_that_pass_in_batches_cost_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, weights = model(name)
    whole = measured(arch, weights)
    monkeypatch.setattr(sensitivity, "_BATCH_TOKENS", 24)
    for unit, options in measured(arch, weights).items():
        assert [each.kl for each in options] == pytest.approx([each.kl for each in whole[unit]], rel=1e-3), unit


def test_progress_counts_layers() -> None:
    arch, weights = model("llama")
    heard: list[tuple[int, int]] = []
    measure(arch, as_weights(weights), IDS, "round", lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]


def test_a_layer_is_read_once_for_all_variants_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    arch, weights = model("llama")
    loads: list[int] = []
    load = Layerwise.load

    def counted(self: Layerwise, i: int) -> Layer:
        loads.append(i)
        return load(self, i)

    monkeypatch.setattr(Layerwise, "load", counted)
    units: dict[Unit, list[Option]] = measure(arch, as_weights(weights), IDS, "round", lambda *_: None)
    assert len(units) == 2 + 2 * 6
    assert loads == [0, 1, 0, 1, 0, 1, 1]  # float pass; with another embedding; variants of layer 0; of layer 1
