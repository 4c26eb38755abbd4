"""GPTQ: round column by column, and let the columns that come later make up for each error.

Frantar et al. 2022, algorithm 1, with the columns in the order of their importance ("act-order") and with scales
fixed beforehand, so that any block layout (and twin scales) can be used. What is minimised is the squared error of
the matrix's *output* over calibration inputs X, which only enters as H = X^T X.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.hardware import usable_cores
from export.quantize import rtn
from export.quantize.codec import Codes, Floats

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it: columns that calibration hardly moved stay well behaved."""

_LAZY_COLUMNS = 128
"""Errors are carried to the columns behind a run of this many at once, as one matrix product."""


@dataclass(frozen=True)
class Inputs:
    """What calibration knows of a matrix's inputs: their order, importance, and how errors are carried.

    `order` [columns] most important first; `carry` is the upper Cholesky factor of the inverse of H in that order;
    `importance` [columns] is H's diagonal.
    """

    order: npt.NDArray[np.int64]
    carry: Floats
    importance: Floats


def inputs_of(hessian: Floats) -> Inputs:
    """From H = X^T X [columns, columns]. Inputs that never moved get the importance of a very small one."""
    h = hessian.astype(np.float64)
    diagonal = np.diag(h).copy()
    floor = max(float(diagonal.mean()), 1e-12) * DAMPING
    h[np.diag_indices_from(h)] += floor
    order = np.argsort(-diagonal, kind="stable")
    inverse = np.linalg.inv(h[np.ix_(order, order)])
    carry = np.linalg.cholesky((inverse + inverse.T) / 2).T
    return Inputs(order, np.ascontiguousarray(carry, np.float32), (diagonal + floor).astype(np.float32))


def quantise(values: Floats, inputs: Inputs, bits: int, block_size: int, *, twin: bool) -> tuple[Codes, Floats]:
    """values [rows, columns] -> codes [rows, columns], scales [rows, blocks]."""
    scales = rtn.quantise(values, bits, block_size, twin=twin, importance=inputs.importance)[1]
    codes = np.empty(values.shape, np.int8)
    rows = len(values)
    step = -(-rows // usable_cores())

    def part(start: int) -> None:
        stop = min(start + step, rows)
        codes[start:stop] = _round(values[start:stop], scales[start:stop], inputs, bits, block_size)

    with ThreadPoolExecutor(usable_cores()) as pool:  # rows do not know of each other
        for _ in pool.map(part, range(0, rows, step)):
            pass
    return codes, scales


def _round(values: Floats, scales: Floats, inputs: Inputs, bits: int, block_size: int) -> Codes:
    """Columns lie in rows here, so that every step is over contiguous memory."""
    order, carry = inputs.order, inputs.carry
    left = np.ascontiguousarray(values.T[order])
    steps = np.ascontiguousarray(scales.T)
    block_of = order // block_size
    codes = np.empty(left.shape, np.int8)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    for start in range(0, len(order), _LAZY_COLUMNS):
        stop = min(start + _LAZY_COLUMNS, len(order))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for at in range(start, stop):
            scale = steps[block_of[at]]
            code = np.rint(np.divide(left[at], scale, out=np.zeros_like(scale), where=scale != 0))
            np.clip(code, low, high, out=code)
            codes[at] = code
            error = (left[at] - code * scale) / carry[at, at]
            left[at + 1 : stop] -= carry[at, at + 1 : stop, None] * error
            errors[at - start] = error
        left[stop:] -= carry[start:stop, stop:].T @ errors
    back = np.empty_like(codes)
    back[order] = codes
    return np.ascontiguousarray(back.T)
