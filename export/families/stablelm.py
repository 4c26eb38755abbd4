"""StableLM: LayerNorm, gated MLP, partial rotary; some with biases of Q, K and V, a parallel block, norms of each head.

Bellagente et al. 2024. Tensor names as in transformers' `StableLmForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Part, Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("StableLM 3B-4E1T", "StableLM Zephyr 3B", "StableLM 2 1.6B and 12B", "Stable Code 3B")
CHECKED = "logits against transformers (tiny, sequential and parallel, head norms), and numpy at every export"

TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.attention_norm.bias": "model.layers.{i}.input_layernorm.bias",
    "layers.{i}.mlp_norm.bias": "model.layers.{i}.post_attention_layernorm.bias",
    "layers.{i}.q_norm.weight": Part(("model.layers.{i}.self_attn.q_layernorm.norms.{h}.weight",), stacked=True),
    "layers.{i}.k_norm.weight": Part(("model.layers.{i}.self_attn.k_layernorm.norms.{h}.weight",), stacked=True),
    "norm.bias": "model.norm.bias",
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    parallel = config.flag("use_parallel_residual", default=False)
    return ModelArch(
        model_type="stablelm",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", 32),
        head_dim=hidden // heads,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=4096),
        norm_eps=config.number("layer_norm_eps", 1e-5),
        rotary=rotary_of(config, hidden // heads, partial=0.25),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        norm="layer",
        norm_bias=True,
        block="parallel" if parallel else "sequential",
        shared_norm=parallel,
        attention_bias=config.flag("use_qkv_bias", default=False),
        qk_norm="each" if config.flag("qk_layernorm", default=False) else None,
    )
