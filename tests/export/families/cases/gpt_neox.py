from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "gpt_neox", "rotary_pct": 0.25}

CASES: dict[str, Settings] = {
    "parallel": BASE,
    "sequential": {**BASE, "use_parallel_residual": False, "layer_norm_eps": 0.1},
    "all dimensions turn": {**BASE, "rotary_pct": 1.0, "rotary_emb_base": 500.0},
    "no biases of attention": {**BASE, "attention_bias": False, "hidden_act": "gelu_fast"},
    "linear rope, tied": {
        **BASE,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "tie_word_embeddings": True,
    },
}
REFUSED: dict[str, Refused] = {
    "two bases": ({"rotary_emb_base": 500.0, "rope_theta": 10000.0}, "rotary_emb_base"),
    "two shares": ({"partial_rotary_factor": 0.5}, "rotary_pct"),
    "an odd share": ({"rotary_pct": 0.2}, "rotary.dim is 3"),
}
