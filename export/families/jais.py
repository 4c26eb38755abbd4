"""Jais, the Arabic-English models of Inception, Cerebras and MBZUAI: GPT-2 with ALiBi, SwiGLU and muP scales.

Sengupta et al. 2023. The model's code is not in transformers; tensor names and settings are those of the definition
that is published beside its checkpoints (modeling_jais.py).
"""

from edgekit.arch import ModelArch
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors, query_key_value
from export.families.rope import context_of

NAMES = ("Jais 13B and 30B", "Jais family 590M to 30B")
CHECKED = "logits against a torch module written after the published definition (tiny), and numpy at every export"

_AT = "transformer.h.{i}"


def _transposed(name: str) -> Part:
    return Part((f"{name}.weight",), transposed=True)


TENSORS: Tensors = {
    "embed.weight": "transformer.wte.weight",
    "layers.{i}.attention_norm.weight": f"{_AT}.ln_1.weight",
    "layers.{i}.attention_norm.bias": f"{_AT}.ln_1.bias",
    "layers.{i}.q.weight": Part((f"{_AT}.attn.c_attn.weight",), cut=query_key_value("q"), transposed=True),
    "layers.{i}.q.bias": Part((f"{_AT}.attn.c_attn.bias",), cut=query_key_value("q")),
    "layers.{i}.k.weight": Part((f"{_AT}.attn.c_attn.weight",), cut=query_key_value("k"), transposed=True),
    "layers.{i}.k.bias": Part((f"{_AT}.attn.c_attn.bias",), cut=query_key_value("k")),
    "layers.{i}.v.weight": Part((f"{_AT}.attn.c_attn.weight",), cut=query_key_value("v"), transposed=True),
    "layers.{i}.v.bias": Part((f"{_AT}.attn.c_attn.bias",), cut=query_key_value("v")),
    "layers.{i}.o.weight": _transposed(f"{_AT}.attn.c_proj"),
    "layers.{i}.o.bias": f"{_AT}.attn.c_proj.bias",
    "layers.{i}.mlp_norm.weight": f"{_AT}.ln_2.weight",
    "layers.{i}.mlp_norm.bias": f"{_AT}.ln_2.bias",
    "layers.{i}.gate.weight": _transposed(f"{_AT}.mlp.c_fc2"),
    "layers.{i}.gate.bias": f"{_AT}.mlp.c_fc2.bias",
    "layers.{i}.up.weight": _transposed(f"{_AT}.mlp.c_fc"),
    "layers.{i}.up.bias": f"{_AT}.mlp.c_fc.bias",
    "layers.{i}.down.weight": _transposed(f"{_AT}.mlp.c_proj"),
    "layers.{i}.down.bias": f"{_AT}.mlp.c_proj.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset({"transformer.relative_pe.slopes", f"{_AT}.attn.bias", f"{_AT}.attn.masked_bias"})
"""Slopes and causal masks that the original keeps in its files."""


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    config.choice("position_embedding_type", {"alibi": "alibi"}, "learned")
    config.only("alibi_scaling", None)
    config.only("scale_attn_weights", value=True)
    config.only("scale_attn_by_inverse_layer_idx", value=False)
    config.only("add_cross_attention", value=False)
    hidden, heads = config.integer("n_embd", 768), config.count("n_head", 12)
    head_dim = hidden // heads
    # The first models spelt the scales without "mup", and gave the product of the last two.
    by_width = config.flag("scale_qk_dot_by_d", default=config.flag("mup_scale_qk_dot_by_d", default=False))
    output = config.number("mup_output_alpha", 1.0) * config.number("mup_width_scale", 1.0)
    return ModelArch(
        model_type="jais",
        layers=config.integer("n_layer", 12),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=config.integer("n_inner", 4 * hidden),
        vocab=config.integer("vocab_size", 50257),
        context=context_of(config, "n_positions", 1024),
        norm="layer",
        norm_bias=True,
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        rotary=None,
        alibi_scale=1.0,
        activation=config.choice("activation_function", {"swiglu": ACTIVATIONS["silu"]}, "gelu_new"),
        tied=config.flag("tie_word_embeddings", default=True),
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        attention_scale=1 / head_dim if by_width else None,
        embed_scale=config.number("embeddings_scale", config.number("mup_embeddings_scale", 1.0)),
        logit_scale=config.number("width_scale", output),
    )
