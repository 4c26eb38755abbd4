"""GPT-NeoX and Pythia: attention and MLP side by side, each behind a LayerNorm of its own, partial rotary, biases.

Black et al. 2022, Biderman et al. 2023. Q, K and V of a head lie together in one matrix. Tensor names as in
transformers' `GPTNeoXForCausalLM`.
"""

from edgekit.arch import ModelArch, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors, grouped_query_key_value
from export.families.rope import context_of, rotary_of

NAMES = ("Pythia", "GPT-NeoX-20B", "RedPajama-INCITE", "Dolly 2.0", "StableLM-Alpha")
CHECKED = "logits against transformers (tiny, parallel and sequential), and numpy at every export"


def _fused(which: str, kind: str) -> Part:
    return Part((f"gpt_neox.layers.{{i}}.attention.query_key_value.{kind}",), grouped_query_key_value(which))


TENSORS: Tensors = {
    "embed.weight": "gpt_neox.embed_in.weight",
    "layers.{i}.attention_norm.weight": "gpt_neox.layers.{i}.input_layernorm.weight",
    "layers.{i}.attention_norm.bias": "gpt_neox.layers.{i}.input_layernorm.bias",
    "layers.{i}.q.weight": _fused("q", "weight"),
    "layers.{i}.q.bias": _fused("q", "bias"),
    "layers.{i}.k.weight": _fused("k", "weight"),
    "layers.{i}.k.bias": _fused("k", "bias"),
    "layers.{i}.v.weight": _fused("v", "weight"),
    "layers.{i}.v.bias": _fused("v", "bias"),
    "layers.{i}.o.weight": "gpt_neox.layers.{i}.attention.dense.weight",
    "layers.{i}.o.bias": "gpt_neox.layers.{i}.attention.dense.bias",
    "layers.{i}.mlp_norm.weight": "gpt_neox.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp_norm.bias": "gpt_neox.layers.{i}.post_attention_layernorm.bias",
    "layers.{i}.up.weight": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight",
    "layers.{i}.up.bias": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.bias",
    "layers.{i}.down.weight": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight",
    "layers.{i}.down.bias": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.bias",
    "norm.weight": "gpt_neox.final_layer_norm.weight",
    "norm.bias": "gpt_neox.final_layer_norm.bias",
    "lm_head.weight": "embed_out.weight",
}
IGNORED = frozenset(
    f"gpt_neox.layers.{{i}}.attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq")
)


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    bias = config.flag("attention_bias", default=True)
    return ModelArch(
        model_type="gpt_neox",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config),
        norm_eps=config.number("layer_norm_eps", 1e-5),
        rotary=_rotary(config, hidden // heads),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        tied=config.flag("tie_word_embeddings", default=False),
        norm="layer",
        norm_bias=True,
        block="parallel" if config.flag("use_parallel_residual", default=True) else "sequential",
        gated=False,
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=True,
    )


def _rotary(config: Config, head_dim: int) -> Rotary:
    """This family's own names, beside which transformers also writes the common ones."""
    base, share = config.number("rotary_emb_base", 10000.0), config.number("rotary_pct", 0.25)
    rotary = rotary_of(config, head_dim, base=base, partial=share)
    if config.has("rotary_emb_base") and rotary.base != base:
        raise UnsupportedCheckpoint(f"rope_theta is {rotary.base} and rotary_emb_base {base}")
    if config.has("rotary_pct") and rotary.dim != int(head_dim * share):
        raise UnsupportedCheckpoint(f"partial_rotary_factor and rotary_pct ({share}) contradict each other")
    return rotary
