"""Settings that transformers writes in another way than GGUF, one small function each.

A rule sees the metadata and the short tensors that are really settings, and returns entries of config.json.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgekit.errors import UnsupportedCheckpoint
from export.checkpoints.gguf_names import Architecture, Rule
from export.checkpoints.gguf_settings import Settings

Config = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at. `tensors` are the names in the file, `vector` reads a short one of them."""

    row: Architecture
    settings: Settings
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    tensors: frozenset[str]
    vector: Callable[[str], tuple[float, ...]]


def _rope_scaling(facts: Facts) -> Config:
    """None, linear, yarn, or the table that Llama 3's rule was turned into."""
    settings = facts.settings
    if "rope_freqs.weight" in facts.tensors:
        factors = _factors(facts, "rope_freqs.weight")
        return {"rope_scaling": {"rope_type": "table", "factors": list(factors)}}
    kind = settings.word("rope.scaling.type", "none")
    key = "rope.scaling.factor" if settings.has("rope.scaling.factor") else "rope.scale_linear"
    factor = settings.number(key, 1.0)
    if kind == "yarn":
        return {"rope_scaling": _yarn(facts, factor)}
    if kind not in ("none", "linear"):
        raise UnsupportedCheckpoint(f"rotary scaling of the type {kind!r}; none, linear and yarn are read")
    # Older converters wrote a factor without a type; a factor of 1 changes nothing.
    stretched = factor != 1.0 and (kind == "linear" or not settings.has("rope.scaling.type"))
    return {"rope_scaling": {"rope_type": "linear", "factor": factor} if stretched else None}


def _yarn(facts: Facts, factor: float | None) -> Config:
    settings = facts.settings
    for key in ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"):
        if settings.number(key, 1.0) != 1.0:
            raise UnsupportedCheckpoint(f"its {key} is {settings.get(key)}; only 1 is read")
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": settings.required_count("rope.scaling.original_context_length"),
        "beta_fast": settings.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": settings.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def _longrope(facts: Facts) -> Config:
    """Phi-3: one divisor for each frequency, in short texts and in long ones."""
    names = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
    found = {key: list(_factors(facts, name)) for key, name in names.items() if name in facts.tensors}
    original = facts.settings.count("rope.scaling.original_context_length", facts.context) or facts.context
    if not found:
        return {"rope_scaling": None, "original_max_position_embeddings": original}
    if len(found) != len(names):
        raise UnsupportedCheckpoint("it has only one of its two tables of rotary factors")
    scaling: dict[str, object] = {"rope_type": "longrope", **found}
    attention = facts.settings.number("rope.scaling.attn_factor", 1.0) or 1.0
    if not math.isclose(attention, _longrope_attention(facts.context / original, original), rel_tol=1e-5):
        scaling["attention_factor"] = attention
    return {"rope_scaling": scaling, "original_max_position_embeddings": original}


def _longrope_attention(factor: float, original: int) -> float:
    """What transformers multiplies cosines and sines by where config.json does not say it (Ding et al. 2024)."""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0


def _factors(facts: Facts, name: str) -> tuple[float, ...]:
    expected = (facts.settings.count("rope.dimension_count", facts.head_dim) or 0) // 2
    factors = facts.vector(name)
    if len(factors) != expected or min(factors, default=0.0) <= 0:
        raise UnsupportedCheckpoint(f"its {name} is not a table of {expected} positive divisors")
    return factors


def _partial_rotary(facts: Facts) -> Config:
    """The share of a head that is rotated, as a number whose product with the head's width is whole again."""
    dim = facts.settings.count("rope.dimension_count", facts.head_dim) or facts.head_dim
    share = dim / facts.head_dim
    if int(share * facts.head_dim) < dim:
        share = math.nextafter(share, math.inf)
    return {facts.row.rotary_key: share}


def _windows(facts: Facts) -> Config:
    window = facts.settings.count("attention.sliding_window", facts.row.window, least=0) or None
    if not facts.row.window_period:
        return {"sliding_window": window}
    key = "attention.sliding_window_pattern"
    local = facts.settings.flags(key)
    if local is None:
        period = facts.settings.count(key, facts.row.window_period) or 1
        local = [(layer + 1) % period != 0 for layer in range(facts.layers)]
    if len(local) != facts.layers:
        raise facts.settings.wrong(key, f"a list of {len(local)} for {facts.layers} layers")
    kinds = ["sliding_attention" if window and one else "full_attention" for one in local]
    return {"sliding_window": window, "layer_types": kinds}


def _query_scalar(facts: Facts) -> Config:
    """Gemma: GGUF does not hold it; llama.cpp knows the exception, the 27B models, by their number of layers."""
    equal = facts.hidden // facts.heads
    return {"query_pre_attn_scalar": equal if facts.layers == facts.row.large_layers else facts.head_dim}


def _attention_multiplier(facts: Facts) -> Config:
    return {"attention_multiplier": facts.settings.number("attention.scale", facts.head_dim**-0.5)}


def _falcon(facts: Facts) -> Config:
    """Several key/value heads, or two norms, only exist in the newer decoder; of one head both mean the same."""
    two = "blk.0.attn_norm_2.weight" in facts.tensors
    return {
        "new_decoder_architecture": two or facts.kv_heads > 1,
        "multi_query": facts.kv_heads == 1,
        "num_ln_in_parallel_attn": 2 if two else 1,
    }


def _alibi(facts: Facts) -> Config:
    bias = facts.settings.number("attention.max_alibi_bias", 8.0)
    if bias != 8.0:
        raise UnsupportedCheckpoint(f"its attention.max_alibi_bias is {bias}; 8 is read")
    return {}


def _no_rope_layers(facts: Facts) -> Config:
    """SmolLM3: no positions in every fourth layer, which GGUF takes for granted."""
    return {"no_rope_layers": [int((layer + 1) % 4 != 0) for layer in range(facts.layers)]}


def _parallel(facts: Facts) -> Config:
    """StableLM: the key of that name is not to be trusted (the converter makes it true where config.json is silent)."""
    return {"use_parallel_residual": "blk.0.ffn_norm.weight" not in facts.tensors}


RULES: Mapping[Rule, Callable[[Facts], Config]] = {
    "rope scaling": _rope_scaling,
    "longrope": _longrope,
    "partial rotary": _partial_rotary,
    "windows": _windows,
    "query scalar": _query_scalar,
    "attention multiplier": _attention_multiplier,
    "falcon": _falcon,
    "alibi": _alibi,
    "no rope layers": _no_rope_layers,
    "parallel without second norm": _parallel,
}
