"""The stored layout of a quantised matrix, in numpy, both ways.

Follows the operator specifications of onnxruntime, com.microsoft version 1:
`MatMulNBits` reads B as uint8 [rows, blocks, block_size * bits / 8], scales as float32
[rows, blocks] and zero points as uint8 [rows, ceil(blocks * bits / 8)], low nibble first; an absent
zero point means 2^(bits-1). `GatherBlockQuantized` reads the same bytes as [rows, columns * bits / 8].
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.quant import QuantSpec
from edgekit.twin.codes import StoredRows, differences

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Packed = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantisedMatrix:
    """A matrix [rows, columns] as stored. `zero_points` is None for symmetric blocks."""

    spec: QuantSpec
    columns: int
    packed: Packed
    scales: Floats
    zero_points: Packed | None = None

    @property
    def rows(self) -> int:
        """Outputs of the matrix."""
        return int(self.packed.shape[0])


def pack(values: Packed, bits: int) -> Packed:
    """uint8 values along the last axis to bytes: themselves for 8 bits, two to a byte for 4, low nibble first."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: Packed = values[..., 0::2] | (values[..., 1::2] << np.uint8(4))
    return packed


def store_symmetric(codes: Codes, scales: Floats, spec: QuantSpec) -> QuantisedMatrix:
    """Store signed codes [rows, columns] with one scale per block."""
    return QuantisedMatrix(spec, codes.shape[1], _pack_blocks(codes, spec), scales)


def store_affine(codes: Codes, scales: Floats, constants: Floats, spec: QuantSpec) -> QuantisedMatrix:
    """Store value = scale * code + constant, codes signed [rows, columns], the others [rows, blocks].

    The constant is split into a zero point and a rest; the rests become one further column per block, scaled by
    the block size because those columns multiply block means, and quantised as any other column. A block that does
    not contain zero would need a zero point that does not exist, and its large rest would coarsen its neighbours':
    it is rounded anew without a constant. Raises ValueError if the columns are not whole blocks.
    """
    if codes.shape[1] % spec.block_size:
        raise ValueError(f"{codes.shape[1]} columns are not whole blocks of {spec.block_size}")
    safe = np.where(scales == 0, np.float32(1), scales)
    zeros = np.rint(-constants / safe)
    codes, scales, constants, zeros = _without_far_constants(codes, scales, constants, zeros, spec)
    rest = ((constants + zeros * scales) * np.float32(spec.block_size)).astype(np.float32)
    rest_codes, rest_scales = round_blocks(rest, spec.bits, spec.block_size)
    all_codes = np.concatenate([codes, rest_codes[:, : rest.shape[1]]], axis=1)
    all_scales = np.concatenate([scales, rest_scales], axis=1)
    all_zeros = np.concatenate([zeros.astype(np.int8), np.zeros(rest_scales.shape, np.int8)], axis=1)
    middle = 1 << (spec.bits - 1)
    zero_points = pack((all_zeros.astype(np.int16) + middle).astype(np.uint8), spec.bits)
    return QuantisedMatrix(spec, codes.shape[1], _pack_blocks(all_codes, spec), all_scales, zero_points)


def store_with_zero_points(codes: Codes, scales: Floats, offsets: Floats, spec: QuantSpec) -> QuantisedMatrix:
    """Store value = scale * code + offset where every offset is a whole multiple of its scale, as GPTQ and AWQ have it.

    Raises ValueError if one is not, or if its zero point does not fit into the bits.
    """
    middle = 1 << (spec.bits - 1)
    zeros = np.rint(-offsets / np.where(scales == 0, np.float32(1), scales))
    if not np.allclose(-zeros * scales, offsets, rtol=1e-5, atol=1e-30) or np.abs(zeros + 0.5).max(initial=0) > middle:
        raise ValueError("an offset is not a zero point")
    zero_points = pack((zeros.astype(np.int16) + middle).astype(np.uint8), spec.bits)
    return QuantisedMatrix(spec, codes.shape[1], _pack_blocks(codes, spec), scales, zero_points)


def _without_far_constants(
    codes: Codes, scales: Floats, constants: Floats, zeros: Floats, spec: QuantSpec
) -> tuple[Codes, Floats, Floats, Floats]:
    """Blocks whose zero point is not a code become symmetric: scale * code, with neither constant nor zero point."""
    half = 1 << (spec.bits - 1)
    far = (zeros < -half) | (zeros > half - 1)
    if not far.any():
        return codes, scales, constants, zeros
    blocks = codes.reshape(*scales.shape, spec.block_size).copy()
    values = blocks[far] * scales[far][:, None] + constants[far][:, None]
    rounded, found = round_blocks(values.astype(np.float32), spec.bits, spec.block_size)
    blocks[far], scales = rounded, scales.copy()
    scales[far] = found[:, 0]
    none = np.float32(0)
    return blocks.reshape(codes.shape), scales, np.where(far, none, constants), np.where(far, none, zeros)


def _pack_blocks(codes: Codes, spec: QuantSpec) -> Packed:
    rows, columns = codes.shape
    blocks = -(-columns // spec.block_size)
    middle = 1 << (spec.bits - 1)
    values = np.full((rows, blocks * spec.block_size), middle, np.uint8)
    values[:, :columns] = (codes.astype(np.int16) + middle).astype(np.uint8)
    return pack(values.reshape(rows, blocks, spec.block_size), spec.bits)


def round_blocks(values: Floats, bits: int, block_size: int) -> tuple[Codes, Floats]:
    """Nearest signed codes and scales of each block; the largest value of a block lands on the lowest code.

    values [rows, columns] -> codes [rows, blocks * block_size], scales [rows, blocks]. Two's complement has one
    more negative code than positive, so the scale takes the sign that puts the extreme there.
    """
    blocks = as_blocks(values, block_size)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
    scales = (-extreme / (1 << (bits - 1))).astype(np.float32)
    return encode(blocks, scales, bits), scales


def as_blocks(values: Floats, block_size: int) -> Floats:
    """[rows, columns] -> [rows, blocks, block_size], padded with zeros."""
    rows, columns = values.shape
    padding = -columns % block_size
    if padding:
        values = np.concatenate([values, np.zeros((rows, padding), np.float32)], axis=1)
    return values.reshape(rows, -1, block_size)


def encode(blocks: Floats, scales: Floats, bits: int) -> Codes:
    """Nearest codes of [rows, blocks, block_size] for given scales, flattened to [rows, blocks * block_size]."""
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    codes = np.rint(blocks * inverse[..., None])
    np.clip(codes, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, out=codes)
    return codes.astype(np.int8).reshape(blocks.shape[0], -1)


def stored_values(matrix: QuantisedMatrix) -> Floats:
    """What the operator multiplies: [rows, columns_stored], the block means' columns of affine matrices last."""
    spec = matrix.spec
    values = differences(StoredRows(spec, matrix.columns, matrix.packed, matrix.scales, matrix.zero_points))
    values *= matrix.scales[..., None]
    return values.reshape(matrix.rows, -1)[:, : spec.columns_stored(matrix.columns)]


def dequantise(matrix: QuantisedMatrix) -> Floats:
    """The weights [rows, columns] that the stored bytes mean, constants of affine blocks included."""
    stored, columns = stored_values(matrix), matrix.columns
    if not matrix.spec.affine:
        return stored
    constants = stored[:, columns:] / np.float32(matrix.spec.block_size)
    return stored[:, :columns] + np.repeat(constants, matrix.spec.block_size, axis=1)[:, :columns]
