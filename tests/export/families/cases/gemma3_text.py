from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {
    **SHAPE,
    "model_type": "gemma3_text",
    "rms_norm_eps": 0.1,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 20,
    "rope_theta": 5000.0,
    "rope_local_base_freq": 100.0,
}

CASES: dict[str, Settings] = {
    "two bases": BASE,
    "scaled, capped, biases": {
        **BASE,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "final_logit_softcapping": 2.0,
        "attention_bias": True,
    },
    "windows by name, not tied": {
        **BASE,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "tie_word_embeddings": False,
    },
}
REFUSED: dict[str, Refused] = {
    "both directions": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "a cap that transformers forgets": ({"attn_logit_softcapping": 5.0}, "attn_logit_softcapping"),
}
