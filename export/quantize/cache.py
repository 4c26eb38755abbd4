"""Scales of an INT8 KV cache: what calibration text puts into it.

GroupQueryAttention rounds each channel of keys and values to multiples of a constant when it writes the cache, and
saturates beyond 127 of them. The constant is the channel's largest value over the text, divided by 127.

Keys are cached rotated. A pair of channels that turns slowly shows one side only in texts as long as calibration's,
and the other thousands of tokens later; so both channels of a pair reach as far as the pair is long, which no
position changes.

SmolLM2-135M, KL of the cache alone by position of the token, scales from 16 rows of 384 tokens of its own text:

                                 0-400    400-1000  1000-1500
    largest values               0.0027   0.0062    0.0359
    lengths of pairs             0.0028   0.0016    0.0012
    the same times 0.85          0.0090   0.0029    0.0025
    the same times 1.15          0.0030   0.0018    0.0015
    99.99th percentiles of them  0.0028   0.0015    0.0012
    lengths of pairs, 64 rows    0.0024   0.0016    0.0012
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgekit.arch import ModelArch, Rotary

Floats = npt.NDArray[np.float32]
Scales = Mapping[str, Floats]
"""By the graph's names ("layers.0.k_scale", "layers.0.v_scale"): [1, kv_heads, 1, head_dim]."""

NO_SCALES: Scales = {}
"""Of a float32 cache."""

_LARGEST_CODE = 127
_LEAST_REACH = 2**-10
"""Of the layer's largest channel: one that the text left at zero still gets a scale."""


def names(at: str) -> tuple[str, str]:
    """Of the scales of a layer such as "layers.0": keys, values."""
    return f"{at}.k_scale", f"{at}.v_scale"


def bytes_for(arch: ModelArch) -> int:
    """Size of all scales."""
    return arch.kv_values_per_token * 4


class Reach:
    """How far each channel of a model's keys and values goes, gathered layer by layer."""

    def __init__(self, arch: ModelArch) -> None:
        self._arch = arch
        self._largest: dict[str, Floats] = {}

    def see(self, layer: int, keys: Floats, values: Floats) -> None:
        """Keys (rotated) and values as they would be cached: [batch, kv_heads, tokens, head_dim]."""
        lengths = _lengths(keys, self._arch.positions(layer).rotary)
        for name, found in zip(names(f"layers.{layer}"), (lengths, values), strict=True):
            largest = np.abs(found).max(axis=(0, 2), keepdims=True)
            self._largest[name] = np.maximum(self._largest.get(name, largest), largest)

    def scales(self) -> Scales:
        """Of all layers seen."""
        return {name: _scale(largest) for name, largest in self._largest.items()}


def _scale(largest: Floats) -> Floats:
    whole = float(largest.max()) or 1.0
    found: Floats = np.maximum(largest, whole * _LEAST_REACH) * np.float32(1 / _LARGEST_CODE)
    return found


def _lengths(keys: Floats, rotary: Rotary | None) -> Floats:
    """Keys, with both values of each rotated pair replaced by the pair's length."""
    if rotary is None:
        return keys
    found = keys.copy()
    turned = found[..., : rotary.dim]
    if rotary.interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., : rotary.dim // 2], turned[..., rotary.dim // 2 :]
    first[:] = second[:] = np.hypot(first, second)
    return found
