"""Command R: attention and MLP side by side behind one LayerNorm without bias, and rotary pairs of neighbours.

Logits are scaled; Command R+ normalises queries and keys with a gain of its own for each head. Cohere 2024. Tensor
names as in transformers' `CohereForCausalLM`.
"""

import msgspec

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Command R", "Command R+", "Aya 23", "Aya Expanse 8B and 32B")
CHECKED = "logits against transformers (tiny, with and without norms of queries and keys), and numpy at every export"

TENSORS: Tensors = {
    **{ours: theirs for ours, theirs in llama.TENSORS.items() if "mlp_norm" not in ours},
    "layers.{i}.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size", 8192), config.count("num_attention_heads", 64)
    plain = command(config, "cohere", config.integer("head_dim", hidden // heads))
    return msgspec.structs.replace(plain, qk_norm="each" if config.flag("use_qk_norm", default=False) else None)


def command(config: Config, model_type: str, head_dim: int) -> ModelArch:
    """What both generations share. Raises as `arch` does."""
    heads = config.count("num_attention_heads", 64)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type=model_type,
        layers=config.integer("num_hidden_layers", 40),
        hidden=config.integer("hidden_size", 8192),
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size", 22528),
        vocab=config.integer("vocab_size", 256000),
        context=context_of(config, default=8192),
        norm="layer",
        norm_eps=config.number("layer_norm_eps", 1e-5),
        block="parallel",
        shared_norm=True,
        rotary=rotary_of(config, head_dim, interleaved=True),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=True),
        attention_bias=bias,
        output_bias=bias,
        logit_scale=config.number("logit_scale", 0.0625),
    )
