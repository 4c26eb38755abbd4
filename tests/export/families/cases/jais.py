from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {
    "model_type": "jais",
    "vocab_size": 320,
    "n_positions": 256,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 96,
    "activation_function": "swiglu",
    "position_embedding_type": "alibi",
    "mup_embeddings_scale": 2.5,
    "mup_output_alpha": 1.5,
    "mup_width_scale": 0.4,
    "mup_scale_qk_dot_by_d": True,
    "eos_token_id": SHAPE["eos_token_id"],
}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "heads no power of two, usual scores": {
        **BASE,
        "n_embd": 192,
        "n_head": 12,
        "n_inner": None,
        "layer_norm_epsilon": 1e-3,
        "mup_scale_qk_dot_by_d": False,
    },
    "older names of the scales": {
        **{key: value for key, value in BASE.items() if not key.startswith("mup_")},
        "embeddings_scale": 2.5,
        "width_scale": 0.6,
        "scale_qk_dot_by_d": True,
    },
}
REFUSED: dict[str, Refused] = {
    "learned positions": ({"position_embedding_type": "learned"}, "position_embedding_type"),
    "another MLP": ({"activation_function": "gelu"}, "activation_function"),
    "stretched slopes": ({"alibi_scaling": {"type": "linear", "factor": 2.0}}, "alibi_scaling"),
    "scores by layer": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    "unscaled scores": ({"scale_attn_weights": False}, "scale_attn_weights"),
    "an encoder": ({"add_cross_attention": True}, "add_cross_attention"),
}
