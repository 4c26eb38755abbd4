"""Llama and its relatives: RMSNorm, rotary over the whole head, grouped-query attention, gated SiLU MLP.

Touvron et al. 2023; tensor names as in transformers' `LlamaForCausalLM`.
"""

from collections.abc import Mapping
from typing import Literal

from edgekit.arch import ModelArch, RopeScaling, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families.config import Config

NAMES = ("Llama 1, 2 and 3", "SmolLM and SmolLM2", "TinyLlama", "Orca 2", "Code Llama", "Vicuna")
CHECKED = "logits and greedy tokens against transformers (tiny and SmolLM2-135M), and numpy at every export"

TENSORS: dict[str, str | None] = {
    "model.embed_tokens.weight": "embed.weight",
    "model.layers.{i}.input_layernorm.weight": "layers.{i}.attention_norm.weight",
    "model.layers.{i}.self_attn.q_proj.weight": "layers.{i}.q.weight",
    "model.layers.{i}.self_attn.q_proj.bias": "layers.{i}.q.bias",
    "model.layers.{i}.self_attn.k_proj.weight": "layers.{i}.k.weight",
    "model.layers.{i}.self_attn.k_proj.bias": "layers.{i}.k.bias",
    "model.layers.{i}.self_attn.v_proj.weight": "layers.{i}.v.weight",
    "model.layers.{i}.self_attn.v_proj.bias": "layers.{i}.v.bias",
    "model.layers.{i}.self_attn.o_proj.weight": "layers.{i}.o.weight",
    "model.layers.{i}.self_attn.o_proj.bias": "layers.{i}.o.bias",
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": None,
    "model.layers.{i}.post_attention_layernorm.weight": "layers.{i}.mlp_norm.weight",
    "model.layers.{i}.mlp.gate_proj.weight": "layers.{i}.gate.weight",
    "model.layers.{i}.mlp.gate_proj.bias": "layers.{i}.gate.bias",
    "model.layers.{i}.mlp.up_proj.weight": "layers.{i}.up.weight",
    "model.layers.{i}.mlp.up_proj.bias": "layers.{i}.up.bias",
    "model.layers.{i}.mlp.down_proj.weight": "layers.{i}.down.weight",
    "model.layers.{i}.mlp.down_proj.bias": "layers.{i}.down.bias",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.weight",
}

MAX_CONTEXT = 1 << 21
"""The graph holds a row of cosines and sines for every position: a bound for what a configuration may ask for."""

_ACTIVATIONS: Mapping[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_SCALINGS: Mapping[str, Literal["default", "linear", "llama3"]] = {
    "default": "default",
    "linear": "linear",
    "llama3": "llama3",
}


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for a rope type or activation we cannot carry."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if heads < 1:
        raise UnsupportedCheckpoint(f"num_attention_heads is {heads}")
    head_dim, context = config.integer("head_dim", hidden // heads), config.integer("max_position_embeddings", 2048)
    if context > MAX_CONTEXT:
        raise UnsupportedCheckpoint(f"max_position_embeddings is {context:,}, more than {MAX_CONTEXT:,}")
    return ModelArch(
        model_type="llama",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context,
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=_rotary(config, head_dim),
        activation=config.choice("hidden_act", _ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        attention_bias=config.flag("attention_bias", default=False),
        mlp_bias=config.flag("mlp_bias", default=False),
    )


def _rotary(config: Config, head_dim: int) -> Rotary:
    """Since transformers 5 everything is in `rope_parameters`; before, `rope_theta` and `rope_scaling` stood apart."""
    section = config.section("rope_parameters") or config.section("rope_scaling")
    for place in (config, section):
        if place is not None and place.number("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedCheckpoint("partial_rotary_factor is not 1, but this family rotates whole heads")
    theta = config if section is None or not section.has("rope_theta") else section
    scaling = None if section is None else _scaling(section)
    return Rotary(dim=head_dim, base=theta.number("rope_theta", 10000.0), scaling=scaling)


def _scaling(section: Config) -> RopeScaling | None:
    absent = None if section.has("factor") else "default"
    kind = section.choice("rope_type" if section.has("rope_type") else "type", _SCALINGS, absent)
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind=kind, factor=section.number("factor"))
    low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
    if low >= high:
        raise UnsupportedCheckpoint(f"low_freq_factor is {low} and high_freq_factor {high}")
    return RopeScaling(
        kind=kind,
        factor=section.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=section.integer("original_max_position_embeddings"),
    )
