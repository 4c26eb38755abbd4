"""Round to nearest, with scales searched: no data needed.

The scale that maps a block's largest value onto the last code is rarely the best one: clipping a
single outlier a little makes the other values finer. For 4 bits a few factors are tried and the one
with the least squared error is kept; for 8 bits there is nothing to gain.

*Twin* scales are a row's own scale times an integer of -15..15, not 0: code times integer then fits INT8, so
the same weights are exactly one INT8 matrix with a scale per row, which processes prompts faster.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edgekit.hardware import usable_cores
from export.quantize.codec import Codes, Floats, as_blocks, encode

TWIN_STEPS = 15
"""Largest integer that a row's scale is multiplied by: 15 * -8 = -120 is still an INT8."""

_FACTORS = (0.80, 0.86, 0.92, 0.97, 1.0, 1.06, 1.12)
_TWIN_MOVES = (-3, -2, -1, 0, 1)
_TILE_VALUES = 1 << 16
"""Rows are searched in tiles that stay in a core's own cache, where seven passes over them are cheap."""


def quantise(
    values: Floats,
    bits: int,
    block_size: int,
    *,
    twin: bool = False,
    importance: Floats | None = None,
    steps: Floats | None = None,
) -> tuple[Codes, Floats]:
    """values [rows, columns] -> codes [rows, columns], scales [rows, blocks].

    `importance` [columns] weighs squared errors: the mean square of what each column is multiplied by. `steps`
    [rows, 1] are the rows' own scales of a twin, if those are given; else they are found.
    """
    rows, columns = values.shape
    codes = np.empty((rows, columns), np.int8)
    scales = np.empty((rows, -(-columns // block_size)), np.float32)
    weight = None if importance is None else as_blocks(importance[None], block_size)[0].T

    def tile(start: int) -> None:
        blocks = as_blocks(values[start : start + step], block_size)
        upright = np.ascontiguousarray(blocks.transpose(2, 0, 1))
        row = None if steps is None else steps[start : start + step]
        scales[start : start + step] = _scales(
            upright, bits, None if weight is None else weight[:, None], row, twin=twin
        )
        codes[start : start + step] = encode(blocks, scales[start : start + step], bits)[:, :columns]

    step = max(1, _TILE_VALUES // columns)
    with ThreadPoolExecutor(usable_cores()) as pool:
        # numpy lets go of the interpreter while it computes, so threads do run side by side.
        for _ in pool.map(tile, range(0, rows, step)):
            pass
    return codes, scales


def _scales(blocks: Floats, bits: int, weight: Floats | None, row: Floats | None, *, twin: bool) -> Floats:
    """The best scales [rows, blocks] for blocks [block_size, rows, blocks]: long vectors all the way."""
    low, high = blocks.min(0), blocks.max(0)
    lowest_code = np.float32(-(1 << (bits - 1)))
    plain: Floats = np.where(high > -low, high, low) / lowest_code  # the largest value lands there
    if bits == 8:
        return plain
    return _twin(blocks, plain, weight, row) if twin else _free(blocks, plain, weight)


def _free(blocks: Floats, plain: Floats, weight: Floats | None) -> Floats:
    best, least = plain, np.full(plain.shape, np.inf, np.float32)
    for factor in _FACTORS:
        best, least = _better(blocks, plain * np.float32(factor), weight, best, least)
    return best


def _twin(blocks: Floats, plain: Floats, weight: Floats | None, row: Floats | None) -> Floats:
    """Integer multiples of the row's scale, from what clips a fifth of the largest value to one more than needed."""
    if row is None:
        row = np.abs(plain).max(-1, keepdims=True) / np.float32(TWIN_STEPS)
    needed = np.rint(plain / np.where(row == 0, np.float32(1), row))
    sign = np.where(needed < 0, np.float32(-1), np.float32(1))
    best, least = plain, np.full(plain.shape, np.inf, np.float32)
    for move in _TWIN_MOVES:
        steps = np.clip(np.abs(needed) + np.float32(move), 1, TWIN_STEPS) * sign
        best, least = _better(blocks, steps * row, weight, best, least)
    return best


def _better(blocks: Floats, tried: Floats, weight: Floats | None, best: Floats, least: Floats) -> tuple[Floats, Floats]:
    """The better of `tried` and the best scales so far, block by block, and their squared errors."""
    inverse = np.divide(np.float32(1), tried, out=np.zeros_like(tried), where=tried != 0)
    error = blocks * inverse
    np.rint(error, out=error)
    np.clip(error, -8, 7, out=error)
    error *= tried
    error -= blocks
    error *= error
    if weight is not None:
        error *= weight
    squared = error.sum(0)
    better = squared < least
    return np.where(better, tried, best), np.where(better, squared, least)
