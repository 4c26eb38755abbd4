from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "smollm3", "rms_norm_eps": 0.1, "num_key_value_heads": 2, "num_hidden_layers": 4}

CASES: dict[str, Settings] = {
    "a layer without positions": BASE,
    "windows where there are no positions": {
        **BASE,
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": 8,
    },
    "the first layer without positions, biases, not tied": {
        **BASE,
        "no_rope_layers": [0, 1, 1, 0],
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    "positions everywhere": {**BASE, "no_rope_layers": [1, 1, 1, 1], "rope_theta": 500.0},
}
REFUSED: dict[str, Refused] = {
    "three kinds of layers": (
        {
            "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
            "use_sliding_window": True,
            "sliding_window": 8,
        },
        "more than two kinds",
    ),
    "windows by name, switched off": ({"layer_types": ["sliding_attention"] * 4}, "use_sliding_window"),
    "too few layers": ({"no_rope_layers": [1, 0]}, "no_rope_layers names 2 layers"),
    "no numbers": ({"no_rope_layers": ["1", "0", "1", "1"]}, "no_rope_layers in its configuration is not a list"),
}
