"""INT8 rows mean the weights that the blocks mean, to half a step, or exactly where the blocks were made for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.quant import QuantSpec
from edgekit.twin.codes import Reach, StoredRows, int8_rows, row_steps, unpack

Floats = NDArray[np.float32]
NAMES = ["int4-b32", "int4-b16-zp", "int4-b32-affine", "int4-b64-twin", "int8-b32", "int8-b16-affine", "int8-b128"]
REACHES: list[Reach] = [64, 127]


def stored(name: str, *, rows: int = 5, columns: int = 128, seed: int = 0) -> StoredRows:
    """Random bytes of this layout."""
    spec, random = QuantSpec.parse(name), np.random.default_rng(seed)
    blocks = spec.blocks(columns)
    packed = random.integers(0, 256, (rows, blocks, spec.block_size * spec.bits // 8)).astype(np.uint8)
    scales = random.normal(0, 0.01, (rows, blocks)).astype(np.float32)
    if spec.twin:
        steps = random.integers(1, 16, (rows, blocks)) * random.choice([-1, 1], (rows, blocks))
        scales = (random.uniform(1e-3, 1e-2, (rows, 1)) * steps).astype(np.float32)
    zero_points = None
    if spec.offsets != "none":
        zero_points = random.integers(0, 256, (rows, -(-blocks * spec.bits // 8))).astype(np.uint8)
    return StoredRows(spec, columns, packed, scales, zero_points)


def meant(rows: StoredRows) -> NDArray[np.float64]:
    """What the operator multiplies, weight by weight: block means are the inputs of the columns behind the others."""
    spec, blocks = rows.spec, rows.scales.shape[1]
    half = 1 << (spec.bits - 1)
    values = np.empty((len(rows.scales), blocks, spec.block_size))
    for row, block, at in np.ndindex(*values.shape):
        raw = rows.packed[row, block]
        code = int(raw[at]) if spec.bits == 8 else int(raw[at // 2]) >> 4 * (at % 2) & 15
        zero = half
        if rows.zero_points is not None:
            raw = rows.zero_points[row]
            zero = int(raw[block]) if spec.bits == 8 else int(raw[block // 2]) >> 4 * (block % 2) & 15
        values[row, block, at] = (code - zero) * float(rows.scales[row, block])
    flat = values.reshape(len(values), -1)
    weights = flat[:, : rows.columns]
    for column in range(rows.columns) if spec.affine else ():
        weights[:, column] += flat[:, rows.columns + column // spec.block_size] / spec.block_size
    return weights


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_near_to_half_a_step(name: str, reach: Reach) -> None:
    rows = stored(name)
    codes, scales = int8_rows(rows, reach)
    assert codes.shape == (5, 128)
    assert np.abs(codes.astype(int)).max() <= reach
    error = np.abs(codes * scales[:, None].astype(np.float64) - meant(rows))
    assert (error <= 0.501 * scales[:, None]).all()
    if name != "int4-b64-twin":
        assert (np.abs(codes.astype(int)).max(1) == reach).all()


@given(st.integers(0, 1000), st.integers(1, 15))
def test_a_twin_is_exact(seed: int, largest: int) -> None:
    """Also if its largest multiple is not the largest there can be."""
    rows = stored("int4-b64-twin", rows=3, seed=seed)
    steps = np.abs(rows.scales).max(1, keepdims=True)
    multiples = np.random.default_rng(seed).integers(1, largest + 1, rows.scales.shape)
    multiples[:, 0] = largest
    scales = (steps * multiples / 15).astype(np.float32)
    exact = StoredRows(rows.spec, rows.columns, rows.packed, scales)
    codes, found = int8_rows(exact, 127)
    np.testing.assert_allclose(codes * found[:, None].astype(np.float64), meant(exact), rtol=1e-5, atol=0)


def test_scales_that_are_no_twin_s_are_rounded_like_others() -> None:
    rows = stored("int4-b64-twin")
    rows.scales[2, 0] *= np.float32(1.037)
    codes, scales = int8_rows(rows, 127)
    error = np.abs(codes * scales[:, None].astype(np.float64) - meant(rows))
    assert (error <= 0.501 * scales[:, None]).all()


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_zeros_stay_zeros(name: str, reach: Reach) -> None:
    rows = stored(name)
    rows.scales[1:3] = 0
    codes, scales = int8_rows(rows, reach)
    assert not codes[1:3].any()
    assert not scales[1:3].any()
    assert codes[0].any()
    assert np.isfinite(scales).all()


@given(st.lists(st.integers(0, 15), min_size=1))
def test_nibbles_come_low_first(values: list[int]) -> None:
    even = [*values, 0] if len(values) % 2 else values
    packed = np.array([low | high << 4 for low, high in zip(even[::2], even[1::2], strict=True)], np.uint8)
    assert unpack(packed, 4, len(values)).tolist() == values


@given(seed=st.integers(0, 100), step=st.floats(1e-5, 10))
def test_scales_are_whole_multiples_of_their_row_s_step(seed: int, step: float) -> None:
    multiples = np.random.default_rng(seed).integers(1, 16, (4, 6)) * np.array([1, -1, 1, 1, -1, 1], np.float32)
    scales = (multiples * np.float32(step)).astype(np.float32)
    found = row_steps(scales)
    assert found is not None
    steps, times = found
    np.testing.assert_allclose(times * steps, scales, rtol=1e-5)
    assert (np.rint(times) == times).all()
    assert np.abs(times).max() <= 15


def test_scales_without_a_common_step_have_none() -> None:
    assert row_steps(np.array([[1.0, 0.7071]], np.float32)) is None
    found = row_steps(np.zeros((2, 3), np.float32))
    assert found is not None
    assert not found[0].any()
