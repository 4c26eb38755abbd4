from tests.export.families.cases import gemma3_text
from tests.export.families.parity import SHAPE, Refused, Settings

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
BASE = {
    "model_type": "gemma3",
    "text_config": {**gemma3_text.BASE, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "attention_bias": True},
    "vision_config": VISION,
    "mm_tokens_per_image": 4,
    "boi_token_index": 300,
    "eoi_token_index": 301,
    "image_token_index": 319,
    **{name: SHAPE[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
}

CASES: dict[str, Settings] = {"text beside a vision tower": BASE}
REFUSED: dict[str, Refused] = {
    "a cap that transformers forgets": ({"text_config": {**gemma3_text.BASE, "final_logit_softcapping": 5.0}}, "final"),
    "no text": ({"text_config": None}, "text_config"),
    "both directions": ({"text_config": {**gemma3_text.BASE, "use_bidirectional_attention": True}}, "use_bidirect"),
}
