"""The numpy reference against transformers, and against what a bundle's bytes mean."""

import json
from pathlib import Path

import numpy as np
import pytest

from export import reference
from export.matrices import BundleMatrices, CheckpointMatrices
from export.quantize.plan import Recipe, plan
from tests import tiny
from tests.export.exports import Decoder, error_of, export_tiny, opened

IDS = [5, 77, 210, 3, 98, 150, 261]


@pytest.mark.reference
@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh"])
def test_it_computes_what_transformers_computes(act: str, tmp_path: Path) -> None:
    from tests.export.torch_llama import TorchLlama

    shape = tiny.Config(attention_bias=True, mlp_bias=True)
    source = tiny.write_hf_folder(tmp_path / "tiny", shape)
    config = {**tiny.hf_config(shape), "hidden_act": act}
    (source / "config.json").write_text(json.dumps(config))
    with opened(source) as (arch, weights):
        found = reference.logits(arch, CheckpointMatrices(arch, weights), IDS)
    assert error_of(found, TorchLlama(config, tiny.weights(shape)).logits(IDS)) <= 1e-5


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("stored", ["F16", "Q4_1"])
def test_over_a_bundle_it_computes_what_onnxruntime_computes(
    stored: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny.write_gguf(tmp_path / "tiny.gguf", tiny.Config(tied=True), tensor_type=stored)
    export_tiny(source, tmp_path / "out", precision)  # type: ignore[arg-type]
    monkeypatch.setattr("export.matrices._PRODUCT_VALUES", 64 * 7)  # matrices in many pieces
    with opened(source) as (arch, weights):
        found = reference.logits(
            arch,
            BundleMatrices(tmp_path / "out", plan(arch, Recipe(precision), weights)),  # type: ignore[arg-type]
            IDS,
        )
    decoder = Decoder(tmp_path / "out", arch, exact=True)
    assert error_of(decoder.step(IDS), found) <= 1e-5
    decoder.reset()
    kept = decoder.step(IDS, logits_to_keep=np.array(2))
    np.testing.assert_allclose(kept, found[-2:], atol=1e-4)
