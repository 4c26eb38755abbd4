from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "stablelm", "num_key_value_heads": 2}

CASES: dict[str, Settings] = {
    "sequential": BASE,
    "biases": {**BASE, "use_qkv_bias": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 0.1},
    "parallel, a norm of each head": {**BASE, "use_parallel_residual": True, "qk_layernorm": True},
    "a norm of each head, all dimensions turn": {**BASE, "qk_layernorm": True, "partial_rotary_factor": 1.0},
    "tied": {**BASE, "tie_word_embeddings": True, "num_key_value_heads": 4},
}
REFUSED: dict[str, Refused] = {
    "an odd share": ({"partial_rotary_factor": 0.2}, "rotary.dim is 3"),
}
