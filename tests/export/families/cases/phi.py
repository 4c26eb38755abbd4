from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "phi", "hidden_act": "gelu_new", "partial_rotary_factor": 0.5}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "norms of queries and keys": {**BASE, "qk_layernorm": True, "num_key_value_heads": 2, "layer_norm_eps": 1e-3},
    "rotary width of Phi-2": {**BASE, "hidden_size": 160, "num_attention_heads": 2, "partial_rotary_factor": 0.4},
    "tied, linear rope": {
        **BASE,
        "tie_word_embeddings": True,
        "rope_theta": 500.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
}
REFUSED: dict[str, Refused] = {
    "dynamic rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    "activation": ({"hidden_act": "quick_gelu"}, "quick_gelu"),
    "rotary width": ({"partial_rotary_factor": 1.5}, "rotary.dim"),
}
