"""Round to nearest, with scales searched: no data needed.

The scale that maps a block's largest value onto the last code is rarely the best one: clipping a
single outlier a little makes the other values finer. For 4 bits a few factors are tried and the one
with the least squared error is kept; for 8 bits there is nothing to gain.
"""

import numpy as np

from export.quantize.codec import Codes, Floats, as_blocks, encode, round_blocks

_FACTORS = (0.80, 0.86, 0.92, 0.97, 1.0, 1.06, 1.12)


def quantise(values: Floats, bits: int, block_size: int) -> tuple[Codes, Floats]:
    """values [rows, columns] -> codes [rows, columns], scales [rows, blocks]."""
    columns = values.shape[1]
    codes, scales = round_blocks(values, bits, block_size)
    if bits == 8:
        return codes[:, :columns], scales
    blocks = as_blocks(values, block_size)
    best_scales, best_error = scales, np.full(scales.shape, np.inf, np.float32)
    for factor in _FACTORS:
        tried = scales * np.float32(factor)
        error = blocks - encode(blocks, tried, bits).reshape(blocks.shape) * tried[..., None]
        squared = np.einsum("rbk,rbk->rb", error, error)
        better = squared < best_error
        best_scales = np.where(better, tried, best_scales)
        best_error = np.where(better, squared, best_error)
    return encode(blocks, best_scales, bits)[:, :columns], best_scales
