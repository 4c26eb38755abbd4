"""Tables of cosines and sines for rotary position embedding."""

import math

import numpy as np
import numpy.typing as npt

from edgekit.arch import RopeScaling, Rotary

_POSITIONS = 1 << 14
"""Angles are computed for so many positions at a time: in double precision, a long context's would not be small."""


def frequencies(rotary: Rotary) -> npt.NDArray[np.float64]:
    """Angle per position for each of dim / 2 pairs (Su et al. 2021, section 3.2.2), scaled where asked."""
    plain = rotary.base ** (-np.arange(0, rotary.dim, 2, dtype=np.float64) / rotary.dim)
    return plain if rotary.scaling is None else _scaled(plain, rotary.scaling)


def _scaled(plain: npt.NDArray[np.float64], scaling: RopeScaling) -> npt.NDArray[np.float64]:
    if scaling.kind == "linear":
        return plain / scaling.factor
    # Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended.
    turns = scaling.original_context * plain / (2 * math.pi)
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return (1 - blend) * plain / scaling.factor + blend * plain


def tables(rotary: Rotary, context: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin, each float32 [context, dim / 2], the angles computed in double precision."""
    pace = frequencies(rotary)
    cos, sin = np.empty((context, len(pace)), np.float32), np.empty((context, len(pace)), np.float32)
    for start in range(0, context, _POSITIONS):
        angles = np.outer(np.arange(start, min(start + _POSITIONS, context), dtype=np.float64), pace)
        cos[start : start + _POSITIONS], sin[start : start + _POSITIONS] = np.cos(angles), np.sin(angles)
    return cos, sin


def table_bytes(rotary: Rotary, context: int) -> int:
    """Size of both tables."""
    return 2 * context * (rotary.dim // 2) * 4
