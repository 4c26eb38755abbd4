from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "qwen2", "rms_norm_eps": 0.1, "num_key_value_heads": 2}
WINDOW = {"use_sliding_window": True, "sliding_window": 8}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "windows in the upper layers": {**BASE, **WINDOW, "max_window_layers": 1, "num_hidden_layers": 3},
    "windows by name": {**BASE, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "windows switched off": {**BASE, "sliding_window": 8, "max_window_layers": 0},
    "yarn, tied": {**BASE, "rope_scaling": YARN, "tie_word_embeddings": True},
}
REFUSED: dict[str, Refused] = {
    "windows by name, switched off": ({"layer_types": ["sliding_attention"] * 2}, "use_sliding_window"),
    "too few names": ({"layer_types": ["full_attention"]}, "layer_types names 1 layers"),
    "an unknown kind of layer": ({"layer_types": ["full_attention", "linear_attention"]}, "'linear_attention'"),
    "absurdly many layers": ({"num_hidden_layers": 1 << 23}, "num_hidden_layers is 8,388,608"),
}
