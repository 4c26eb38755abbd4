"""Gemma: Llama with norms that store gain - 1, embeddings times the root of their width, wide heads, tanh GELU.

Gemma Team 2024. Tensor names as in transformers' `GemmaForCausalLM`.
"""

import math

from edgekit.arch import Activation, ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Gemma 2B and 7B", "Gemma 1.1", "CodeGemma")
CHECKED = "logits against transformers (tiny), and numpy at every export"

TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.attention_norm.weight": Part(("model.layers.{i}.input_layernorm.weight",), plus=1.0),
    "layers.{i}.mlp_norm.weight": Part(("model.layers.{i}.post_attention_layernorm.weight",), plus=1.0),
    "norm.weight": Part(("model.norm.weight",), plus=1.0),
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, head_dim = config.integer("hidden_size"), config.integer("head_dim", 256)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="gemma",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=config.count("num_attention_heads"),
        kv_heads=config.count("num_key_value_heads", 16),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=8192),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary_of(config, head_dim),
        activation=_activation(config),
        tied=config.flag("tie_word_embeddings", default=True),
        attention_bias=bias,
        output_bias=bias,
        embed_scale=math.sqrt(hidden),
    )


def _activation(config: Config) -> Activation:
    """The first files said `gelu` and meant the approximation; `hidden_activation` was added to say so."""
    if config.has("hidden_activation"):
        return config.choice("hidden_activation", ACTIVATIONS)
    return config.choice("hidden_act", {**ACTIVATIONS, "gelu": "gelu_tanh"}, "gelu_pytorch_tanh")
