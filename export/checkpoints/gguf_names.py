"""GGUF architectures as data: their metadata keys and tensor names, and what transformers calls them.

Sources: the tables of gguf-py (constants.py, tensor_mapping.py) and llama.cpp's converter. An
architecture is a row; adding one needs no code as long as its differences fit these fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one `general.architecture` reads in transformers' words.

    `constants` go into config.json as they are. `counts` and `numbers` map metadata keys (without the architecture's
    name) to config.json keys; those in `optional` may be absent. `flags` are true if the first layer has that tensor.
    `tensors` maps names; `{i}` is the layer, None means known and not needed. `interleaved` names the tensors whose
    rows the converter moved from half-split to interleaved rotary order, with the config.json key of their head count.
    """

    constants: Mapping[str, object]
    counts: Mapping[str, str]
    numbers: Mapping[str, str]
    optional: frozenset[str]
    flags: Mapping[str, str]
    tensors: Mapping[str, str | None]
    interleaved: Mapping[str, str] = field(default_factory=dict)


LLAMA = Architecture(
    constants={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"},
    counts={
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "context_length": "max_position_embeddings",
        "vocab_size": "vocab_size",
    },
    numbers={"attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta"},
    optional=frozenset({"attention.head_count_kv", "attention.key_length", "vocab_size", "rope.freq_base"}),
    flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
    tensors={
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
        "blk.{i}.attn_norm.weight": "model.layers.{i}.input_layernorm.weight",
        "blk.{i}.attn_q.weight": "model.layers.{i}.self_attn.q_proj.weight",
        "blk.{i}.attn_q.bias": "model.layers.{i}.self_attn.q_proj.bias",
        "blk.{i}.attn_k.weight": "model.layers.{i}.self_attn.k_proj.weight",
        "blk.{i}.attn_k.bias": "model.layers.{i}.self_attn.k_proj.bias",
        "blk.{i}.attn_v.weight": "model.layers.{i}.self_attn.v_proj.weight",
        "blk.{i}.attn_v.bias": "model.layers.{i}.self_attn.v_proj.bias",
        "blk.{i}.attn_output.weight": "model.layers.{i}.self_attn.o_proj.weight",
        "blk.{i}.attn_output.bias": "model.layers.{i}.self_attn.o_proj.bias",
        "blk.{i}.attn_rot_embd": None,
        "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.ffn_gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
        "blk.{i}.ffn_gate.bias": "model.layers.{i}.mlp.gate_proj.bias",
        "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.up_proj.weight",
        "blk.{i}.ffn_up.bias": "model.layers.{i}.mlp.up_proj.bias",
        "blk.{i}.ffn_down.weight": "model.layers.{i}.mlp.down_proj.weight",
        "blk.{i}.ffn_down.bias": "model.layers.{i}.mlp.down_proj.bias",
    },
    interleaved={
        "blk.{i}.attn_q.weight": "num_attention_heads",
        "blk.{i}.attn_q.bias": "num_attention_heads",
        "blk.{i}.attn_k.weight": "num_key_value_heads",
        "blk.{i}.attn_k.bias": "num_key_value_heads",
    },
)

ARCHITECTURES: Mapping[str, Architecture] = {"llama": LLAMA}
"""`general.architecture` -> its row."""
