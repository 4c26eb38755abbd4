from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {**SHAPE, "model_type": "phi3", "num_key_value_heads": 2}
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1, 3.8],
    "long_factor": [1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0],
}
PART = {**LONG, "short_factor": LONG["short_factor"][:6], "long_factor": LONG["long_factor"][2:]}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "a window": {**BASE, "sliding_window": 9},
    "longrope, short": {**BASE, "original_max_position_embeddings": 128, "rope_scaling": LONG},
    "longrope, long": {**BASE, "original_max_position_embeddings": 16, "rope_scaling": LONG},
    "longrope, its limit the default": {**BASE, "max_position_embeddings": 8192, "rope_scaling": LONG},
    "longrope and partial rotary, tied": {
        **BASE,
        "original_max_position_embeddings": 8,
        "rope_scaling": PART,
        "partial_rotary_factor": 0.75,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-3,
    },
}
REFUSED: dict[str, Refused] = {
    "too few factors": ({"rope_scaling": {**LONG, "long_factor": [1.0] * 7}}, "7 rope factors for 8 rotated pairs"),
    "no factors": ({"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 8}}, "short_factor"),
    "another rope": ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "ntk"),
    "no window at all": ({"sliding_window": 0}, "sliding_window"),
}
