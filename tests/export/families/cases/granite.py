from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {
    **SHAPE,
    "model_type": "granite",
    "rms_norm_eps": 0.1,
    "num_key_value_heads": 2,
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}

CASES: dict[str, Settings] = {
    "multipliers": BASE,
    "biases, tied": {**BASE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "no multipliers": {name: value for name, value in BASE.items() if "mult" not in name and "scaling" not in name},
}
REFUSED: dict[str, Refused] = {
    "logits divided by nothing": ({"logits_scaling": 0}, "logits_scaling"),
}
