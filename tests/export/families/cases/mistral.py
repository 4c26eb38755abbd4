from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "mistral", "rms_norm_eps": 0.1, "num_key_value_heads": 2, "sliding_window": 8}

CASES: dict[str, Settings] = {
    "window": BASE,
    "no window, wide heads": {**BASE, "sliding_window": None, "head_dim": 32, "rope_theta": 500.0},
    "a head for each key": {**BASE, "num_key_value_heads": None, "tie_word_embeddings": True},
}
REFUSED: dict[str, Refused] = {
    "windows in some layers": ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    "no window at all": ({"sliding_window": 0}, "sliding_window"),
    "an activation of its own": ({"hidden_act": "tanh"}, "hidden_act"),
}
