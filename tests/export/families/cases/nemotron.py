from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "nemotron", "num_key_value_heads": 2}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "biases, wide heads": {
        **BASE,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 32,
        "norm_eps": 1e-3,
        "rope_theta": 500.0,
    },
    "tied, full rotary, another activation": {
        **BASE,
        "tie_word_embeddings": True,
        "partial_rotary_factor": 1.0,
        "hidden_act": "gelu",
    },
}
REFUSED: dict[str, Refused] = {
    "scaled rope": ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
    "activation": ({"hidden_act": "selu"}, "selu"),
}
