"""Gemma 2: Gemma with norms before and after each half, capped scores and logits, a window in every second layer.

Gemma Team 2024. Tensor names as in transformers' `Gemma2ForCausalLM`.
"""

import math

from edgekit.arch import ModelArch, Positions
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.layer_types import sliding_layers
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Gemma 2 2B, 9B and 27B",)
CHECKED = "logits against transformers (tiny, caps that bite, alternating windows), and numpy at every export"


def _norm(name: str) -> Part:
    return Part((f"model.{name}.weight",), plus=1.0)


TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.attention_norm.weight": _norm("layers.{i}.input_layernorm"),
    "layers.{i}.attention_post_norm.weight": _norm("layers.{i}.post_attention_layernorm"),
    "layers.{i}.mlp_norm.weight": _norm("layers.{i}.pre_feedforward_layernorm"),
    "layers.{i}.mlp_post_norm.weight": _norm("layers.{i}.post_feedforward_layernorm"),
    "norm.weight": _norm("norm"),
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, head_dim = config.integer("hidden_size"), config.integer("head_dim", 256)
    bias = config.flag("attention_bias", default=False)
    layers, rotary = config.integer("num_hidden_layers"), rotary_of(config, head_dim)
    return ModelArch(
        model_type="gemma2",
        layers=layers,
        hidden=hidden,
        heads=config.count("num_attention_heads"),
        kv_heads=config.count("num_key_value_heads", 4),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=8192),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary,
        activation=config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        tied=config.flag("tie_word_embeddings", default=True),
        norms="sandwich",
        attention_bias=bias,
        output_bias=bias,
        local=Positions(rotary=rotary, window=config.count("sliding_window", 4096)),
        local_layers=sliding_layers(config, layers, lambda i: i % 2 == 0),
        softcap=_cap(config, "attn_logit_softcapping", 50.0),
        attention_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=math.sqrt(hidden),
        logit_softcap=_cap(config, "final_logit_softcapping", 30.0),
    )


def _cap(config: Config, key: str, default: float) -> float | None:
    return None if config.null(key) else config.number(key, default)
