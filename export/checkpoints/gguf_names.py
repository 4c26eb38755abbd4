"""The vocabulary of the tables in `gguf_tables`: what a row can say about one `general.architecture`.

Sources of every row: the tables of gguf-py (constants.py, tensor_mapping.py), llama.cpp's converter and what its
graphs assume where a file is silent, and transformers' configuration and modelling code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Change = Literal["rotary q", "rotary k", "one more", "transposed", "qkv by group", "qkv by head", "by head"]
"""What the converter did to a tensor, to be undone by `gguf_views`.

"rotary q", "rotary k"  rows of each head moved from half-split to interleaved rotary order
"one more"              1 added to the weight of a norm
"transposed"            a Conv1D weight, [inputs, outputs] in transformers, turned round
"qkv by group"          queries, keys and values of each key/value head lay together (Falcon)
"qkv by head"           query, key and value of each head lay together (GPT-NeoX)
"by head"               one tensor per head, `{h}` in its name, stacked
"""

Rule = Literal[
    "rope scaling",
    "longrope",
    "partial rotary",
    "windows",
    "query scalar",
    "attention multiplier",
    "falcon",
    "alibi",
    "no rope layers",
    "parallel without second norm",
]
"""Settings that need more than a new name; see `gguf_rules`."""

Names = Mapping[str, str | tuple[str, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one `general.architecture` reads in transformers' words.

    `constants` go into config.json as they are. `counts`, `numbers` and `switches` map metadata keys (without the
    architecture's name) to config.json keys; those in `optional` may be absent, and `defaults` holds what the
    runtime that wrote the format then takes. `flags` are true if the file has that tensor. `rules` add the rest.

    `rotary_key` is config.json's word for the share of a head that is rotated, `window` the attention window if the
    file does not say it; every `window_period`th layer sees everything, the others that window (0: all see it).
    Gemma models of `large_layers` layers scale attention by the width of a head of equal shares.

    `tensors` maps names without `.weight` and `.bias`; `{i}` is the layer. None means known and not needed, several
    names mean that the rows of query, key and value follow each other. `changes` says what to undo.
    """

    constants: Mapping[str, object]
    counts: Mapping[str, str]
    numbers: Mapping[str, str]
    tensors: Names
    optional: frozenset[str] = frozenset()
    defaults: Mapping[str, object] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    changes: Mapping[str, Change] = field(default_factory=dict)
    rotary_key: str = "partial_rotary_factor"
    window: int | None = None
    window_period: int = 0
    large_layers: int = 0


COUNTS: Mapping[str, str] = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
HEAD_DIM: Mapping[str, str] = {"attention.key_length": "head_dim"}
ROPE_BASE: Mapping[str, str] = {"rope.freq_base": "rope_theta"}
OPTIONAL = frozenset({"attention.head_count_kv", "attention.key_length", "vocab_size", "rope.freq_base"})


def names(outer: Mapping[str, str | None], layer: Mapping[str, str | tuple[str, ...] | None], prefix: str) -> Names:
    """A table of `outer` names as they are, and of `layer` names of which every layer has its own."""

    def placed(name: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if name is None or isinstance(name, str):
            return name and prefix + name
        return tuple(prefix + part for part in name)

    return {**outer, **{f"blk.{{i}}.{theirs}": placed(ours) for theirs, ours in layer.items()}}


LAYERS = "model.layers.{i}."
OUTER: Mapping[str, str | None] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "rope_freqs": None,
}
"""Names outside of layers in most models. Tables of rotary factors are settings, not weights: `gguf_rules`."""
QKV: Mapping[str, str | tuple[str, ...] | None] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_rot_embd": None,
}
GATED: Mapping[str, str | tuple[str, ...] | None] = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PRE_NORMS: Mapping[str, str | tuple[str, ...] | None] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
UNROTATED: Mapping[str, Change] = {"blk.{i}.attn_q": "rotary q", "blk.{i}.attn_k": "rotary k"}
"""As the converter writes Llama's queries and keys."""
