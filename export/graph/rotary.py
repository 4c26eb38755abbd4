"""Cosines and sines for rotary position embedding.

A table of every position would be the third largest tensor of a small model with a long context. The file holds
two small ones instead: with position = coarse * STEP + fine, cos(a + b) = cos a cos b - sin a sin b. The graph
multiplies them out, which onnxruntime does once, when it loads the graph (constant folding).
"""

import math

import numpy as np
import numpy.typing as npt

from edgekit.arch import RopeScaling, Rotary

STEP = 256
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


def frequencies(rotary: Rotary, *, beyond: bool = False) -> Doubles:
    """Angle per position for each of dim / 2 pairs (Su et al. 2021, section 3.2.2), scaled where asked.

    `beyond` asks for texts longer than longrope's original context.
    """
    plain = rotary.base ** (-np.arange(0, rotary.dim, 2, dtype=np.float64) / rotary.dim)
    scaling = rotary.scaling
    if scaling is None:
        return plain
    if scaling.kind in ("longrope", "table"):
        divisors = np.asarray(scaling.long if beyond else scaling.short, np.float64)
        return plain / divisors
    rule = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}[scaling.kind]
    return rule(plain, rotary, scaling)


def magnitude(rotary: Rotary) -> float:
    """What cosines and sines are multiplied by."""
    return 1.0 if rotary.scaling is None else rotary.scaling.attention_factor


def _linear(plain: Doubles, _: Rotary, scaling: RopeScaling) -> Doubles:
    return plain / scaling.factor


def _llama3(plain: Doubles, _: Rotary, scaling: RopeScaling) -> Doubles:
    """Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended."""
    turns = scaling.original_context * plain / (2 * math.pi)
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return (1 - blend) * plain / scaling.factor + blend * plain


def _yarn(plain: Doubles, rotary: Rotary, scaling: RopeScaling) -> Doubles:
    """Peng et al. 2023, section 3.2: pairs that turn often keep their pace, slow ones are stretched."""

    def pair_that_turns(times: float) -> float:
        return rotary.dim * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * math.log(rotary.base))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.dim - 1)
    ramp: Doubles = np.clip((np.arange(rotary.dim // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    paced: Doubles = plain / scaling.factor * ramp + plain * (1 - ramp)
    return paced


def factors(pace: Doubles, positions: int, scale: float) -> tuple[Floats, Floats, Floats, Floats]:
    """cos and sin of whole steps [steps, 1, pairs], times `scale`, then of the positions between [1, STEP, pairs].

    They cover at least `positions` positions; angles are computed in double precision.
    """
    coarse = np.outer(np.arange(-(-positions // STEP)) * float(STEP), pace)[:, None]
    fine = np.outer(np.arange(STEP), pace)[None]
    tables = np.cos(coarse) * scale, np.sin(coarse) * scale, np.cos(fine), np.sin(fine)
    first, second, third, fourth = (table.astype(np.float32) for table in tables)
    return first, second, third, fourth
