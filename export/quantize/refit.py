"""New values in old blocks: the scales, zero points and constants of a stored matrix, wherever they still fit.

A block keeps its scale as long as that costs hardly more squared error than a scale that is searched for it anew. Where
it costs more, a block of a twin gets another multiple of its row's scale, and where that does not do, the whole row
begins anew: what was a twin remains one.
"""

from collections.abc import Mapping

import numpy as np

from edgekit.quant import QuantSpec
from edgekit.twin.codes import row_steps, unpack
from export.quantize import codec, rtn
from export.quantize.codec import Floats, Packed, QuantisedMatrix

PATIENCE: Mapping[int, float] = {4: 1.05, 8: 2.0}
"""By bits, how much more squared error than a scale of its own a frozen one may cost a block, and all blocks a row.

Twice the error of INT8 is still nothing beside that of the INT4 matrices around it.
"""

_NOISE = 0.01
"""Share of a block's usual rounding error below which no difference counts: values may lie on the grid already."""


def refitted(values: Floats, base: QuantisedMatrix) -> QuantisedMatrix:
    """`values` [rows, columns] stored as `base` stores its own, whose numbers stay but where they cost too much."""
    if base.zero_points is None:
        return _symmetric(values, base)
    return _with_zero_points(values, base, base.zero_points)


def _symmetric(values: Floats, base: QuantisedMatrix) -> QuantisedMatrix:
    spec, blocks = base.spec, codec.as_blocks(values, base.spec.block_size)
    found = row_steps(base.scales) if spec.twin else None
    steps = None if found is None else found[0]
    own = rtn.quantise(values, spec.bits, spec.block_size, twin=spec.twin, steps=steps)[1]
    fits = _errors(blocks, base.scales, spec) <= _allowed(_errors(blocks, own, spec), base.scales, spec)
    scales = np.where(fits, base.scales, own)
    if spec.twin:
        anew = rtn.quantise(values, spec.bits, spec.block_size, twin=True)[1]
        most = _allowed(_errors(blocks, anew, spec), base.scales, spec).sum(1, keepdims=True)
        fits = _errors(blocks, scales, spec).sum(1, keepdims=True) <= most
        scales = np.where(fits & (steps is not None), scales, anew)
    return codec.store_symmetric(codec.encode(blocks, scales, spec.bits)[:, : values.shape[1]], scales, spec)


def _allowed(errors: Floats, scales: Floats, spec: QuantSpec) -> Floats:
    """What frozen scales may cost where their own cost `errors`."""
    usual = np.square(scales) * np.float32(spec.block_size / 12)
    return errors * np.float32(PATIENCE[spec.bits]) + usual * np.float32(_NOISE)


def _errors(blocks: Floats, scales: Floats, spec: QuantSpec) -> Floats:
    """Squared errors [rows, blocks]."""
    codes = codec.encode(blocks, scales, spec.bits).reshape(blocks.shape)
    error: Floats = np.square(codes * scales[..., None] - blocks).sum(-1)
    return error


def _with_zero_points(values: Floats, base: QuantisedMatrix, stored: Packed) -> QuantisedMatrix:
    """Of an affine layout, the columns that hold the blocks' constants stay as they are."""
    spec, count = base.spec, -(-base.columns // base.spec.block_size)
    blocks = codec.as_blocks(values, spec.block_size)
    if spec.affine:
        constants = codec.stored_values(base)[:, base.columns :] / np.float32(spec.block_size)
        blocks = blocks - constants[:, :count, None]
    zeros = unpack(stored, spec.bits, base.scales.shape[1])
    frozen = base.scales[:, :count], zeros[:, :count].astype(np.float32)
    own = _between(blocks, spec.bits)
    most = _allowed(_affine_errors(blocks, *own, spec.bits), frozen[0], spec)
    fits = _affine_errors(blocks, *frozen, spec.bits) <= most
    scales, middles = (np.where(fits, old, new) for old, new in zip(frozen, own, strict=True))
    codes = _affine_codes(blocks, scales, middles, spec.bits).astype(np.uint8)
    return QuantisedMatrix(
        spec,
        base.columns,
        np.concatenate([codec.pack(codes, spec.bits), base.packed[:, count:]], axis=1),
        np.concatenate([scales, base.scales[:, count:]], axis=1),
        codec.pack(np.concatenate([middles.astype(np.uint8), zeros[:, count:]], axis=1), spec.bits),
    )


def _between(blocks: Floats, bits: int) -> tuple[Floats, Floats]:
    """Scales and zero points [rows, blocks] that reach from a block's least value to its largest, and hold zero."""
    most = np.float32((1 << bits) - 1)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    scales = (high - low) / most
    zeros = np.rint(np.divide(-low, scales, out=np.zeros_like(low), where=scales != 0))
    return scales, np.clip(zeros, 0, most)


def _affine_codes(blocks: Floats, scales: Floats, zeros: Floats, bits: int) -> Floats:
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    codes: Floats = np.clip(np.rint(blocks * inverse[..., None]) + zeros[..., None], 0, (1 << bits) - 1)
    return codes


def _affine_errors(blocks: Floats, scales: Floats, zeros: Floats, bits: int) -> Floats:
    codes = _affine_codes(blocks, scales, zeros, bits)
    error: Floats = np.square((codes - zeros[..., None]) * scales[..., None] - blocks).sum(-1)
    return error
