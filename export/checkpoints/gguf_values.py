"""Stored GGML blocks to floats, and to codes, scales and offsets.

Layouts: ggml's ggml-common.h. Floats of every type come from the gguf package's dequantisers; the three
types that map to our own quantisation also come apart here.
"""

from dataclasses import dataclass
from typing import Literal

import gguf.quants
import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from edgekit.errors import UnsupportedCheckpoint

BLOCK = 32
"""Values in a block of Q4_0, Q4_1 and Q8_0."""

_Types = GGMLQuantizationType
READABLE = frozenset({
    _Types.F32, _Types.F16, _Types.BF16,
    _Types.Q4_0, _Types.Q4_1, _Types.Q5_0, _Types.Q5_1, _Types.Q8_0,
    _Types.Q2_K, _Types.Q3_K, _Types.Q4_K, _Types.Q5_K, _Types.Q6_K,
    _Types.IQ4_NL, _Types.IQ4_XS, _Types.IQ3_XXS, _Types.IQ3_S, _Types.IQ2_XXS, _Types.IQ2_XS, _Types.IQ2_S,
    _Types.IQ1_S, _Types.IQ1_M, _Types.TQ1_0, _Types.TQ2_0, _Types.MXFP4,
})  # fmt: skip
"""Types that `to_floats` reads."""

_FLOAT_NAMES = {_Types.F32: "float32", _Types.F16: "float16", _Types.BF16: "bfloat16"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Float16 constants at the front of a block, then the codes."""

    bits: Literal[4, 8]
    constants: int


_LAYOUTS = {_Types.Q4_0: _Layout(4, 1), _Types.Q4_1: _Layout(4, 2), _Types.Q8_0: _Layout(8, 1)}
BLOCK_BITS = {kind: layout.bits for kind, layout in _LAYOUTS.items()}
"""Types that `to_blocks` reads, and the bits of their codes."""


def dtype_name(kind: GGMLQuantizationType) -> str:
    """numpy's word for a float, GGML's for a quantised type."""
    return _FLOAT_NAMES.get(kind, kind.name)


def to_floats(raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """uint8 [rows, row_bytes] -> float32 [rows, columns]. Raises UnsupportedCheckpoint."""
    if kind not in READABLE:
        raise UnsupportedCheckpoint(f"weights stored as {kind.name} are not read")
    # A damaged file may hold scales that are infinite; the caller looks for those in the result.
    with np.errstate(all="ignore"):
        values: NDArray[np.float32] = gguf.quants.dequantize(raw, kind)
    return values


def to_blocks(
    raw: NDArray[np.uint8], kind: GGMLQuantizationType
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32] | None]:
    """uint8 [rows, row_bytes] of a type in BLOCK_BITS -> codes, scales and offsets as in `Blocks`."""
    layout = _LAYOUTS[kind]
    head = 2 * layout.constants
    blocks = raw.reshape(raw.shape[0], -1, head + BLOCK * layout.bits // 8)
    constants = blocks[..., :head].copy().view("<f2").astype(np.float32)
    scales, data = constants[..., 0].copy(), blocks[..., head:]
    if layout.bits == 8:
        return data.copy().view(np.int8).reshape(raw.shape[0], -1), scales, None
    # The low halves of the bytes are the first 16 values, the high halves the others; 8 becomes zero.
    codes = np.concatenate((data & 15, data >> 4), axis=-1).view(np.int8) - np.int8(8)
    with np.errstate(all="ignore"):
        offsets = constants[..., 1] + 8 * scales if layout.constants == 2 else None
    return codes.reshape(raw.shape[0], -1), scales, offsets
