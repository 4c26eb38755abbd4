from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "qwen3", "rms_norm_eps": 0.1, "num_key_value_heads": 2, "head_dim": 32}
WINDOW = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "biases, windows, tied": {**BASE, **WINDOW, "attention_bias": True, "tie_word_embeddings": True},
    "narrow heads, linear rope": {**BASE, "head_dim": 16, "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
}
REFUSED: dict[str, Refused] = {
    "windows by name, switched off": ({"layer_types": ["sliding_attention"] * 2}, "use_sliding_window"),
    "dynamic rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
}
