"""Mistral: Llama whose every layer attends through a window. Jiang et al. 2023.

Later models have no window any more, and heads wider than hidden / heads (Nemo). Tensor names as in transformers'
`MistralForCausalLM`.
"""

from edgekit.arch import ModelArch
from edgekit.errors import UnsupportedCheckpoint
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.layer_types import sliding_layers
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Mistral 7B", "Mistral Nemo", "Mathstral", "Zephyr 7B", "OpenHermes 2.5")
CHECKED = "logits against transformers (tiny, window shorter than the prompt), and numpy at every export"

TENSORS: Tensors = llama.TENSORS
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    layers = config.integer("num_hidden_layers")
    head_dim = config.integer("head_dim", hidden // heads)
    if config.has("layer_types") and len(sliding_layers(config, layers, bool)) not in (0, layers):
        # transformers reads them in another class (Ministral) only, so such a file means two things.
        raise UnsupportedCheckpoint("layer_types mixes windows and full attention, which Mistral models do not have")
    return ModelArch(
        model_type="mistral",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads if config.null("num_key_value_heads") else config.count("num_key_value_heads", 8),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=4096 * 32),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        window=None if config.null("sliding_window") else config.count("sliding_window", 4096),
    )
