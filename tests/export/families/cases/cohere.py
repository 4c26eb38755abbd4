from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "cohere", "num_key_value_heads": 2, "logit_scale": 0.25}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "norms of queries and keys": {**BASE, "use_qk_norm": True, "layer_norm_eps": 1e-3},
    "biases, untied, narrow heads": {
        **BASE,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "num_attention_heads": 8,
        "rope_theta": 500.0,
    },
}
REFUSED: dict[str, Refused] = {
    "dynamic rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    "no logits": ({"logit_scale": 0}, "logit_scale"),
}
