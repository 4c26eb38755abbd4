"""Qwen2 and Qwen2.5: Llama with biases of queries, keys and values, and windows in the upper layers if switched on.

Yang et al. 2024. Tensor names as in transformers' `Qwen2ForCausalLM`.
"""

from edgekit.arch import ModelArch, Positions, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.layer_types import sliding_layers
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Qwen1.5", "Qwen2", "Qwen2.5", "Qwen2.5-Coder", "Qwen2.5-Math", "DeepSeek-R1-Distill-Qwen")
CHECKED = "logits against transformers (tiny, with and without windows), and numpy at every export"

TENSORS: Tensors = llama.TENSORS
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    rotary = rotary_of(config, head_dim)
    local, local_layers = windows(config, rotary)
    return ModelArch(
        model_type="qwen2",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
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
        attention_bias=True,
        local=local,
        local_layers=local_layers,
    )


def windows(config: Config, rotary: Rotary) -> tuple[Positions | None, tuple[int, ...]]:
    """Positions of the layers with a window, and which these are.

    Without `layer_types`, those from `max_window_layers` on; none unless `use_sliding_window`.
    """
    used = config.flag("use_sliding_window", default=False) and not config.null("sliding_window")
    first = config.integer("max_window_layers", 28)
    layers = sliding_layers(config, config.integer("num_hidden_layers"), lambda i: used and i >= first)
    if not layers:
        return None, ()
    if not used:
        raise UnsupportedCheckpoint("layer_types asks for windows, and use_sliding_window is off")
    return Positions(rotary=rotary, window=config.count("sliding_window", 4096)), layers
