from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "olmo", "num_key_value_heads": 2}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "biases, tied": {**BASE, "num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True},
}
REFUSED: dict[str, Refused] = {
    "clipped projections": ({"clip_qkv": 8.0}, "clip_qkv"),
}
