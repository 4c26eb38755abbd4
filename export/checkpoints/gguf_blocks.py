"""Stored GGML blocks to codes, scales and offsets: value = scale * code + offset.

Layouts: ggml's ggml-common.h; a "K" type packs a super-block of 256 values whose sub-blocks have scales of a few
bits, here multiplied out in float32 as ggml itself does. Codes are centred on zero, so that an offset is what
is left when the middle of the code's range stands for zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = NDArray[np.int8]
Floats = NDArray[np.float32]
Parts = tuple[Codes, Floats, Floats | None]
"""Codes [blocks, values], scales and offsets [blocks, values / block_size]."""

# The 16 values of IQ4_NL and IQ4_XS, in units of the scale (ggml-common.h, kvalues_iq4nl).
_CODEBOOK = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def _halves(data: Bytes) -> Floats:
    """Two bytes each -> the float16 they are, as float32: [blocks, 2 n] -> [blocks, n]."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _fields(data: Bytes, bits: int, run: int) -> Bytes:
    """Values of `bits` bits, [b, n] -> [b, n * 8 / bits]: each `run` bytes hold all lowest fields, then the next."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields = (data.reshape(len(data), -1, 1, run) >> shifts) & np.uint8((1 << bits) - 1)
    return fields.reshape(len(data), -1)


def _centred(codes: Bytes, middle: int) -> Codes:
    return codes.view(np.int8) - np.int8(middle)


def _fifth_bit(data: Bytes) -> Bytes:
    """32 bits, one for each value: [blocks, 4] -> [blocks, 32] of 0 or 16."""
    return np.unpackbits(data, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(block: Bytes) -> Parts:
    return _centred(_fields(block[:, 2:], 4, 16), 8), _halves(block[:, :2]), None


def _q4_1(block: Bytes) -> Parts:
    constants = _halves(block[:, :4])
    scales = constants[:, :1]
    return _centred(_fields(block[:, 4:], 4, 16), 8), scales, constants[:, 1:] + 8 * scales


def _q5_0(block: Bytes) -> Parts:
    codes = _fields(block[:, 6:], 4, 16) | _fifth_bit(block[:, 2:6])
    return _centred(codes, 16), _halves(block[:, :2]), None


def _q5_1(block: Bytes) -> Parts:
    constants = _halves(block[:, :4])
    codes, scales = _fields(block[:, 8:], 4, 16) | _fifth_bit(block[:, 4:8]), constants[:, :1]
    return _centred(codes, 16), scales, constants[:, 1:] + 16 * scales


def _q8_0(block: Bytes) -> Parts:
    return block[:, 2:].view(np.int8), _halves(block[:, :2]), None


def _iq4_nl(block: Bytes) -> Parts:
    return _CODEBOOK[_fields(block[:, 2:], 4, 16)], _halves(block[:, :2]), None


def _iq4_xs(block: Bytes) -> Parts:
    high = np.ascontiguousarray(block[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    factors = _fields(block[:, 4:8], 4, 1) | ((high & np.uint16(3)) << np.uint16(4)).astype(np.uint8)
    scales = _halves(block[:, :2]) * _centred(factors, 32).astype(np.float32)
    return _CODEBOOK[_fields(block[:, 8:], 4, 16)], scales, None


def _q2_k(block: Bytes) -> Parts:
    constants, nibbles = _halves(block[:, 80:84]), block[:, :16]
    scales = constants[:, :1] * (nibbles & np.uint8(15)).astype(np.float32)
    minima = constants[:, 1:] * (nibbles >> np.uint8(4)).astype(np.float32)
    return _centred(_fields(block[:, 16:80], 2, 32), 2), scales, 2 * scales - minima


def _q3_k(block: Bytes) -> Parts:
    low, high = _fields(block[:, 96:104], 4, 8), _fields(block[:, 104:108], 2, 4)
    factors = _centred(low | (high << np.uint8(4)), 32)
    codes = _fields(block[:, 32:96], 2, 32) | (_fields(block[:, :32], 1, 32) << np.uint8(2))
    return _centred(codes, 4), _halves(block[:, 108:110]) * factors.astype(np.float32), None


def _sub_blocks(block: Bytes) -> tuple[Floats, Floats]:
    """Scales and minima of the 8 sub-blocks of Q4_K and Q5_K: 6 bits each, packed into 12 bytes, times two halves."""
    constants = _halves(block[:, :4])
    first, second, third = (block[:, start : start + 4] for start in (4, 8, 12))
    six, two = np.uint8(0x3F), np.uint8(0x30)
    scales = np.concatenate((first & six, (third & np.uint8(15)) | ((first >> np.uint8(2)) & two)), axis=1)
    minima = np.concatenate((second & six, (third >> np.uint8(4)) | ((second >> np.uint8(2)) & two)), axis=1)
    return constants[:, :1] * scales.astype(np.float32), constants[:, 1:] * minima.astype(np.float32)


def _q4_k(block: Bytes) -> Parts:
    scales, minima = _sub_blocks(block)
    return _centred(_fields(block[:, 16:], 4, 32), 8), scales, 8 * scales - minima


def _q5_k(block: Bytes) -> Parts:
    scales, minima = _sub_blocks(block)
    codes = _fields(block[:, 48:], 4, 32) | (_fields(block[:, 16:48], 1, 32) << np.uint8(4))
    return _centred(codes, 16), scales, 16 * scales - minima


def _q6_k(block: Bytes) -> Parts:
    codes = _fields(block[:, :128], 4, 64) | (_fields(block[:, 128:192], 2, 32) << np.uint8(4))
    factors = block[:, 192:208].view(np.int8).astype(np.float32)
    return _centred(codes, 32), _halves(block[:, 208:210]) * factors, None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a type comes apart: codes fit into `bits` and share a scale over `block_size` values."""

    bits: Literal[4, 8]
    block_size: int
    take_apart: Callable[[Bytes], Parts]


_Types = GGMLQuantizationType
LAYOUTS: Mapping[GGMLQuantizationType, Layout] = {
    _Types.Q4_0: Layout(4, 32, _q4_0),
    _Types.Q4_1: Layout(4, 32, _q4_1),
    _Types.Q5_0: Layout(8, 32, _q5_0),
    _Types.Q5_1: Layout(8, 32, _q5_1),
    _Types.Q8_0: Layout(8, 32, _q8_0),
    _Types.Q2_K: Layout(4, 16, _q2_k),
    _Types.Q3_K: Layout(4, 16, _q3_k),
    _Types.Q4_K: Layout(4, 32, _q4_k),
    _Types.Q5_K: Layout(8, 32, _q5_k),
    _Types.Q6_K: Layout(8, 16, _q6_k),
    _Types.IQ4_NL: Layout(8, 32, _iq4_nl),
    _Types.IQ4_XS: Layout(8, 32, _iq4_xs),
}
"""Types that `to_blocks` reads."""


def to_blocks(raw: Bytes, kind: GGMLQuantizationType) -> Parts:
    """uint8 [rows, row_bytes] of a type in LAYOUTS -> codes, scales and offsets as in `records.Blocks`."""
    rows = raw.shape[0]
    _, size = GGML_QUANT_SIZES[kind]
    # A damaged file may hold constants that are infinite; the caller looks for those in the result.
    with np.errstate(all="ignore"):
        codes, scales, offsets = LAYOUTS[kind].take_apart(raw.reshape(-1, size))
    return (
        codes.reshape(rows, -1),
        scales.reshape(rows, -1),
        None if offsets is None else offsets.reshape(rows, -1),
    )
