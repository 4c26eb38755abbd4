"""Reading the rotary settings of config.json, which most families spell alike."""

import math
from collections.abc import Mapping

from edgekit.arch import RopeScaling, Rotary
from edgekit.errors import UnsupportedCheckpoint
from export.families.config import Config

MAX_CONTEXT = 1 << 21
"""The graph expands a row of cosines and sines for every position: a bound for what a configuration may ask for."""

_KINDS: Mapping[str, str] = {
    "default": "default",
    "linear": "linear",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",
    "table": "table",
}
"""`su` is what Phi-3 first called longrope; `table` is ours, for GGUF's `rope_freqs`."""

_ORIGINAL = "original_max_position_embeddings"


def context_of(config: Config, key: str = "max_position_embeddings", default: int | None = 2048) -> int:
    """Tokens that the model can attend to. Raises UnsupportedCheckpoint beyond MAX_CONTEXT."""
    context = config.integer(key, default)
    if context > MAX_CONTEXT:
        raise UnsupportedCheckpoint(f"{key} is {context:,}, more than {MAX_CONTEXT:,}")
    return context


def rotary_of(
    config: Config,
    head_dim: int,
    *,
    base: float = 10000.0,
    partial: float = 1.0,
    interleaved: bool = False,
    layers: str = "",
) -> Rotary:
    """Rotary embedding of a configuration; `base` and `partial` are the family's defaults.

    Since transformers 5 everything is in `rope_parameters`, or apart for each kind of layers in that (`layers` is
    the kind's name); before, `rope_theta`, `partial_rotary_factor` and `rope_scaling` stood apart. Raises
    UnsupportedCheckpoint for a rope type that is not known.
    """
    section = config.section("rope_parameters") or config.section("rope_scaling")
    if section is not None and section.has(layers):
        section = section.section(layers)
    places = [config] if section is None else [section, config]
    theta = next((place for place in places if place.has("rope_theta")), config)
    share = next((place for place in places if place.has("partial_rotary_factor")), config)
    dim = int(head_dim * share.number("partial_rotary_factor", partial))
    scaling = None if section is None else _scaling(section, config)
    return _checked(Rotary(dim=dim, base=theta.number("rope_theta", base), interleaved=interleaved, scaling=scaling))


def _scaling(section: Config, config: Config) -> RopeScaling | None:
    absent = None if section.has("factor") else "default"
    kind = section.choice("rope_type" if section.has("rope_type") else "type", _KINDS, absent)
    readers = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope, "table": _table}
    return None if kind == "default" else readers[kind](section, config)


def _linear(section: Config, _: Config) -> RopeScaling:
    return RopeScaling(kind="linear", factor=section.number("factor"))


def _llama3(section: Config, _: Config) -> RopeScaling:
    low, high = section.number("low_freq_factor"), section.number("high_freq_factor")
    if low >= high:
        raise UnsupportedCheckpoint(f"low_freq_factor is {low} and high_freq_factor {high}")
    return RopeScaling(
        kind="llama3",
        factor=section.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=section.integer("original_max_position_embeddings"),
    )


def _yarn(section: Config, config: Config) -> RopeScaling:
    """As transformers computes it: the magnitude grows with 0.1 ln(factor) + 1 unless the configuration says it."""
    factor = section.number("factor")
    if section.has("mscale") and section.has("mscale_all_dim"):
        over = _yarn_scale(factor, section.number("mscale")) / _yarn_scale(factor, section.number("mscale_all_dim"))
    else:
        over = _yarn_scale(factor, 1.0)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        beta_fast=section.number("beta_fast", 32.0),
        beta_slow=section.number("beta_slow", 1.0),
        truncate=section.flag("truncate", default=True),
        attention_factor=section.number("attention_factor", over),
        original_context=_original(section, config),
    )


def _yarn_scale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(section: Config, config: Config) -> RopeScaling:
    original = _original(section, config)
    factor = config.integer("max_position_embeddings") / original
    if not any(place.has(_ORIGINAL) for place in (section, config)):
        factor = section.number("factor", 1.0)
    grown = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return RopeScaling(
        kind="longrope",
        attention_factor=section.number("attention_factor", grown),
        original_context=original,
        short=section.numbers("short_factor"),
        long=section.numbers("long_factor"),
    )


def _table(section: Config, _: Config) -> RopeScaling:
    return RopeScaling(kind="table", short=section.numbers("factors"))


def _original(section: Config, config: Config) -> int:
    if section.has(_ORIGINAL):
        return section.integer(_ORIGINAL)
    return config.integer(_ORIGINAL) if config.has(_ORIGINAL) else config.integer("max_position_embeddings")


def _checked(rotary: Rotary) -> Rotary:
    """`rotary` unchanged. Raises UnsupportedCheckpoint if a table of factors is not one number per rotated pair."""
    if rotary.scaling is not None:
        for factors in (rotary.scaling.short, rotary.scaling.long):
            if factors and len(factors) != rotary.dim // 2:
                raise UnsupportedCheckpoint(f"{len(factors)} rope factors for {rotary.dim // 2} rotated pairs")
    return rotary
