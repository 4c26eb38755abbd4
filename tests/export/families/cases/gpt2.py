from tests.export.families.parity import SHAPE, Refused, Settings

BASE = {
    "model_type": "gpt2",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "vocab_size": 320,
    **{name: SHAPE[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
}

CASES: dict[str, Settings] = {
    "plain": BASE,
    "narrow MLP, not tied": {**BASE, "n_inner": 96, "tie_word_embeddings": False},
    "scores as they are, ReLU": {**BASE, "scale_attn_weights": False, "activation_function": "relu"},
    "epsilon": {**BASE, "layer_norm_epsilon": 0.1, "reorder_and_upcast_attn": True},
}
REFUSED: dict[str, Refused] = {
    "scores divided by the layer": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    "a second attention": ({"add_cross_attention": True}, "add_cross_attention"),
}
