"""Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side behind one LayerNorm, partial rotary, biases everywhere.

Li et al. 2023 ("Textbooks Are All You Need"). Tensor names as in transformers' `PhiForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Phi-1", "Phi-1.5", "Phi-2")
CHECKED = "logits against transformers (tiny, with and without norms of queries and keys), and numpy at every export"

TENSORS: Tensors = {
    "embed.weight": "model.embed_tokens.weight",
    "layers.{i}.attention_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.attention_norm.bias": "model.layers.{i}.input_layernorm.bias",
    "layers.{i}.q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.q.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.k.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.v.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.q_norm.weight": "model.layers.{i}.self_attn.q_layernorm.weight",
    "layers.{i}.q_norm.bias": "model.layers.{i}.self_attn.q_layernorm.bias",
    "layers.{i}.k_norm.weight": "model.layers.{i}.self_attn.k_layernorm.weight",
    "layers.{i}.k_norm.bias": "model.layers.{i}.self_attn.k_layernorm.bias",
    "layers.{i}.o.weight": "model.layers.{i}.self_attn.dense.weight",
    "layers.{i}.o.bias": "model.layers.{i}.self_attn.dense.bias",
    "layers.{i}.up.weight": "model.layers.{i}.mlp.fc1.weight",
    "layers.{i}.up.bias": "model.layers.{i}.mlp.fc1.bias",
    "layers.{i}.down.weight": "model.layers.{i}.mlp.fc2.weight",
    "layers.{i}.down.bias": "model.layers.{i}.mlp.fc2.bias",
    "norm.weight": "model.final_layernorm.weight",
    "norm.bias": "model.final_layernorm.bias",
    "lm_head.weight": "lm_head.weight",
    "lm_head.bias": "lm_head.bias",
}
IGNORED = frozenset({"model.layers.{i}.self_attn.rotary_emb.inv_freq"})


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size", 2048), config.count("num_attention_heads", 32)
    head_dim = config.integer("head_dim", hidden // heads)
    qk_norm = config.flag("qk_layernorm", default=False)
    return ModelArch(
        model_type="phi",
        layers=config.integer("num_hidden_layers", 24),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size", 8192),
        vocab=config.integer("vocab_size", 51200),
        context=context_of(config),
        norm="layer",
        norm_bias=True,
        norm_eps=config.number("layer_norm_eps", 1e-5),
        block="parallel",
        shared_norm=True,
        gated=False,
        rotary=rotary_of(config, head_dim, partial=0.5),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu_new"),
        tied=config.flag("tie_word_embeddings", default=False),
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        qk_norm="head" if qk_norm else None,
        qk_norm_bias=qk_norm,
    )
