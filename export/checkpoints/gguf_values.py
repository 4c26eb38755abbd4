"""Stored GGML blocks to floats, by the gguf package's dequantisers. `gguf_blocks` takes them apart."""

import gguf.quants
import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from edgekit.errors import UnsupportedCheckpoint

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
