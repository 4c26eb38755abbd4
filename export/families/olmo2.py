"""OLMo 2: norms after attention and MLP instead of before, and an RMSNorm over all heads of queries and of keys.

Team OLMo 2024. Tensor names as in transformers' `Olmo2ForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("OLMo 2 1B, 7B, 13B and 32B",)
CHECKED = "logits against transformers (tiny, grouped queries, biases), and numpy at every export"

TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.{i}.attention_post_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp_post_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("attention_bias", default=False)
    return ModelArch(
        model_type="olmo2",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config),
        norm_eps=config.number("rms_norm_eps", 1e-5),
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        tied=config.flag("tie_word_embeddings", default=False),
        norms="post",
        attention_bias=bias,
        output_bias=bias,
        qk_norm="width",
    )
