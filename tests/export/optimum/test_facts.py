"""Sizes are read off the graph where it knows them, and off the configuration where only that does."""

from collections.abc import Mapping

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import UnsupportedCheckpoint
from export.checkpoints import TensorInfo
from export.optimum import facts

CONFIG = {"model_type": "any", "n_embd": 64, "n_head": 4, "n_positions": 128, "vocab_size": 500}
Shape = list[str | int]
CACHE: Shape = ["batch", 2, "past", 16]
CACHES = {f"past_key_values.{layer}.{half}": CACHE for layer in range(3) for half in ("key", "value")}
UNSAID: dict[str, Shape] = {name: ["batch", "heads", "past", 16] for name in CACHES}
TOKENS: dict[str, Shape] = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "total"]}


def graph(inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> onnx.GraphProto:
    def values(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    return helper.make_graph([], "any", values(inputs), values(outputs))


LOGITS: dict[str, Shape] = {"logits": ["batch", "sequence", 320]}
STATES: dict[str, Shape] = {"last_hidden_state": ["batch", "sequence", 64]}


def test_a_decoder_s_sizes_are_those_of_its_graph() -> None:
    arch = facts.decoder_arch(graph(TOKENS | CACHES, LOGITS), CONFIG, 1234)
    assert (arch.layers, arch.kv_heads, arch.head_dim, arch.vocab) == (3, 2, 16, 320)
    assert (arch.hidden, arch.heads, arch.context, arch.intermediate) == (64, 4, 128, 256)
    assert (arch.block, arch.parameters) == ("opaque", 1234)


@pytest.mark.parametrize("key", ["max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"])
def test_the_context_has_many_names(key: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "n_positions"} | {key: 77}
    assert facts.decoder_arch(graph(TOKENS | CACHES, LOGITS), config, 1).context == 77


def test_an_encoder_s_sizes_are_those_of_its_configuration() -> None:
    arch = facts.encoder_arch(graph(TOKENS, STATES), CONFIG | {"n_layer": 6}, 99, max_tokens=48)
    assert (arch.layers, arch.hidden, arch.heads, arch.kv_heads, arch.head_dim) == (6, 64, 4, 4, 16)
    assert (arch.vocab, arch.context, arch.weights) == (500, 48, 99)


def without(values: Mapping[str, Shape], name: str) -> dict[str, Shape]:
    return {key: shape for key, shape in values.items() if key != name}


GRAPHS = {
    "no cache": (graph(TOKENS, LOGITS), "inputs of no cache"),
    "half a layer": (graph(TOKENS | without(CACHES, "past_key_values.1.key"), LOGITS), "past_key_values.0.key"),
    "an unknown input": (graph(TOKENS | CACHES | {"images": CACHE}, LOGITS), "inputs"),
    "layers that differ": (
        graph(TOKENS | CACHES | {"past_key_values.1.key": ["batch", 4, "past", 16]}, LOGITS),
        "different shapes",
    ),
    "a size that is not said": (
        graph(TOKENS | CACHES | UNSAID, LOGITS),
        "does not say the size",
    ),
    "no logits": (graph(TOKENS | CACHES, STATES), "no logits"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_devices_cannot_run_is_refused(name: str) -> None:
    made, words = GRAPHS[name]
    with pytest.raises(UnsupportedCheckpoint, match=words):
        facts.decoder_arch(made, CONFIG, 1)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [(TOKENS | {"pixel_values": CACHE}, STATES, "pixel_values"), (TOKENS, LOGITS, "no states")],
)
def test_what_is_no_text_encoder_is_refused(inputs: dict[str, Shape], outputs: dict[str, Shape], words: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=words):
        facts.encoder_arch(graph(inputs, outputs), CONFIG | {"n_layer": 6}, 1, max_tokens=48)


@pytest.mark.parametrize("key", ["n_embd", "n_head", "n_positions"])
def test_a_configuration_without_a_size_is_refused(key: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != key}
    with pytest.raises(UnsupportedCheckpoint, match=key):
        facts.decoder_arch(graph(TOKENS | CACHES, LOGITS), config, 1)


TENSORS = {"embed": TensorInfo((500, 64), "float32"), "norm": TensorInfo((64,), "float32")}


def test_sizes_that_the_tensors_bear_out_pass() -> None:
    facts.check_sizes(CONFIG | {"n_layer": 2}, TENSORS)


@pytest.mark.parametrize(
    ("key", "value"), [("n_layer", 3), ("n_embd", 501), ("vocab_size", 1 << 40), ("n_inner", 501), ("n_ctx", 1 << 21)]
)
def test_sizes_that_they_do_not_are_refused(key: str, value: int) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=f"{key} = {value}"):
        facts.check_sizes(CONFIG | {key: value}, TENSORS)
