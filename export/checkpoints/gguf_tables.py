"""GGUF architectures as data; adding one is a row, as long as its differences fit the fields of `Architecture`."""

from collections.abc import Mapping
from dataclasses import replace

from export.checkpoints.gguf_names import (
    COUNTS,
    GATED,
    HEAD_DIM,
    LAYERS,
    OPTIONAL,
    OUTER,
    PRE_NORMS,
    QKV,
    ROPE_BASE,
    UNROTATED,
    Architecture,
    names,
)

_RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps", **ROPE_BASE}
_ATTENTION = {**QKV, "attn_output": "self_attn.o_proj"}
_LLAMA_NAMES = names(OUTER, {**PRE_NORMS, **_ATTENTION, **GATED}, LAYERS)

LLAMA = Architecture(
    constants={"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"},
    counts={**COUNTS, **HEAD_DIM},
    numbers=_RMS,
    optional=OPTIONAL,
    flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
    rules=("rope scaling",),
    tensors=_LLAMA_NAMES,
    changes=UNROTATED,
)
GRANITE = replace(
    LLAMA,
    constants={"model_type": "granite", "architectures": ["GraniteForCausalLM"], "hidden_act": "silu"},
    numbers={
        **_RMS,
        "embedding_scale": "embedding_multiplier",
        "attention.scale": "attention_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    },
    optional=OPTIONAL | {"embedding_scale", "attention.scale", "residual_scale", "logit_scale"},
    defaults={"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0},
    rules=("rope scaling", "attention multiplier"),
)
SMOLLM3 = replace(
    LLAMA,
    constants={"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "hidden_act": "silu"},
    rules=("rope scaling", "no rope layers"),
)
QWEN2 = Architecture(
    constants={
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "use_sliding_window": False,
    },
    counts=COUNTS,
    numbers=_RMS,
    optional=OPTIONAL,
    rules=("rope scaling",),
    tensors=_LLAMA_NAMES,
)
QWEN3 = replace(
    QWEN2,
    constants={**QWEN2.constants, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
    counts={**COUNTS, **HEAD_DIM},
    flags={"attention_bias": "blk.0.attn_q.bias"},
    tensors={
        **_LLAMA_NAMES,
        "blk.{i}.attn_q_norm": LAYERS + "self_attn.q_norm",
        "blk.{i}.attn_k_norm": LAYERS + "self_attn.k_norm",
    },
)
OLMO2 = Architecture(
    constants={"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "hidden_act": "silu"},
    counts=COUNTS,
    numbers=_RMS,
    optional=OPTIONAL,
    flags={"attention_bias": "blk.0.attn_q.bias"},
    rules=("rope scaling",),
    tensors=names(
        OUTER,
        {
            **_ATTENTION,
            **GATED,
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        LAYERS,
    ),
)

_GEMMA_ACTIVATION = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
_SANDWICH = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GEMMA = Architecture(
    constants={"model_type": "gemma", "architectures": ["GemmaForCausalLM"], **_GEMMA_ACTIVATION},
    counts={**COUNTS, **HEAD_DIM},
    numbers=_RMS,
    optional=OPTIONAL,
    rules=("rope scaling",),
    tensors=_LLAMA_NAMES,
    changes={"output_norm": "one more", "blk.{i}.attn_norm": "one more", "blk.{i}.ffn_norm": "one more"},
)
GEMMA2 = Architecture(
    constants={"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], **_GEMMA_ACTIVATION},
    counts={**COUNTS, **HEAD_DIM},
    numbers={
        **_RMS,
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    optional=OPTIONAL | {"attn_logit_softcapping", "final_logit_softcapping"},
    defaults={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    rules=("rope scaling", "windows", "query scalar"),
    tensors=names(OUTER, {**_SANDWICH, **_ATTENTION, **GATED}, LAYERS),
    changes={"output_norm": "one more", **{f"blk.{{i}}.{norm}": "one more" for norm in _SANDWICH}},
    window=4096,
    window_period=2,
    large_layers=46,
)
GEMMA3 = Architecture(
    constants={"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], **_GEMMA_ACTIVATION},
    counts={**COUNTS, **HEAD_DIM},
    numbers={
        **_RMS,
        "rope.freq_base_swa": "rope_local_base_freq",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    optional=OPTIONAL | {"rope.freq_base_swa", "final_logit_softcapping"},
    defaults={"rope_local_base_freq": 10000.0, "final_logit_softcapping": None, "attn_logit_softcapping": None},
    rules=("rope scaling", "windows", "query scalar"),
    tensors=names(
        OUTER,
        {
            **_SANDWICH,
            **_ATTENTION,
            **GATED,
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
        },
        LAYERS,
    ),
    changes={
        "output_norm": "one more",
        **{f"blk.{{i}}.{norm}": "one more" for norm in (*_SANDWICH, "attn_q_norm", "attn_k_norm")},
    },
    window_period=6,
    large_layers=62,
)

_LAYER_NORM = {"attention.layer_norm_epsilon": "layer_norm_eps", **ROPE_BASE}
PHI2 = Architecture(
    constants={"model_type": "phi", "architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new"},
    counts=COUNTS,
    numbers=_LAYER_NORM,
    optional=OPTIONAL,
    rules=("rope scaling", "partial rotary"),
    tensors=names(
        {**OUTER, "output_norm": "model.final_layernorm"},
        {
            **QKV,
            "attn_norm": "input_layernorm",
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        LAYERS,
    ),
)
PHI3 = Architecture(
    constants={"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_act": "silu"},
    counts={**COUNTS, "rope.scaling.original_context_length": "original_max_position_embeddings"},
    numbers=_RMS,
    optional=OPTIONAL | {"rope.scaling.original_context_length"},
    rules=("longrope", "partial rotary", "windows"),
    tensors=names(
        {**OUTER, "rope_factors_long": None, "rope_factors_short": None},
        {
            **PRE_NORMS,
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        LAYERS,
    ),
)
NEMOTRON = Architecture(
    constants={"model_type": "nemotron", "architectures": ["NemotronForCausalLM"], "hidden_act": "relu2"},
    counts={**COUNTS, **HEAD_DIM},
    numbers={"attention.layer_norm_epsilon": "norm_eps", **ROPE_BASE},
    optional=OPTIONAL,
    flags={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
    rules=("rope scaling", "partial rotary"),
    tensors=names(OUTER, {**PRE_NORMS, **_ATTENTION, "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}, LAYERS),
    changes={"output_norm": "one more", "blk.{i}.attn_norm": "one more", "blk.{i}.ffn_norm": "one more"},
)
COMMAND_R = Architecture(
    constants={"model_type": "cohere", "architectures": ["CohereForCausalLM"], "hidden_act": "silu"},
    counts=COUNTS,
    numbers={**_LAYER_NORM, "logit_scale": "logit_scale"},
    optional=OPTIONAL | {"logit_scale"},
    defaults={"logit_scale": 1.0},
    flags={"attention_bias": "blk.0.attn_q.bias", "use_qk_norm": "blk.0.attn_q_norm.weight"},
    rules=("rope scaling",),
    tensors=names(
        OUTER,
        {
            **_ATTENTION,
            **GATED,
            "attn_norm": "input_layernorm",
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
        },
        LAYERS,
    ),
)
COHERE2 = Architecture(
    constants={"model_type": "cohere2", "architectures": ["Cohere2ForCausalLM"], "hidden_act": "silu"},
    counts={**COUNTS, **HEAD_DIM},
    numbers={**_LAYER_NORM, "logit_scale": "logit_scale"},
    optional=OPTIONAL,
    flags={"attention_bias": "blk.0.attn_q.bias"},
    rules=("rope scaling", "windows"),
    tensors=names(OUTER, {**_ATTENTION, **GATED, "attn_norm": "input_layernorm"}, LAYERS),
    window_period=4,
)
STARCODER2 = Architecture(
    constants={
        "model_type": "starcoder2",
        "architectures": ["Starcoder2ForCausalLM"],
        "hidden_act": "gelu_pytorch_tanh",
    },
    counts=COUNTS,
    numbers={"attention.layer_norm_epsilon": "norm_epsilon", **ROPE_BASE},
    optional=OPTIONAL,
    flags={"use_bias": "blk.0.attn_q.bias"},
    rules=("rope scaling",),
    tensors=names(OUTER, {**PRE_NORMS, **_ATTENTION, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}, LAYERS),
)
STABLELM = Architecture(
    constants={"model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "hidden_act": "silu"},
    counts=COUNTS,
    numbers=_LAYER_NORM,
    optional=OPTIONAL,
    flags={"use_qkv_bias": "blk.0.attn_q.bias", "qk_layernorm": "blk.0.attn_q_norm.weight"},
    rules=("rope scaling", "partial rotary", "parallel without second norm"),
    tensors=names(
        OUTER,
        {
            **PRE_NORMS,
            **_ATTENTION,
            **GATED,
            "attn_q_norm": "self_attn.q_layernorm.norms.{h}",
            "attn_k_norm": "self_attn.k_layernorm.norms.{h}",
        },
        LAYERS,
    ),
    changes={"blk.{i}.attn_q_norm": "by head", "blk.{i}.attn_k_norm": "by head"},
)
GPT_NEOX = Architecture(
    constants={"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu"},
    counts={key: ours for key, ours in COUNTS.items() if key != "attention.head_count_kv"},
    numbers={"attention.layer_norm_epsilon": "layer_norm_eps", "rope.freq_base": "rotary_emb_base"},
    switches={"use_parallel_residual": "use_parallel_residual"},
    optional=OPTIONAL,
    defaults={"rotary_emb_base": 10000.0},
    flags={"attention_bias": "blk.0.attn_qkv.bias"},
    rules=("rope scaling", "partial rotary"),
    rotary_key="rotary_pct",
    tensors=names(
        {
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
        {
            **PRE_NORMS,
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        "gpt_neox.layers.{i}.",
    ),
    changes={"blk.{i}.attn_qkv": "qkv by head"},
)
FALCON = Architecture(
    constants={
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "activation": "gelu",
        "alibi": False,
        "parallel_attn": True,
    },
    counts={**COUNTS, "feed_forward_length": "ffn_hidden_size", "attention.head_count_kv": "num_kv_heads"},
    numbers={"attention.layer_norm_epsilon": "layer_norm_epsilon", **ROPE_BASE},
    optional=OPTIONAL,
    defaults={"num_kv_heads": 1},
    flags={"bias": "blk.0.attn_output.bias"},
    rules=("rope scaling", "falcon"),
    tensors=names(
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f", "output": "lm_head"},
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        "transformer.h.{i}.",
    ),
    changes={"blk.{i}.attn_qkv": "qkv by group"},
)
FALCON_TWO_NORMS = replace(
    FALCON,
    tensors={
        **FALCON.tensors,
        "blk.{i}.attn_norm": "transformer.h.{i}.ln_mlp",
        "blk.{i}.attn_norm_2": "transformer.h.{i}.ln_attn",
    },
)
"""Falcon 40B: attention and MLP have a norm each."""

_GPT2_COUNTS = {
    "block_count": "n_layer",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "context_length": "n_positions",
    "vocab_size": "vocab_size",
}
_GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2_OUTER = {"token_embd": "transformer.wte", "output_norm": "transformer.ln_f", "output": "lm_head"}
_CONV1D = ("attn_qkv", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
GPT2 = Architecture(
    constants={"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new"},
    counts=_GPT2_COUNTS,
    numbers={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    optional=OPTIONAL,
    tensors=names({**_GPT2_OUTER, "position_embd": "transformer.wpe"}, _GPT2_LAYER, "transformer.h.{i}."),
    changes={f"blk.{{i}}.{name}": "transposed" for name in _CONV1D},
)
JAIS = Architecture(
    # The converter folds both scales into the tables that they multiply.
    constants={
        "model_type": "jais",
        "architectures": ["JAISLMHeadModel"],
        "activation_function": "swiglu",
        "position_embedding_type": "alibi",
        "scale_attn_weights": True,
        "scale_qk_dot_by_d": True,
        "embeddings_scale": 1.0,
        "width_scale": 1.0,
    },
    counts=_GPT2_COUNTS,
    numbers={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    optional=OPTIONAL,
    rules=("alibi",),
    tensors=names(_GPT2_OUTER, {**_GPT2_LAYER, "ffn_gate": "mlp.c_fc2"}, "transformer.h.{i}."),
    changes={f"blk.{{i}}.{name}": "transposed" for name in _CONV1D},
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "phi2": PHI2,
    "phi3": PHI3,
    "falcon": FALCON,
    "nemotron": NEMOTRON,
    "command-r": COMMAND_R,
    "cohere2": COHERE2,
    "jais": JAIS,
    "gpt2": GPT2,
    "gptneox": GPT_NEOX,
    "starcoder2": STARCODER2,
    "stablelm": STABLELM,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "olmo2": OLMO2,
    "granite": GRANITE,
    "smollm3": SMOLLM3,
}
"""`general.architecture` -> its row."""
