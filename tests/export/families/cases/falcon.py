from tests.export.families.parity import SHAPE, Refused, Settings

SMALL = {**{key: value for key, value in SHAPE.items() if key != "intermediate_size"}, "model_type": "falcon"}
NEW = {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 96}
RW = {**SMALL, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}

CASES: dict[str, Settings] = {
    "7B": SMALL,
    "7B with biases": {**SMALL, "bias": True, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
    "new decoder, two norms": NEW,
    "new decoder, one norm": {**NEW, "num_ln_in_parallel_attn": 1, "rope_theta": 500.0, "activation": "relu"},
    "RW": RW,
    "RW, slopes that bfloat16 rounds": {**RW, "hidden_size": 192, "num_attention_heads": 12},
    "ALiBi and one key/value head": {**SMALL, "alibi": True},
}
REFUSED: dict[str, Refused] = {
    "new and sequential": ({"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn False"),
    "two norms in the old decoder": ({"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn 2"),
    "residual after the norm": ({"apply_residual_connection_post_layernorm": True}, "apply_residual"),
    "heads that do not divide": ({"num_attention_heads": 5}, "5 heads"),
    "activation": ({"activation": "swiglu"}, "swiglu"),
    "rope": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
}
