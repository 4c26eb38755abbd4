import math

import numpy as np
import pytest

from edgekit.arch import RopeScaling, Rotary
from export.graph import rotary

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
CASES = {
    "plain": (None, None),
    "linear": ({"rope_type": "linear", "factor": 4.0}, RopeScaling(kind="linear", factor=4.0)),
    "llama3": (LLAMA3, RopeScaling(kind="llama3", factor=8.0, original_context=256)),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    theirs, ours = CASES[name]
    config = LlamaConfig(  # type: ignore[no-untyped-call]
        hidden_size=256, num_attention_heads=4, rope_theta=5000.0, rope_scaling=theirs, max_position_embeddings=4096
    )
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(2000)[None])
    found = rotary.tables(Rotary(dim=64, base=5000.0, scaling=ours), 2000)
    # Angles of position 2000 in transformers' float32 are right to about 1e-4.
    np.testing.assert_allclose(found[0], cos[0, :, :32].numpy(), atol=3e-4)
    np.testing.assert_allclose(found[1], sin[0, :, :32].numpy(), atol=3e-4)


def test_the_first_pair_turns_by_one_radian_a_token() -> None:
    cos, sin = rotary.tables(Rotary(dim=16, base=10_000.0), 5)
    assert cos.shape == sin.shape == (5, 8)
    np.testing.assert_allclose(cos[:, 0], [math.cos(i) for i in range(5)], rtol=1e-6)
    np.testing.assert_allclose(sin[:, 4], [math.sin(i / 100) for i in range(5)], rtol=1e-6)


def test_linear_scaling_slows_every_pair() -> None:
    plain = rotary.frequencies(Rotary(dim=8, base=100.0))
    scaled = rotary.frequencies(Rotary(dim=8, base=100.0, scaling=RopeScaling(kind="linear", factor=4.0)))
    np.testing.assert_allclose(scaled, plain / 4)


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


def test_a_long_table_is_made_in_pieces_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Rotary(dim=16, base=10_000.0)
    whole = rotary.tables(facts, 50)
    monkeypatch.setattr(rotary, "_POSITIONS", 7)
    np.testing.assert_array_equal(rotary.tables(facts, 50), whole)


def test_table_bytes_are_those_of_the_tables() -> None:
    facts = Rotary(dim=16, base=10_000.0)
    assert rotary.table_bytes(facts, 50) == sum(table.nbytes for table in rotary.tables(facts, 50))
