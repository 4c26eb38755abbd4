from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "llama", "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 4.0, "beta_slow": 0.5, "original_max_position_embeddings": 32}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "yarn": {**BASE, "rope_scaling": YARN},
    "biases, tied": {**BASE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
}
REFUSED: dict[str, Refused] = {
    "dynamic rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
}
