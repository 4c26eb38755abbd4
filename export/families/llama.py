"""Llama and its relatives: RMSNorm, rotary over the whole head, grouped-query attention, gated SiLU MLP.

Touvron et al. 2023; tensor names as in transformers' `LlamaForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("Llama 1, 2 and 3", "SmolLM and SmolLM2", "TinyLlama", "Orca 2", "Code Llama", "Vicuna")
CHECKED = "logits and greedy tokens against transformers (tiny and SmolLM2-135M), and numpy at every export"

TENSORS: Tensors = {
    "embed.weight": "model.embed_tokens.weight",
    "layers.{i}.attention_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.q.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.k.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.v.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.o.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.o.bias": "model.layers.{i}.self_attn.o_proj.bias",
    "layers.{i}.mlp_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.{i}.gate.bias": "model.layers.{i}.mlp.gate_proj.bias",
    "layers.{i}.up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.up.bias": "model.layers.{i}.mlp.up_proj.bias",
    "layers.{i}.down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.down.bias": "model.layers.{i}.mlp.down_proj.bias",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset({"model.layers.{i}.self_attn.rotary_emb.inv_freq"})


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for a rope type or activation we cannot carry."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="llama",
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
    )
