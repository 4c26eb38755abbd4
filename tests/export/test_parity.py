"""The same tiny weights in transformers and in a bundle."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.export.exports import Decoder, error_of, export_tiny

pytestmark = pytest.mark.reference

PROMPT = [5, 77, 210, 3, 98, 150, 261, 12, 12, 44, 300]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES: dict[str, tuple[tiny.Config, dict[str, object]]] = {
    "plain": (tiny.DEFAULT, {}),
    "tied": (tiny.Config(tied=True), {}),
    "biases": (tiny.Config(attention_bias=True, mlp_bias=True), {}),
    "gelu": (tiny.DEFAULT, {"hidden_act": "gelu_pytorch_tanh"}),
    "one head for all keys": (tiny.Config(kv_heads=1), {}),
    "a head for each key": (tiny.Config(kv_heads=4), {}),
    "wide heads": (tiny.Config(head_dim=32), {}),
    "odd width": (tiny.Config(hidden=40, intermediate=72), {}),
    "linear rope": (tiny.Config(linear_rope_factor=3.0), {}),
    "llama3 rope": (tiny.DEFAULT, {"rope_scaling": LLAMA3}),
    "three layers": (tiny.Config(layers=3, rope_theta=500.0, norm_eps=1e-3), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from tests.export.torch_llama import TorchLlama

    shape, changed = CASES[name]
    source = tiny.write_hf_folder(tmp_path / "tiny", shape)
    config = {**tiny.hf_config(shape), **changed}
    (source / "config.json").write_text(json.dumps(config))
    original = TorchLlama(config, tiny.weights(shape))
    decoder = Decoder(tmp_path / "out", export_tiny(source, tmp_path / "out").arch)

    assert error_of(decoder.step(PROMPT), original.logits(PROMPT)) <= 1e-4
    tokens = original.greedy(PROMPT, 16)
    expected = original.logits(PROMPT + tokens)
    for i, token in enumerate(tokens):  # one at a time, over the cache
        assert error_of(decoder.step([token]), expected[len(PROMPT) + i][None]) <= 1e-4
    assert decoder.greedy(PROMPT, 16) == tokens
