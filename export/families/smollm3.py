"""SmolLM3: Llama with a layer in four that has no positions (NoPE, Yang et al. 2025); those may have a window.

Hugging Face 2025. Tensor names as in transformers' `SmolLM3ForCausalLM`.
"""

from edgekit.arch import ModelArch, Positions, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.layer_types import sliding_layers
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("SmolLM3 3B",)
CHECKED = "logits against transformers (tiny, NoPE layers with and without windows), and numpy at every export"

TENSORS: Tensors = llama.TENSORS
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("attention_bias", default=False)
    rotary = rotary_of(config, head_dim, base=2_000_000.0)
    everywhere, local, local_layers = _positions(config, rotary)
    return ModelArch(
        model_type="smollm3",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads if config.null("num_key_value_heads") else config.count("num_key_value_heads", 4),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=32768),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        rotary=everywhere.rotary,
        window=everywhere.window,
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=True),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias", default=False),
        local=local,
        local_layers=local_layers,
    )


def _positions(config: Config, rotary: Rotary) -> tuple[Positions, Positions | None, tuple[int, ...]]:
    """Of layers like the first one, of the other kind of layers, and which these are.

    `no_rope_layers` has 1 for a layer *with* rotary and 0 for one without.
    """
    used = config.flag("use_sliding_window", default=False) and config.has("sliding_window")
    every = config.count("no_rope_layer_interval", 4)
    given = config.integers("no_rope_layers")
    layers = config.integer("num_hidden_layers")
    if given is not None and len(given) != layers:
        raise UnsupportedCheckpoint(f"no_rope_layers names {len(given)} layers, and num_hidden_layers is {layers}")

    def turns(i: int) -> bool:
        return (i + 1) % every != 0 if given is None else given[i] != 0

    sliding = set(sliding_layers(config, layers, lambda i: used and not turns(i)))
    if sliding and not used:
        raise UnsupportedCheckpoint("layer_types asks for windows, and use_sliding_window is off")
    window = config.count("sliding_window") if used else None
    kinds = [
        Positions(rotary=rotary if turns(i) else None, window=window if i in sliding else None) for i in range(layers)
    ]
    first = kinds[0] if kinds else Positions(rotary=rotary)
    others = tuple(i for i, kind in enumerate(kinds) if kind != first)
    if not others:
        return first, None, ()
    second = kinds[others[0]]
    if any(kinds[i] != second for i in others):
        raise UnsupportedCheckpoint("no_rope_layers and layer_types make more than two kinds of layers")
    return first, second, others
