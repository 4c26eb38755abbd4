import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit import contract
from edgekit.arch import RopeScaling, Rotary
from export.families.config import Config
from export.families.rope import rotary_of
from export.graph import rotary
from tests import tiny
from tests.export.exports import export_tiny

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 256}
MSCALES = {"mscale": 0.7, "mscale_all_dim": 0.3}
LONG = {"rope_type": "longrope", "factor": 4.0, "short_factor": [1 + i / 40 for i in range(32)]}
LONG = {**LONG, "long_factor": [1.5 + i for i in range(32)]}
CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "part of a head": {"partial_rotary_factor": 0.5},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "yarn, not truncated": {"rope_scaling": {**YARN, "truncate": False}},
    "yarn, two scales": {"rope_scaling": {**YARN, **MSCALES, "beta_fast": 8.0, "beta_slow": 2.0}},
    "yarn, magnitude given": {"rope_scaling": {**YARN, "attention_factor": 0.75}},
    "longrope": {"rope_scaling": LONG, "original_max_position_embeddings": 1024},
    "longrope, stretched by nothing": {"rope_scaling": LONG, "original_max_position_embeddings": 4096},
    "longrope, magnitude given": {"rope_scaling": {**LONG, "attention_factor": 1.25}},
    "longrope, factor given": {"rope_scaling": LONG},
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = {"rope_theta": 5000.0, "max_position_embeddings": 4096, **CASES[name]}
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, **settings)  # type: ignore[no-untyped-call]
    kind = (config.rope_scaling or {}).get("rope_type", "default")
    found = rotary_of(Config(settings), 64)
    for beyond, length in ((False, None), (True, 5000)) if kind == "longrope" else ((False, None),):
        pace, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
        np.testing.assert_allclose(rotary.frequencies(found, beyond=beyond), pace.numpy(), rtol=2e-6)
        assert rotary.magnitude(found) == pytest.approx(scale)


def test_a_table_of_divisors_slows_each_pair_by_its_own() -> None:
    table = RopeScaling(kind="table", short=(1.0, 2.0, 4.0, 8.0))
    plain = rotary.frequencies(Rotary(dim=8, base=100.0))
    np.testing.assert_allclose(rotary.frequencies(Rotary(dim=8, base=100.0, scaling=table)) * table.short, plain)


def test_llama3_scaling_slows_long_waves_only() -> None:
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
    plain = rotary.frequencies(Rotary(dim=64, base=500_000.0))
    ratio = rotary.frequencies(Rotary(dim=64, base=500_000.0, scaling=scaling)) / plain
    waves = 2 * math.pi / plain
    np.testing.assert_allclose(ratio[waves < 8192 / 4], 1)
    np.testing.assert_allclose(ratio[waves > 8192], 1 / 8)
    between = ratio[(waves > 8192 / 4) & (waves < 8192)]
    assert len(between)
    assert ((between > 1 / 8) & (between < 1)).all()


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_factors_make_the_angles_of_every_position(scale: float) -> None:
    """Also far out, where an angle in float32 would be wrong by a hundredth."""
    pace = rotary.frequencies(Rotary(dim=64, base=10_000.0))
    big_cos, big_sin, cos, sin = rotary.factors(pace, 100_001, scale)
    angles = np.outer(np.arange(100_001), pace)
    cosines = (big_cos * cos - big_sin * sin).reshape(-1, 32)[:100_001]
    sines = (big_sin * cos + big_cos * sin).reshape(-1, 32)[:100_001]
    assert np.abs(cosines - scale * np.cos(angles)).max() <= 1e-6
    assert np.abs(sines - scale * np.sin(angles)).max() <= 1e-6


@pytest.mark.parametrize("positions", [1, 256, 257])
def test_factors_cover_every_position(positions: int) -> None:
    coarse, _, fine, _ = rotary.factors(rotary.frequencies(Rotary(dim=4, base=10.0)), positions, 1.0)
    assert coarse.shape[0] * fine.shape[1] >= positions
    assert coarse.shape[0] == -(-positions // rotary.STEP)


def test_onnxruntime_multiplies_the_factors_out_once_when_it_loads_them(tmp_path: Path) -> None:
    shape = tiny.Config(context=100_000)
    export_tiny(tiny.write_hf_folder(tmp_path / "tiny", shape), tmp_path / "out")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(tmp_path / "out" / contract.MODEL_FILE), options, providers=["CPUExecutionProvider"]
    )
    written = onnx.load(str(tmp_path / "out" / contract.MODEL_FILE), load_external_data=False).graph
    assert sum(output.startswith("rotary.") for node in written.node for output in node.output) == 8
    graph = onnx.load(str(tmp_path / "optimised.onnx"), load_external_data=False).graph
    assert not [node.name for node in graph.node if any(output.startswith("rotary.") for output in node.output)]
    tables = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    attention = next(node for node in graph.node if node.op_type == "GroupQueryAttention")
    assert {tables[name] for name in attention.input[7:9]} == {(100_096, 8)}
