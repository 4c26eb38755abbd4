import numpy as np
import pytest

from edgekit.errors import (
    EdgekitError,
    MissingTensor,
    ShapeMismatch,
    UnexpectedTensor,
    UnknownFamily,
    UnsupportedCheckpoint,
)
from export.families import FAMILIES, arch_of, of, shapes
from export.families.weights import CheckpointWeights, Weights
from tests import tiny
from tests.export.exports import Values, checkpoint

ALL = tiny.Config(attention_bias=True, mlp_bias=True)
ONE = np.zeros(1, np.float32)
Q = "model.layers.1.self_attn.q_proj"


def weights_of(tensors: Values, config: tiny.Config = tiny.DEFAULT) -> Weights:
    made = checkpoint(tiny.hf_config(config), tensors)
    return CheckpointWeights(made, arch_of(made))


@pytest.mark.parametrize("model_type", ["mamba", None, 4])
def test_an_unknown_architecture_is_told_which_ones_are_known(model_type: object) -> None:
    with pytest.raises(UnknownFamily) as caught:
        of({"model_type": model_type})
    assert str(model_type) in str(caught.value)
    assert ", ".join(sorted(FAMILIES)) in str(caught.value)


@pytest.mark.parametrize("model_type", ["mixtral", "llama"])
@pytest.mark.parametrize("key", ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"])
def test_a_mixture_of_experts_is_refused_as_one(model_type: str, key: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=f"a mixture of experts .{key} is 8"):
        of({"model_type": model_type, key: 8})


def test_one_expert_is_no_mixture() -> None:
    assert of({"model_type": "llama", "num_experts": 1, "num_local_experts": None}).model_type == "llama"


def test_every_family_says_what_it_covers() -> None:
    for model_type, family in FAMILIES.items():
        assert family.model_type == model_type
        assert family.names
        assert family.checked


@pytest.mark.parametrize("config", [tiny.DEFAULT, ALL, tiny.Config(tied=True)], ids=["plain", "biases", "tied"])
def test_every_tensor_is_found_by_our_name(config: tiny.Config) -> None:
    tensors = tiny.weights(config)
    weights = weights_of(tensors, config)
    ours = dict(shapes(arch_of(checkpoint(tiny.hf_config(config), tensors))))
    assert len(ours) == len(tensors)
    for name, shape in ours.items():
        assert weights.tensor(name).shape == shape
    np.testing.assert_array_equal(
        weights.tensor("layers.1.gate.weight"), tensors["model.layers.1.mlp.gate_proj.weight"]
    )
    np.testing.assert_array_equal(
        weights.tensor("layers.0.mlp_norm.weight"), tensors["model.layers.0.post_attention_layernorm.weight"]
    )


@pytest.mark.parametrize("name", sorted(tiny.weights(ALL)))
def test_a_missing_tensor_is_named_as_its_owner_knows_it(name: str) -> None:
    with pytest.raises(MissingTensor, match=name.replace(".", r"\.")):
        weights_of({key: value for key, value in tiny.weights(ALL).items() if key != name}, ALL)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.00.input_layernorm.weight",
        f"model.layers.{'9' * 5000}.input_layernorm.weight",
        "model.layers.\u0661.input_layernorm.weight",
        f"{Q}.bias",
        "score.weight",
    ],
    ids=["unknown", "layer too many", "zero twice", "absurd number", "another alphabet's digit", "bias", "other head"],
)
def test_a_tensor_that_the_architecture_lacks_is_named(name: str) -> None:
    with pytest.raises(UnexpectedTensor) as caught:
        weights_of(tiny.weights() | {name: np.zeros(64, np.float32)})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [(f"{Q}.weight", (32, 64)), ("model.embed_tokens.weight", (319, 64)), ("model.norm.weight", (1,))],
)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(name: str, found: tuple[int, ...]) -> None:
    expected = list(tiny.weights()[name].shape)
    with pytest.raises(ShapeMismatch) as caught:
        weights_of(tiny.weights() | {name: np.zeros(found, np.float32)})
    assert all(text in str(caught.value) for text in (name, str(list(found)), str(expected)))


def test_a_tied_model_may_repeat_its_embedding_as_a_head() -> None:
    tied = tiny.Config(tied=True)
    weights = weights_of(tiny.weights(tied) | {"lm_head.weight": ONE}, tied)
    assert weights.tensor("embed.weight").shape == (320, 64)


def test_old_files_may_hold_rotary_frequencies() -> None:
    weights_of(tiny.weights() | {"model.layers.0.self_attn.rotary_emb.inv_freq": ONE})


def test_a_configuration_with_absurdly_many_layers_fails_at_once() -> None:
    config = tiny.hf_config() | {"num_hidden_layers": (1 << 24) - 1}
    made = checkpoint(config, tiny.weights())
    arch = arch_of(made)
    with pytest.raises(EdgekitError, match=r"layers\.2\."):
        CheckpointWeights(made, arch)
