import math

import pytest

from edgekit.arch import RopeScaling, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families import arch_of
from tests import tiny
from tests.export.exports import checkpoint, tiny_checkpoint

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
YARN_READ = RopeScaling(kind="yarn", factor=4.0, attention_factor=0.1 * math.log(4) + 1, original_context=64)


def test_facts_come_from_the_configuration() -> None:
    arch = arch_of(tiny_checkpoint({}, tiny.Config(attention_bias=True)))
    assert (arch.layers, arch.hidden, arch.heads, arch.kv_heads, arch.head_dim) == (2, 64, 4, 2, 16)
    assert (arch.intermediate, arch.vocab, arch.context, arch.norm_eps) == (96, 320, 256, 1e-5)
    assert (arch.activation, arch.tied, arch.attention_bias, arch.mlp_bias) == ("silu", False, True, False)
    assert arch.rotary == Rotary(dim=16, base=10000.0)


def test_what_is_null_takes_the_default_of_transformers() -> None:
    names = ("num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "hidden_act", "rms_norm_eps", "mlp_bias")
    arch = arch_of(tiny_checkpoint(dict.fromkeys(names)))
    assert (arch.kv_heads, arch.head_dim, arch.rotary) == (4, 16, Rotary(dim=16, base=10000.0))
    assert (arch.activation, arch.norm_eps, arch.mlp_bias) == ("silu", 1e-6, False)


@pytest.mark.parametrize(
    ("changed", "scaling", "base"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, RopeScaling(kind="linear", factor=2.0), 10000.0),
        ({"rope_scaling": {"rope_type": "default"}}, None, 10000.0),
        ({"rope_scaling": LLAMA3}, RopeScaling(kind="llama3", factor=32.0), 10000.0),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, None, 5e5),
        ({"rope_theta": None, "rope_parameters": {"rope_theta": 5e5}}, None, 5e5),
        (
            {"rope_theta": None, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
            RopeScaling(kind="llama3", factor=32.0),
            5e5,
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, RopeScaling(kind="linear", factor=2.0), 10000.0),
        ({"rope_scaling": YARN}, YARN_READ, 10000.0),
        ({"rope_theta": None, "rope_parameters": YARN | {"rope_theta": 5e5}}, YARN_READ, 5e5),
    ],
    ids=[
        *("linear", "default", "llama3", "v5 default", "v5 without type", "v5 llama3", "v5 linear, theta apart"),
        *("yarn", "v5 yarn"),
    ],
)
def test_rotary_settings_of_both_spellings(
    changed: dict[str, object], scaling: RopeScaling | None, base: float
) -> None:
    assert arch_of(tiny_checkpoint(changed)).rotary == Rotary(dim=16, base=base, scaling=scaling)


@pytest.mark.parametrize(
    "changed",
    [
        {"partial_rotary_factor": 0.5},
        {"rope_theta": None, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ],
    ids=["apart", "v5"],
)
def test_part_of_a_head_may_be_rotated(changed: dict[str, object]) -> None:
    assert arch_of(tiny_checkpoint(changed)).rotary == Rotary(dim=8, base=10000.0)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"num_key_value_heads": 0}, "num_key_value_heads in its configuration is 0"),
        ({"head_dim": 15}, "rotary.dim is 15"),
        ({"num_hidden_layers": 1 << 40}, "layers is"),
        ({"max_position_embeddings": 1 << 22}, "max_position_embeddings"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rope_theta": "1e4"}, "rope_theta"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"hidden_act": "selu"}, "hidden_act"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_scaling": {"factor": 2.0}}, "lacks type"),
        ({"rope_scaling": {"rope_type": "ntk", "factor": 2.0}}, "rope_type in its configuration is 'ntk'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "lacks factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": 1}}, "truncate"),
        ({"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "low_freq_factor"),
        ({"partial_rotary_factor": 2}, "rotary.dim is 32"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": -0.5}}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "table", "factors": [1.0] * 7}}, "7 rope factors for 8 rotated pairs"),
    ],
)
def test_a_setting_that_cannot_be_carried_is_named(changed: dict[str, object], named: str) -> None:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        arch_of(tiny_checkpoint(changed))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"]
)
def test_what_has_no_default_must_be_there(key: str) -> None:
    config = {name: value for name, value in tiny.hf_config().items() if name != key}
    with pytest.raises(UnsupportedCheckpoint, match=f"lacks {key}"):
        arch_of(checkpoint(config, {}))
