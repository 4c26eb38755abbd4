"""Gemma 3, text only: Gemma 2 without its caps, with norms of queries and keys, and two rotary bases.

Gemma Team 2025. Five of six layers have a window and a small rotary base; the sixth sees everything, with a large
base that may be scaled. Tensor names as in transformers' `Gemma3ForCausalLM`.
"""

import math

from edgekit.arch import ModelArch, Positions, Rotary
from export.families import gemma2
from export.families.config import ACTIVATIONS, Config
from export.families.layer_types import sliding_layers
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Gemma 3 270M and 1B", "MedGemma (text)")
CHECKED = "logits against transformers (tiny, two rotary bases, scaling, windows), and numpy at every export"

TENSORS: Tensors = {
    **gemma2.TENSORS,
    "layers.{i}.q_norm.weight": Part(("model.layers.{i}.self_attn.q_norm.weight",), plus=1.0),
    "layers.{i}.k_norm.weight": Part(("model.layers.{i}.self_attn.k_norm.weight",), plus=1.0),
}
IGNORED = gemma2.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    config.only("use_bidirectional_attention", value=False)  # EmbeddingGemma
    config.only("attn_logit_softcapping", value=None)
    hidden, head_dim = config.integer("hidden_size", 2304), config.integer("head_dim", 256)
    bias = config.flag("attention_bias", default=False)
    layers, pattern = config.integer("num_hidden_layers", 26), config.count("sliding_window_pattern", 6)
    return ModelArch(
        model_type="gemma3_text",
        layers=layers,
        hidden=hidden,
        heads=config.count("num_attention_heads", 8),
        kv_heads=config.count("num_key_value_heads", 4),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size", 9216),
        vocab=config.integer("vocab_size", 262_208),
        context=context_of(config, default=131_072),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary_of(config, head_dim, base=1_000_000.0, layers="full_attention"),
        activation=config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        tied=config.flag("tie_word_embeddings", default=True),
        norms="sandwich",
        attention_bias=bias,
        output_bias=bias,
        qk_norm="head",
        local=Positions(rotary=_local_rotary(config, head_dim), window=config.count("sliding_window", 4096)),
        local_layers=sliding_layers(config, layers, lambda i: (i + 1) % pattern != 0),
        attention_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=math.sqrt(hidden),
        logit_softcap=config.number("final_logit_softcapping") if config.has("final_logit_softcapping") else None,
    )


def _local_rotary(config: Config, head_dim: int) -> Rotary:
    """Of the layers with a window: a base of their own, never scaled unless `rope_parameters` says so."""
    both = config.section("rope_parameters")
    if both is not None and both.has("sliding_attention"):
        return rotary_of(config, head_dim, layers="sliding_attention")
    return Rotary(dim=head_dim, base=config.number("rope_local_base_freq", 10_000.0))
