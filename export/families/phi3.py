"""Phi-3, Phi-3.5 and Phi-4: Llama with fused projections and longrope.

Abdin et al. 2024; longrope by Ding et al. 2024. Tensor names as in transformers' `Phi3ForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors, half, query_key_value
from export.families.rope import context_of, rotary_of

NAMES = ("Phi-3-mini", "Phi-3-medium", "Phi-3.5-mini", "Phi-4", "Phi-4-mini")
CHECKED = "logits against transformers (tiny; longrope on both sides of its limit, windows), and numpy at every export"

_QKV = "model.layers.{i}.self_attn.qkv_proj.weight"
_GATE_UP = "model.layers.{i}.mlp.gate_up_proj.weight"
TENSORS: Tensors = {
    "embed.weight": "model.embed_tokens.weight",
    "layers.{i}.attention_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.q.weight": Part((_QKV,), cut=query_key_value("q")),
    "layers.{i}.k.weight": Part((_QKV,), cut=query_key_value("k")),
    "layers.{i}.v.weight": Part((_QKV,), cut=query_key_value("v")),
    "layers.{i}.o.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.mlp_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.gate.weight": Part((_GATE_UP,), cut=half("gate")),
    "layers.{i}.up.weight": Part((_GATE_UP,), cut=half("up")),
    "layers.{i}.down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset({"model.layers.{i}.self_attn.rotary_emb.inv_freq"})


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    # What equals a default is missing from files that transformers wrote, and longrope is computed from these two.
    config = config.or_else({"max_position_embeddings": 4096, "original_max_position_embeddings": 4096})
    hidden, heads = config.integer("hidden_size", 3072), config.count("num_attention_heads", 32)
    head_dim = config.integer("head_dim", hidden // heads)
    return ModelArch(
        model_type="phi3",
        layers=config.integer("num_hidden_layers", 32),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size", 8192),
        vocab=config.integer("vocab_size", 32064),
        context=context_of(config),
        norm_eps=config.number("rms_norm_eps", 1e-5),
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        window=config.count("sliding_window") if config.has("sliding_window") else None,
    )
