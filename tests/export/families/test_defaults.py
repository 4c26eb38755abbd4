"""What a configuration leaves out is what its class in transformers says, and every spelling of a setting is read."""

import importlib
from collections.abc import Mapping
from typing import Any

import pytest

from edgekit.arch import ModelArch, Positions, RopeScaling, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families import FAMILIES, arch_of
from tests.export.exports import checkpoint

SIZES: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "vocab_size": 50000,
}
"""What files always say; the number of heads suits every family's default number of key heads."""


def arch(config: Mapping[str, object]) -> ModelArch:
    return arch_of(checkpoint(config, {}))


def case(family: str, **changed: object) -> dict[str, object]:
    """The first case of a family, changed; what is changed to `...` is left out."""
    cases = importlib.import_module(f"tests.export.families.cases.{family}").CASES
    settings: dict[str, object] = next(iter(cases.values())) | changed
    return {name: value for name, value in settings.items() if value is not ...}


@pytest.mark.reference
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"jais"}))
def test_defaults_are_those_of_transformers(family: str) -> None:
    """Its own configuration, written out in full, means the same as one that says nothing."""
    import transformers

    special: dict[str, dict[str, Any]] = {"gemma3": {"text_config": SIZES}, "gpt2": {"vocab_size": 50000}}
    said = special.get(family, SIZES)
    full = transformers.AutoConfig.for_model(family, **said).to_dict()
    assert arch({"model_type": family, **said}) == arch(full)


READ: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "mistral: the window of the first models": (case("mistral", sliding_window=...), {"window": 4096}),
    "mistral: null is no window": (case("mistral", sliding_window=None), {"window": None}),
    "mistral: layer types that agree": (case("mistral", layer_types=["sliding_attention"] * 2), {"window": 8}),
    "gemma: the first files mean the approximation": (case("gemma", hidden_act="gelu"), {"activation": "gelu_tanh"}),
    "gemma: a later key wins": (
        case("gemma", hidden_act="gelu_pytorch_tanh", hidden_activation="gelu"),
        {"activation": "gelu"},
    ),
    "gemma2: null is no cap": (
        case("gemma2", attn_logit_softcapping=None, final_logit_softcapping=...),
        {"softcap": None, "logit_softcap": 30.0},
    ),
    "gemma3: as its smallest published files": (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560}},
        {"hidden": 2560, "heads": 8, "kv_heads": 4, "head_dim": 256, "layers": 26, "vocab": 262_208},
    ),
    "gemma3_text: rotary of both kinds of layers, as of transformers 5": (
        case(
            "gemma3_text",
            rope_theta=...,
            rope_local_base_freq=...,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        ),
        {
            "rotary": Rotary(dim=32, base=5e5, scaling=RopeScaling(kind="linear", factor=8.0)),
            "local": Positions(rotary=Rotary(dim=32, base=50.0), window=8),
        },
    ),
    "gpt_neox: rotary as of transformers 5": (
        case("gpt_neox", rotary_pct=..., rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.5}),
        {"rotary": Rotary(dim=8, base=500.0)},
    ),
    "gpt_neox: both spellings": (
        case("gpt_neox", rope_theta=10000.0, rotary_emb_base=10000, partial_rotary_factor=0.25),
        {"rotary": Rotary(dim=4, base=10000.0)},
    ),
    "smollm3: as published": (
        case("smollm3", no_rope_layers=[1, 1, 1, 0], layer_types=["full_attention"] * 4),
        {"local": Positions(), "local_layers": (3,)},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_every_spelling_is_read(name: str) -> None:
    config, expected = READ[name]
    found = arch(config)
    assert {key: getattr(found, key) for key in expected} == expected


NUMBERS = [
    (family, key)
    for family in sorted(set(FAMILIES) - {"gemma3"})
    for key, value in case(family).items()
    if type(value) is int and not key.endswith("_token_id")
]


@pytest.mark.parametrize(("family", "key"), NUMBERS)
def test_a_word_for_a_number_is_named(family: str, key: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=key):
        arch(case(family, **{key: "64"}))
