from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "olmo2", "num_key_value_heads": 2, "rms_norm_eps": 0.1}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "biases, tied": {**BASE, "num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True},
}
REFUSED: dict[str, Refused] = {
    "dynamic rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
}
