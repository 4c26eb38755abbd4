"""Granite: Llama with four multipliers, of embeddings, attention scores, residual branches and logits.

IBM 2024 (the multipliers are those of Yang et al. 2022, maximal update parametrisation). Tensor names as in
transformers' `GraniteForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Granite 3.0 to 3.3 (dense)", "PowerLM 3B")
CHECKED = "logits against transformers (tiny, all multipliers, biases), and numpy at every export"

TENSORS: Tensors = llama.TENSORS
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="granite",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias", default=False),
        attention_scale=config.number("attention_multiplier", 1.0),
        embed_scale=config.number("embedding_multiplier", 1.0),
        residual_scale=config.number("residual_multiplier", 1.0),
        logit_scale=1 / config.number("logits_scaling", 1.0),
    )
