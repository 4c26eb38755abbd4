"""Command R7B and A: as Command R, but rotary only in layers with a window; every fourth sees all, without positions.

Cohere 2025 ("Command A"). Tensor names as in transformers' `Cohere2ForCausalLM`.
"""

import msgspec

from edgekit.arch import ModelArch, Positions
from export.families import cohere, llama
from export.families.config import Config
from export.families.layer_types import sliding_layers
from export.families.parts import Tensors

NAMES = ("Command R7B", "Command A")
CHECKED = "logits against transformers (tiny, windows shorter than the prompt), and numpy at every export"

TENSORS: Tensors = {ours: theirs for ours, theirs in llama.TENSORS.items() if "mlp_norm" not in ours}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size", 8192), config.count("num_attention_heads", 64)
    plain = cohere.command(config, "cohere2", hidden // heads)
    pattern = config.count("sliding_window_pattern", 4)
    layers = sliding_layers(config, plain.layers, lambda i: (i + 1) % pattern != 0)
    local = Positions(rotary=plain.rotary, window=config.count("sliding_window", 4096)) if layers else None
    return msgspec.structs.replace(plain, rotary=None, local=local, local_layers=layers)
