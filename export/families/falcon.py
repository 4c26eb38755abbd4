"""Falcon: three decoders under one name.

Falcon-7B has attention and MLP side by side behind one LayerNorm and one key/value head; the *new decoder
architecture* (40B, 180B, Falcon2-11B) has grouped key/value heads, and one or two norms; Falcon-RW is sequential,
with biases, and knows positions by ALiBi. Almazrouei et al. 2023. Tensor names as in transformers'
`FalconForCausalLM`.
"""

from edgekit.arch import ModelArch
from edgekit.errors import UnsupportedCheckpoint
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors, grouped_query_key_value
from export.families.rope import context_of, rotary_of

NAMES = ("Falcon-7B", "Falcon-40B", "Falcon-180B", "Falcon-RW-1B", "Falcon-RW-7B", "Falcon2-11B")
CHECKED = "logits against transformers (tiny, all three decoders), and numpy at every export"

_AT = "transformer.h.{i}"
_QKV, _NORMS = f"{_AT}.self_attention.query_key_value", (f"{_AT}.input_layernorm", f"{_AT}.ln_attn")
_MLP_NORMS = (f"{_AT}.post_attention_layernorm", f"{_AT}.ln_mlp")
TENSORS: Tensors = {
    "embed.weight": "transformer.word_embeddings.weight",
    "layers.{i}.attention_norm.weight": Part(tuple(f"{name}.weight" for name in _NORMS)),
    "layers.{i}.attention_norm.bias": Part(tuple(f"{name}.bias" for name in _NORMS)),
    "layers.{i}.q.weight": Part((f"{_QKV}.weight",), cut=grouped_query_key_value("q")),
    "layers.{i}.q.bias": Part((f"{_QKV}.bias",), cut=grouped_query_key_value("q")),
    "layers.{i}.k.weight": Part((f"{_QKV}.weight",), cut=grouped_query_key_value("k")),
    "layers.{i}.k.bias": Part((f"{_QKV}.bias",), cut=grouped_query_key_value("k")),
    "layers.{i}.v.weight": Part((f"{_QKV}.weight",), cut=grouped_query_key_value("v")),
    "layers.{i}.v.bias": Part((f"{_QKV}.bias",), cut=grouped_query_key_value("v")),
    "layers.{i}.o.weight": f"{_AT}.self_attention.dense.weight",
    "layers.{i}.o.bias": f"{_AT}.self_attention.dense.bias",
    "layers.{i}.mlp_norm.weight": Part(tuple(f"{name}.weight" for name in _MLP_NORMS)),
    "layers.{i}.mlp_norm.bias": Part(tuple(f"{name}.bias" for name in _MLP_NORMS)),
    "layers.{i}.up.weight": f"{_AT}.mlp.dense_h_to_4h.weight",
    "layers.{i}.up.bias": f"{_AT}.mlp.dense_h_to_4h.bias",
    "layers.{i}.down.weight": f"{_AT}.mlp.dense_4h_to_h.weight",
    "layers.{i}.down.bias": f"{_AT}.mlp.dense_4h_to_h.bias",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "lm_head.weight": "lm_head.weight",
}
IGNORED = frozenset({f"{_AT}.self_attention.rotary_emb.inv_freq"})


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = (
        config.integer("n_embed", config.integer("hidden_size", 4544)),
        config.count("num_attention_heads", 71),
    )
    head_dim = hidden // heads
    if head_dim * heads != hidden:
        raise UnsupportedCheckpoint(f"hidden_size is {hidden}, which {heads} heads do not divide")
    config.only("apply_residual_connection_post_layernorm", value=False)
    parallel, shared = _block(config)
    alibi, bias = config.flag("alibi", default=False), config.flag("bias", default=False)
    return ModelArch(
        model_type="falcon",
        layers=config.integer("num_hidden_layers", 32),
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_dim=head_dim,
        intermediate=config.integer("ffn_hidden_size", 4 * hidden),
        vocab=config.integer("vocab_size", 65024),
        context=context_of(config),
        norm="layer",
        norm_bias=True,
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        block="parallel" if parallel else "sequential",
        shared_norm=shared,
        gated=False,
        rotary=None if alibi else rotary_of(config, head_dim),
        alibi_scale=head_dim**-0.5 if alibi else None,  # the biases are added before scores are scaled
        alibi_bfloat16=alibi,
        activation=config.choice("activation", ACTIVATIONS, "gelu"),
        tied=config.flag("tie_word_embeddings", default=True),
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
    )


def _block(config: Config) -> tuple[bool, bool]:
    """Whether attention and MLP are side by side, and whether they share a norm. Raises UnsupportedCheckpoint."""
    new = config.flag("new_decoder_architecture", default=False)
    parallel = config.flag("parallel_attn", default=True)
    norms = config.count("num_ln_in_parallel_attn", 2 if new else 1)
    if norms > 2 or (new and not parallel) or (norms == 2 and not new):
        raise UnsupportedCheckpoint(
            f"num_ln_in_parallel_attn {norms} with new_decoder_architecture {new} and parallel_attn {parallel} "
            "is no Falcon decoder"
        )
    return parallel, parallel and norms == 1


def _kv_heads(config: Config, heads: int) -> int:
    if config.flag("new_decoder_architecture", default=False):
        return config.count("num_kv_heads", heads)
    return 1 if config.flag("multi_query", default=True) else heads
