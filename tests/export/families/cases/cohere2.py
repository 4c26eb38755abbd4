from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "cohere2", "num_key_value_heads": 2, "sliding_window": 7, "num_hidden_layers": 5}

CASES: dict[str, Settings] = {
    "every fourth layer sees all": BASE,
    "layers by name": {
        **BASE,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "attention_bias": True,
        "tie_word_embeddings": False,
        "logit_scale": 0.5,
    },
    "all layers see all": {**BASE, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
}
REFUSED: dict[str, Refused] = {
    "layers of a kind that is not known": ({"layer_types": ["chunked_attention"] * 5}, "chunked_attention"),
    "too few kinds of layers": ({"layer_types": ["full_attention"]}, "layer_types names 1 layers"),
    "no window": ({"sliding_window": 0}, "sliding_window"),
}
