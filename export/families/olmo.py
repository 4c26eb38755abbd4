"""OLMo 1: Llama with LayerNorms that have neither gain nor bias. Groeneveld et al. 2024.

Tensor names as in transformers' `OlmoForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("OLMo 1B and 7B (without clip_qkv)",)
CHECKED = "logits against transformers (tiny, grouped queries, biases), and numpy at every export"

_ONES = Part((), plus=1.0)
TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.attention_norm.weight": _ONES,
    "layers.{i}.mlp_norm.weight": _ONES,
    "norm.weight": _ONES,
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    config.only("clip_qkv", value=None)
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="olmo",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config),
        norm_eps=1e-5,
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        norm="layer",
        attention_bias=bias,
        output_bias=bias,
    )
