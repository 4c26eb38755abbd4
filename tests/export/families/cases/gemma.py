from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "gemma", "rms_norm_eps": 0.1, "num_key_value_heads": 1, "head_dim": 32}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "biases, not tied": {**BASE, "attention_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 4},
}
REFUSED: dict[str, Refused] = {
    "an activation of its own": ({"hidden_act": "tanh"}, "hidden_act"),
}
