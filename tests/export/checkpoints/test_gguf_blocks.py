"""Codes, scales and offsets stand for what the reference dequantiser says, for every type that comes apart."""

import gguf
import gguf.quants
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.checkpoints.gguf_blocks import LAYOUTS, to_blocks

Types = gguf.GGMLQuantizationType
BLOCKS = 3
HALVES = {
    Types.Q4_0: (0,),
    Types.Q4_1: (0, 2),
    Types.Q5_0: (0,),
    Types.Q5_1: (0, 2),
    Types.Q8_0: (0,),
    Types.Q2_K: (80, 82),
    Types.Q3_K: (108,),
    Types.Q4_K: (0, 2),
    Types.Q5_K: (0, 2),
    Types.Q6_K: (208,),
    Types.IQ4_NL: (0,),
    Types.IQ4_XS: (0,),
}
"""Where a block holds float16 numbers; everything else of it may be any bytes."""
AFFINE = {Types.Q4_1, Types.Q5_1, Types.Q2_K, Types.Q4_K, Types.Q5_K}
SHAPES = {"Q2_K": (4, 16), "Q3_K": (4, 16), "Q4_0": (4, 32), "Q4_1": (4, 32), "Q4_K": (4, 32), "Q6_K": (8, 16)}

every_type = pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.name)


def stored(kind: gguf.GGMLQuantizationType, seed: int, rows: int = 2) -> NDArray[np.uint8]:
    """Random bytes with finite constants: uint8 [rows, bytes]."""
    random = np.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = random.integers(0, 256, (rows * BLOCKS, size), dtype=np.uint8)
    for at in HALVES[kind]:
        raw[:, at : at + 2] = random.normal(0, 1, (len(raw), 1)).astype("<f2").view(np.uint8)
    return raw.reshape(rows, -1)


@every_type
@given(seed=st.integers(0, 1 << 32))
def test_values_equal_the_reference_dequantiser(kind: gguf.GGMLQuantizationType, seed: int) -> None:
    raw = stored(kind, seed)
    codes, scales, offsets = to_blocks(raw, kind)
    size = LAYOUTS[kind].block_size
    values = np.repeat(scales, size, axis=1) * codes
    if offsets is None:
        np.testing.assert_array_equal(values, gguf.quants.dequantize(raw, kind))
    else:  # the offset is rounded once more
        values += np.repeat(offsets, size, axis=1)
        largest = np.abs(scales).max() * 64 + np.abs(offsets).max()
        np.testing.assert_allclose(values, gguf.quants.dequantize(raw, kind), rtol=0, atol=largest * 2**-23)


@every_type
def test_codes_and_scales_have_the_shape_that_the_layout_says(kind: gguf.GGMLQuantizationType) -> None:
    codes, scales, offsets = to_blocks(stored(kind, 1, rows=3), kind)
    layout, columns = LAYOUTS[kind], BLOCKS * gguf.GGML_QUANT_SIZES[kind][0]
    assert (layout.bits, layout.block_size) == SHAPES.get(kind.name, (8, 32))
    assert codes.shape == (3, columns)
    assert codes.dtype == np.int8
    assert scales.shape == (3, columns // layout.block_size)
    assert scales.dtype == np.float32
    assert (offsets is not None) == (kind in AFFINE)
    assert offsets is None or (offsets.shape, offsets.dtype) == (scales.shape, scales.dtype)
    if layout.bits == 4:
        assert codes.min() >= -8
        assert codes.max() <= 7


@every_type
def test_constants_that_are_not_finite_come_through_without_a_warning(kind: gguf.GGMLQuantizationType) -> None:
    raw = stored(kind, 2).reshape(-1, gguf.GGML_QUANT_SIZES[kind][1])
    at = HALVES[kind][0]
    raw[0, at : at + 2] = 0x00, 0x7C  # infinity
    _, scales, _ = to_blocks(raw.reshape(2, -1), kind)
    assert not np.isfinite(scales).all()
