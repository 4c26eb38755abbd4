"""Nemotron: LayerNorm that stores gain - 1, partial rotary, and an MLP of two matrices with squared ReLU.

Parmar et al. 2024 ("Nemotron-4 15B"); Minitron prunes it. Tensor names as in transformers' `NemotronForCausalLM`.
"""

from edgekit.arch import ModelArch
from edgekit.errors import UnsupportedCheckpoint
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Nemotron-4", "Minitron-4B", "Minitron-8B", "Nemotron-Mini-4B")
CHECKED = "logits against transformers (tiny), and numpy at every export"

TENSORS: Tensors = {
    "embed.weight": "model.embed_tokens.weight",
    "layers.{i}.attention_norm.weight": Part(("model.layers.{i}.input_layernorm.weight",), plus=1.0),
    "layers.{i}.attention_norm.bias": "model.layers.{i}.input_layernorm.bias",
    "layers.{i}.q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.q.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.k.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.v.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.o.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.o.bias": "model.layers.{i}.self_attn.o_proj.bias",
    "layers.{i}.mlp_norm.weight": Part(("model.layers.{i}.post_attention_layernorm.weight",), plus=1.0),
    "layers.{i}.mlp_norm.bias": "model.layers.{i}.post_attention_layernorm.bias",
    "layers.{i}.up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.up.bias": "model.layers.{i}.mlp.up_proj.bias",
    "layers.{i}.down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.down.bias": "model.layers.{i}.mlp.down_proj.bias",
    "norm.weight": Part(("model.norm.weight",), plus=1.0),
    "norm.bias": "model.norm.bias",
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset({"model.layers.{i}.self_attn.rotary_emb.inv_freq"})


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size", 6144), config.count("num_attention_heads", 48)
    head_dim = config.integer("head_dim", hidden // heads)
    rotary = rotary_of(config, head_dim, partial=0.5)
    if rotary.scaling is not None:  # transformers reads it and computes without it
        raise UnsupportedCheckpoint("rope_scaling is set, which Nemotron models do not have")
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="nemotron",
        layers=config.integer("num_hidden_layers", 32),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size", 24576),
        vocab=config.integer("vocab_size", 256000),
        context=context_of(config, default=4096),
        norm="layer",
        norm_bias=True,
        norm_eps=config.number("norm_eps", 1e-5),
        gated=False,
        rotary=rotary,
        activation=config.choice("hidden_act", ACTIVATIONS, "relu2"),
        tied=config.flag("tie_word_embeddings", default=False),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias", default=False),
    )
