"""StarCoder2: grouped-query attention, LayerNorm, plain MLP, biases everywhere, a window in every layer.

Lozhkov et al. 2024. Tensor names as in transformers' `Starcoder2ForCausalLM`.
"""

from edgekit.arch import ModelArch
from export.families import llama
from export.families.config import ACTIVATIONS, Config
from export.families.parts import Tensors
from export.families.rope import context_of, rotary_of

NAMES = ("StarCoder2 3B, 7B and 15B",)
CHECKED = "logits against transformers (tiny, window shorter than the prompt), and numpy at every export"

TENSORS: Tensors = {
    **llama.TENSORS,
    "layers.{i}.attention_norm.bias": "model.layers.{i}.input_layernorm.bias",
    "layers.{i}.mlp_norm.bias": "model.layers.{i}.post_attention_layernorm.bias",
    "layers.{i}.up.weight": "model.layers.{i}.mlp.c_fc.weight",
    "layers.{i}.up.bias": "model.layers.{i}.mlp.c_fc.bias",
    "layers.{i}.down.weight": "model.layers.{i}.mlp.c_proj.weight",
    "layers.{i}.down.bias": "model.layers.{i}.mlp.c_proj.bias",
    "norm.bias": "model.norm.bias",
}
IGNORED = llama.IGNORED


def arch(config: Config) -> ModelArch:
    """Facts from config.json. Raises UnsupportedCheckpoint for settings that cannot be carried."""
    hidden, heads = config.integer("hidden_size"), config.count("num_attention_heads")
    head_dim = config.integer("head_dim", hidden // heads)
    bias = config.flag("use_bias", default=True)
    return ModelArch(
        model_type="starcoder2",
        layers=config.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", 2),
        head_dim=head_dim,
        intermediate=config.integer("intermediate_size"),
        vocab=config.integer("vocab_size"),
        context=context_of(config, default=4096),
        norm_eps=config.number("norm_epsilon", 1e-5),
        rotary=rotary_of(config, head_dim),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
        tied=config.flag("tie_word_embeddings", default=True),
        norm="layer",
        norm_bias=True,
        gated=False,
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        window=config.count("sliding_window") if config.has("sliding_window") else None,
    )
