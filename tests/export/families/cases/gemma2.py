from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {
    **SHAPE,
    "model_type": "gemma2",
    "rms_norm_eps": 0.1,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": 8,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 0.7,
    "final_logit_softcapping": 2.0,
}

CASES: dict[str, Settings] = {
    "caps and windows": BASE,
    "no caps": {**BASE, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "windows by name, biases, not tied": {
        **BASE,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
}
REFUSED: dict[str, Refused] = {
    "a cap of nothing": ({"attn_logit_softcapping": 0.0}, "attn_logit_softcapping"),
    "an unknown kind of layer": ({"layer_types": ["chunked_attention"] * 3}, "'chunked_attention'"),
}
