"""Blocks of 4 or 8 bits to INT8 rows with one scale each: numpy over a few rows at a time. A rule without IO.

`reach` is the largest code. Without VNNI, the kernel that multiplies bytes on x86 adds two products in 16 bits:
255 * 64 * 2 still fits, 255 * 127 * 2 saturates (SmolLM2: KL 0.055 instead of 0.032). Processors that sum in 32 bits
take the whole range.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekit.quant import QuantSpec

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Packed = npt.NDArray[np.uint8]
Reach = Literal[64, 127]

_TWIN_STEPS = 15
_WHOLE = 1e-3
"""How far from a whole number a twin's multiple may be: float32 division errs by far less."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of a matrix as MatMulNBits reads them: packed [rows, blocks, bytes], scales [rows, blocks].

    `zero_points` [rows, ceil(blocks * bits / 8)] is None for symmetric blocks; `columns` counts the weights' own.
    """

    spec: QuantSpec
    columns: int
    packed: Packed
    scales: Floats
    zero_points: Packed | None = None


def unpack(packed: Packed, bits: int, count: int) -> Packed:
    """The first `count` values along the last axis: bytes for 8 bits, two in a byte for 4, low nibble first."""
    if bits == 8:
        return packed[..., :count]
    values = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.uint8)
    values[..., 0::2] = packed & 15
    values[..., 1::2] = packed >> 4
    return values[..., :count]


def differences(rows: StoredRows) -> Floats:
    """Codes minus their zero points: [rows, blocks, block_size]."""
    spec = rows.spec
    values: Floats = unpack(rows.packed, spec.bits, spec.block_size).astype(np.float32)
    if rows.zero_points is None:
        values -= np.float32(1 << (spec.bits - 1))
    else:
        values -= unpack(rows.zero_points, spec.bits, rows.scales.shape[-1])[..., None]
    return values


def int8_rows(rows: StoredRows, reach: Reach) -> tuple[Codes, Floats]:
    """Codes [rows, columns] of -reach..reach, and the scale of each row."""
    values = differences(rows)
    if rows.spec.twin and reach == 127:
        found = _twin(values, rows)
        if found is not None:
            return found
    values *= rows.scales[..., None]
    flat = _with_constants(values, rows)
    highest = np.maximum(flat.max(1), -flat.min(1))
    steps = (highest / np.float32(reach)).astype(np.float32)
    flat *= np.divide(np.float32(reach), highest, out=np.zeros_like(highest), where=highest > 0)[:, None]
    return np.rint(flat, out=flat).astype(np.int8), steps


def _with_constants(values: Floats, rows: StoredRows) -> Floats:
    """Weights [rows, columns]; the constants of affine blocks stand behind them as further columns."""
    flat = values.reshape(len(values), -1)
    if not rows.spec.affine:
        return flat[:, : rows.columns]
    size = rows.spec.block_size
    whole = flat[:, : rows.columns].reshape(len(flat), -1, size)
    constants = flat[:, rows.columns : rows.spec.columns_stored(rows.columns)] / np.float32(size)
    whole += constants[..., None]
    return flat[:, : rows.columns]


def row_steps(scales: Floats) -> tuple[Floats, Floats] | None:
    """What every scale [rows, blocks] of a row is a whole multiple of [rows, 1], and the multiples; None if one is not.

    Of several such steps the largest, of which the row's largest scale is at most 15 times as large.
    """
    largest = np.abs(scales).max(1, keepdims=True)
    multiples = np.zeros_like(scales)
    steps = np.zeros_like(largest)
    for most in range(_TWIN_STEPS, 0, -1):  # the last one that fits is the smallest, if several do
        step = largest / np.float32(most)
        ratio = np.divide(scales, step, out=np.zeros_like(scales), where=step > 0)
        whole = np.rint(ratio)
        fits = np.abs(ratio - whole).max(1, keepdims=True) < _WHOLE
        multiples, steps = np.where(fits, whole, multiples), np.where(fits, step, steps)
    return (steps, multiples) if ((steps > 0) | (largest == 0)).all() else None


def _twin(values: Floats, rows: StoredRows) -> tuple[Codes, Floats] | None:
    """Exactly the same weights, if every scale is a whole multiple of its row's; None if one is not."""
    found = row_steps(rows.scales)
    if found is None:
        return None
    steps, multiples = found
    values *= multiples[..., None]
    return values.reshape(len(values), -1)[:, : rows.columns].astype(np.int8), steps[:, 0]
