from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "starcoder2", "norm_epsilon": 0.1, "num_key_value_heads": 2, "sliding_window": 8}

CASES: dict[str, Settings] = {
    "window": BASE,
    "no window, not tied": {**BASE, "sliding_window": None, "tie_word_embeddings": False, "rope_theta": 500.0},
    "no biases": {**BASE, "use_bias": False, "hidden_act": "gelu"},
}
REFUSED: dict[str, Refused] = {
    "no window at all": ({"sliding_window": 0}, "sliding_window"),
}
