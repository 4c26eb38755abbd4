"""GPT-2: learned positions, LayerNorm, plain MLP, biases everywhere, Q|K|V in one matrix stored transposed.

Radford et al. 2019. Tensor names as in transformers' `GPT2LMHeadModel`, with or without "transformer." before them:
the published files are of the bare model.
"""

from edgekit.arch import ModelArch
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors, query_key_value
from export.families.rope import context_of

NAMES = ("GPT-2", "DistilGPT-2", "DialoGPT", "Cerebras-GPT")
CHECKED = "logits against transformers (tiny, with both namings), and numpy at every export"


def _part(name: str, which: str = "", *, transposed: bool = False) -> Part:
    cut = query_key_value(which) if which else None
    return Part((f"transformer.{name}", name), cut, transposed)


TENSORS: Tensors = {
    "embed.weight": _part("wte.weight"),
    "positions.weight": _part("wpe.weight"),
    "layers.{i}.attention_norm.weight": _part("h.{i}.ln_1.weight"),
    "layers.{i}.attention_norm.bias": _part("h.{i}.ln_1.bias"),
    "layers.{i}.q.weight": _part("h.{i}.attn.c_attn.weight", "q", transposed=True),
    "layers.{i}.q.bias": _part("h.{i}.attn.c_attn.bias", "q"),
    "layers.{i}.k.weight": _part("h.{i}.attn.c_attn.weight", "k", transposed=True),
    "layers.{i}.k.bias": _part("h.{i}.attn.c_attn.bias", "k"),
    "layers.{i}.v.weight": _part("h.{i}.attn.c_attn.weight", "v", transposed=True),
    "layers.{i}.v.bias": _part("h.{i}.attn.c_attn.bias", "v"),
    "layers.{i}.o.weight": _part("h.{i}.attn.c_proj.weight", transposed=True),
    "layers.{i}.o.bias": _part("h.{i}.attn.c_proj.bias"),
    "layers.{i}.mlp_norm.weight": _part("h.{i}.ln_2.weight"),
    "layers.{i}.mlp_norm.bias": _part("h.{i}.ln_2.bias"),
    "layers.{i}.up.weight": _part("h.{i}.mlp.c_fc.weight", transposed=True),
    "layers.{i}.up.bias": _part("h.{i}.mlp.c_fc.bias"),
    "layers.{i}.down.weight": _part("h.{i}.mlp.c_proj.weight", transposed=True),
    "layers.{i}.down.bias": _part("h.{i}.mlp.c_proj.bias"),
    "norm.weight": _part("ln_f.weight"),
    "norm.bias": _part("ln_f.bias"),
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset(  # the causal mask, which old files hold
    f"{prefix}h.{{i}}.attn.{name}" for prefix in ("", "transformer.") for name in ("bias", "masked_bias")
)


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    config.only("scale_attn_by_inverse_layer_idx", value=False)
    config.only("add_cross_attention", value=False)
    hidden, heads = config.integer("n_embd", 768), config.count("n_head", 12)
    return ModelArch(
        model_type="gpt2",
        layers=config.integer("n_layer", 12),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate=config.integer("n_inner", 4 * hidden),
        vocab=config.integer("vocab_size"),
        context=context_of(config, "n_positions", 1024),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        rotary=None,
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        tied=config.flag("tie_word_embeddings", default=True),
        norm="layer",
        norm_bias=True,
        gated=False,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        learned_positions=True,
        attention_scale=None if config.flag("scale_attn_weights", default=True) else 1.0,
    )
