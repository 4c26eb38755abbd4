"""Qwen3: Llama with an RMSNorm over each head of queries and keys, and heads of a width of their own.

Yang et al. 2025. Tensor names as in transformers' `Qwen3ForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.qwen2 import windows
from export.families.rope import context_of, rotary_of

NAMES = ("Qwen3 0.6B to 32B (dense)", "Qwen3 Instruct and Thinking 2507", "DeepSeek-R1-0528-Qwen3")
CHECKED = "logits against transformers (tiny, with and without windows and biases), and numpy at every export"

TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    heads = config.count("num_attention_heads")
    head_dim = config.integer("head_dim", 128)
    bias = config.flag("attention_bias", default=False)
    rotary = rotary_of(config, head_dim)
    local, local_layers = windows(config, rotary)
    return ModelArch(
        model_type="qwen3",
        layers=config.integer("num_hidden_layers"),
        hidden=config.integer("hidden_size"),
        heads=heads,
        kv_heads=heads if config.null("num_key_value_heads") else config.count("num_key_value_heads", 32),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=32768),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary,
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        attention_bias=bias,
        output_bias=bias,
        qk_norm="head",
        local=local,
        local_layers=local_layers,
    )
