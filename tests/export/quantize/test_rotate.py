"""Rotated weights must mean the same model, in the reference, in the graph, and when they are rounded."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.arch import ModelArch
from edgekit.errors import UsageError
from edgekit.manifest import Manifest
from edgekit.quant import Precision, QuantSpec
from export import reference
from export.families import arch_of, shapes
from export.families.weights import Weights
from export.job import ExportJob
from export.layerwise import Layerwise
from export.matrices import CheckpointMatrices
from export.pipeline import export
from export.quantize import codec
from export.quantize.plan import ROTATE_IN, ROTATE_OUT, ROTATIONS, Recipe, Rounding, plan, quantise
from export.quantize.rotate import RotatedWeights, Rotation, applied, hadamard, hartley, obstacle
from tests import tiny
from tests.export.exports import Decoder, checkpoint, error_of, opened
from tests.export.families import parity
from tests.export.families.cases import gemma, granite, llama, mistral, qwen2, qwen3, smollm3
from tests.export.silent import Heard

Floats = NDArray[np.float32]
IDS = [5, 77, 210, 3, 98, 150, 261]
WIDTHS = (16, 48, 64, 96, 576, 960, 2048)
ROTATE = Recipe("int4", rotate=True)
MODELS: Mapping[str, tiny.Config] = {
    "a table of its own for the head": tiny.Config(attention_bias=True, mlp_bias=True),
    "tied": tiny.Config(tied=True, attention_bias=True, mlp_bias=True),
    "width with an odd factor": tiny.Config(tied=True, hidden=96),
}
FAMILIES: Mapping[str, parity.Settings] = {
    "llama": llama.CASES["plain"],
    "llama, tied, biases": llama.CASES["biases, tied"],
    "qwen2, biases": qwen2.CASES["plain"],
    "qwen2, tied": qwen2.CASES["yarn, tied"],
    "qwen3, norms of queries and keys": qwen3.CASES["plain"],
    "qwen3, tied": qwen3.CASES["biases, windows, tied"],
    "granite, scales": granite.CASES["multipliers"],
    "granite, tied": {**granite.CASES["multipliers"], "tie_word_embeddings": True},
    "gemma, gains that are one too small": next(iter(gemma.CASES.values())),
    "mistral": mistral.CASES["window"],
    "smollm3": next(iter(smollm3.CASES.values())),
}
OBSTACLES: Mapping[str, tuple[Mapping[str, object], str]] = {
    "means are subtracted": ({"norm": "layer"}, "subtracts means"),
    "norms with biases": ({"norm_bias": True}, "biases in its norms"),
    "norms after each half": ({"norms": "post"}, "norms between"),
    "norms before and after": ({"norms": "sandwich"}, "norms between"),
    "parallel": ({"block": "parallel"}, "side by side"),
    "learned positions": ({"learned_positions": True}, "learned positions"),
    "width without a power of two": ({"hidden": 40}, "40 wide"),
}


def tiny_arch(**changed: object) -> ModelArch:
    return msgspec.structs.replace(arch_of(checkpoint(tiny.hf_config(), {})), **changed)


def exported(
    source: Path, out: Path, precision: Precision = "fp32", method: Rounding = "rtn", *, rotate: bool = True
) -> Manifest:
    return export(ExportJob(source, out, precision, method=method, rotate=rotate), Heard())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_rotation_is_orthogonal_and_flat(width: int) -> None:
    q = Rotation(width).matrix()
    np.testing.assert_allclose(q.astype(np.float64) @ q.T, np.eye(width), atol=1e-6)
    assert np.abs(q).max() * np.sqrt(width) <= np.sqrt(2) + 1e-5


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_times_a_rotation_are_rows_times_its_matrix(width: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    np.testing.assert_allclose(Rotation(width).of(x), x @ Rotation(width).matrix(), atol=1e-5)


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_a_stream_that_is_the_same_everywhere_is_spread_too(width: int) -> None:
    """Without the signs, all of it would land in one channel."""
    spread = Rotation(width).of(np.ones((1, width), np.float32))
    assert np.abs(spread).max() < np.sqrt(width) / 1.5


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_hadamard_matrices_are_signs(size: int) -> None:
    np.testing.assert_allclose(np.abs(hadamard(size)), 1 / np.sqrt(size), rtol=1e-6)
    np.testing.assert_allclose(hadamard(size) @ hadamard(size).T, np.eye(size), atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5, 9, 125])
def test_hartley_matrices_are_orthogonal_and_symmetric(size: int) -> None:
    np.testing.assert_allclose(hartley(size) @ hartley(size), np.eye(size), atol=1e-5)
    np.testing.assert_allclose(hartley(size), hartley(size).T, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_rotated_weights_are_the_same_model(name: str, tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny", MODELS[name])) as (arch, weights):
        expected = reference.logits(arch, CheckpointMatrices(arch, weights), IDS)
        turned, rotated = applied(arch, weights, ROTATE)
        assert turned.rotated == arch.tied
        assert error_of(reference.logits(turned, CheckpointMatrices(turned, rotated), IDS), expected) <= 1e-5
        (layered,) = Layerwise(turned, rotated).windows([IDS])
        assert error_of(layered, expected) <= 1e-5
        for matrix in ("q", "k", "v", "o", "gate", "up", "down"):
            tensor = f"layers.1.{matrix}.weight"
            assert error_of(rotated.tensor(tensor), weights.tensor(tensor)) > 0.5


@pytest.mark.reference
@pytest.mark.parametrize("name", FAMILIES)
def test_a_rotated_bundle_has_the_logits_of_the_original(name: str, tmp_path: Path) -> None:
    from tests.export.families.originals import Original

    original = Original(FAMILIES[name], tmp_path / "source")
    expected = original.logits([*parity.PROMPT, *parity.FOLLOWING])
    manifest = exported(original.folder, tmp_path / "out")
    assert manifest.arch.rotated == FAMILIES[name].get("tie_word_embeddings", manifest.arch.tied)
    assert manifest.quality["kl"] < 1e-6
    decoder = Decoder(tmp_path / "out", manifest.arch)
    found = [decoder.step(parity.PROMPT), *(decoder.step([token]) for token in parity.FOLLOWING)]
    assert error_of(np.concatenate(found), expected) <= 1e-4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "method"), [("int4", "rtn"), ("int4", "gptq"), ("int8", "rtn")])
def test_a_rotated_model_is_quantised_and_verified(
    name: str, precision: Precision, method: Rounding, tmp_path: Path
) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny", MODELS[name])
    manifest = exported(source, tmp_path / "out", precision, method)
    assert manifest.quality["verification_error"] < 1e-4
    assert manifest.quality["kl"] < (0.05 if precision == "int8" else 2.0)
    spec = {ROTATE_IN: "int4-b32", ROTATE_OUT: "int4-b32"} if MODELS[name].hidden == 96 else {}
    if MODELS[name].tied:
        spec = spec or {ROTATE_IN: "int4-b64", ROTATE_OUT: "int4-b64"}
    assert {each: manifest.quant.weights[each] for each in ROTATIONS if each in manifest.quant.weights} == spec


@pytest.mark.parametrize("tied", [False, True])
def test_layouts_of_a_rotated_model_are_chosen_within_a_budget(*, tied: bool, tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(tied=tied))
    job = ExportJob(source, tmp_path / "out", "int4", rotate=True, size_budget=560_000)
    manifest = export(job, Heard())
    assert manifest.quality["verification_error"] < 1e-4
    assert sum(entry.size for entry in manifest.files if entry.path.startswith("model.onnx")) <= 560_000
    assert (manifest.quant.weights.get(ROTATE_IN) == "int4-b64") == tied


def test_rotation_takes_the_cost_out_of_a_loud_channel(tmp_path: Path) -> None:
    """Weights of one channel twenty times as large coarsen the blocks they are in: half of all weights."""
    values = tiny.weights(tiny.DEFAULT)
    for name in values:
        if name.endswith(("embed_tokens.weight",)):
            values[name][:, 3] /= 20
        elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            values[name][:, 3] *= 20
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            values[name][3] /= 20
    source = tiny.write_hf_folder(tmp_path / "tiny", values=values)
    plain = exported(source, tmp_path / "plain", "int4", rotate=False).quality["kl"]
    assert exported(source, tmp_path / "rotated", "int4").quality["kl"] < plain / 2


@pytest.mark.parametrize("hidden", [64, 96, 48])
def test_the_stored_rotations_are_exact_and_undo_each_other(hidden: int, tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(hidden=hidden, tied=True))) as (arch, weights):
        turned, rotated = applied(arch, weights, ROTATE)
        planned = plan(turned, ROTATE, rotated)
        ahead, back = (codec.dequantise(quantise(planned[name], rotated)) for name in ROTATIONS)
    q = Rotation(hidden).matrix()
    np.testing.assert_allclose(ahead, q.T, atol=1e-6)
    np.testing.assert_allclose(back, q, atol=1e-6)
    np.testing.assert_allclose(ahead @ back, np.eye(hidden), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_whole_tensor(name: str, tmp_path: Path) -> None:
    with opened(tiny.write_hf_folder(tmp_path / "tiny", MODELS[name])) as (arch, weights):
        turned, rotated = applied(arch, weights, ROTATE)
        tensors = [tensor for tensor, _ in shapes(arch)] + [f"{each}.weight" for each in ROTATIONS if turned.rotated]
        for tensor in tensors:
            whole = rotated.tensor(tensor)
            assert whole.shape == rotated.dims(tensor)
            pieces = [rotated.rows(tensor, at, min(at + 7, len(whole))) for at in range(0, len(whole), 7)]
            np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-5, atol=1e-6)


class Counted:
    """A model of one matrix that writes to the stream, and how often it was read."""

    def __init__(self) -> None:
        self.values = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
        self.reads = 0

    def dims(self, _: str) -> tuple[int, ...]:
        return self.values.shape

    def tensor(self, _: str) -> Floats:
        self.reads += 1
        return self.values


def test_a_matrix_that_is_asked_for_row_by_row_is_rotated_once() -> None:
    counted = Counted()
    rotated = RotatedWeights(tiny_arch(), cast(Weights, counted))
    found = [rotated.rows("layers.0.down.weight", at, at + 1) for at in range(64)]
    assert counted.reads == 1
    np.testing.assert_allclose(np.concatenate(found), Rotation(64).matrix().T @ counted.values, atol=1e-5)
    rotated.rows("layers.1.down.weight", 0, 1)
    rotated.rows("layers.0.down.weight", 0, 1)
    assert counted.reads == 3


@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q8_0"])
def test_no_block_of_a_quantised_file_is_kept(stored: str, tmp_path: Path) -> None:
    source = tiny.write_gguf(tmp_path / "tiny.gguf", tiny.Config(tied=True), tensor_type=stored)
    with opened(source) as (arch, weights):
        turned, rotated = applied(arch, weights, ROTATE)
        found = plan(turned, ROTATE, rotated)
        for tensor in ("layers.0.q.weight", "layers.1.down.weight", "embed.weight"):
            assert rotated.blocks(tensor) is None
            assert not rotated.has_blocks(tensor)
            assert rotated.dtype(tensor) == "float32"
    assert {name for name, matrix in found.items() if matrix.method == "keep"} == set(ROTATIONS)
    assert found["layers.0.down"].spec == QuantSpec(4, 32, twin=True)


@pytest.mark.parametrize("name", OBSTACLES)
def test_a_model_that_rotation_would_change_is_refused(name: str) -> None:
    changed, said = OBSTACLES[name]
    arch = tiny_arch(**changed)
    with pytest.raises(UsageError, match=f"--rotate .* llama .*{said}"):
        applied(arch, cast(Weights, None), ROTATE)
    assert obstacle(tiny_arch()) is None


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tiny.write_hf_folder(tmp_path / "tiny", tiny.Config(hidden=40))
    with pytest.raises(UsageError, match="--rotate"):
        exported(source, tmp_path / "made" / "out")
    assert not (tmp_path / "made").exists() or list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("name", OBSTACLES)
def test_without_the_wish_the_model_is_left_as_it_is(name: str) -> None:
    weights = cast(Weights, object())
    arch = tiny_arch(**OBSTACLES[name][0])
    assert applied(arch, weights, Recipe("int4")) == (arch, weights)
