from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.quant import QuantSpec
from edgekit.twin.codes import row_steps
from export.quantize import codec, rtn
from export.quantize.codec import QuantisedMatrix
from export.quantize.refit import PATIENCE, refitted

Floats = NDArray[np.float32]
ROWS, COLUMNS, BLOCK = 8, 160, 32


def normal(seed: int = 0, columns: int = COLUMNS) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.05, (ROWS, columns)).astype(np.float32)


def rounded(spec: QuantSpec, values: Floats) -> QuantisedMatrix:
    return codec.store_symmetric(*rtn.quantise(values, spec.bits, spec.block_size, twin=spec.twin), spec)


def kept(spec: QuantSpec, values: Floats) -> QuantisedMatrix:
    """As blocks of a GGUF or a GPTQ checkpoint become ours."""
    blocks = codec.as_blocks(values, spec.block_size)
    low, high = blocks.min(-1), blocks.max(-1)
    most = (1 << spec.bits) - 1
    scales = ((high - low) / most).astype(np.float32)
    half = np.float32(1 << (spec.bits - 1))
    least = low if spec.affine else np.rint(low / scales) * scales
    offsets = least + half * scales
    codes = np.clip(np.rint((blocks - offsets[..., None]) / scales[..., None]), -half, half - 1).astype(np.int8)
    store = codec.store_affine if spec.affine else codec.store_with_zero_points
    return store(codes.reshape(len(values), -1), scales, offsets.astype(np.float32), spec)


LAYOUTS: dict[str, tuple[QuantSpec, Callable[[QuantSpec, Floats], QuantisedMatrix]]] = {
    "twin": (QuantSpec(4, BLOCK, twin=True), rounded),
    "plain INT4": (QuantSpec(4, BLOCK), rounded),
    "INT8": (QuantSpec(8, BLOCK), rounded),
    "affine": (QuantSpec(4, BLOCK, "affine"), kept),
    "affine INT8": (QuantSpec(8, BLOCK, "affine"), kept),
    "zero points": (QuantSpec(4, BLOCK, "zero_points"), kept),
}


def same(one: QuantisedMatrix, two: QuantisedMatrix) -> bool:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [(one.packed, two.packed), (one.scales, two.scales)]
    if one.zero_points is not None and two.zero_points is not None:
        pairs.append((one.zero_points, two.zero_points))
    return (one.spec, one.columns) == (two.spec, two.columns) and all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", LAYOUTS)
@given(seed=st.integers(0, 200))
def test_what_the_base_means_gives_the_bytes_of_the_base(name: str, seed: int) -> None:
    spec, make = LAYOUTS[name]
    base = make(spec, normal(seed))
    again = refitted(codec.dequantise(base), base)
    np.testing.assert_array_equal(again.scales, base.scales)
    assert np.mean(again.packed != base.packed) < 0.001, "a constant's rounding may tip a value on the edge"
    np.testing.assert_allclose(codec.dequantise(again), codec.dequantise(base), atol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_small_change_keeps_scales_and_most_codes(name: str) -> None:
    spec, make = LAYOUTS[name]
    base = make(spec, normal())
    moved = codec.dequantise(base) + normal(1) * np.float32(0.01)
    made = refitted(moved, base)
    assert np.mean(made.scales != base.scales) <= 0.1
    if spec.bits == 4:
        assert np.mean(made.packed != base.packed) < 0.1
    anew = make(spec, moved)
    assert np.mean(anew.scales != base.scales) > 0.5, "what it saves"


@pytest.mark.parametrize("name", ["twin", "plain INT4", "INT8"])
@given(seed=st.integers(0, 200), share=st.floats(0, 3), columns=st.integers(1, 100))
def test_patience_has_an_end(name: str, seed: int, share: float, columns: int) -> None:
    """However far the values moved, no row is worse than with scales of its own by more than was allowed."""
    spec, _ = LAYOUTS[name]
    base = rounded(spec, normal(seed, columns))
    values = normal(seed, columns) + normal(seed + 1, columns) * np.float32(share)

    def error(matrix: QuantisedMatrix) -> Floats:
        found: Floats = np.square(codec.dequantise(matrix) - values).sum(1)
        return found

    made, slack = refitted(values, base), np.square(base.scales).sum(1) * BLOCK * 0.002
    assert (error(made) <= error(rounded(spec, values)) * PATIENCE[spec.bits] ** 2 + slack).all()


@pytest.mark.parametrize("name", ["affine", "zero points"])
@pytest.mark.parametrize("factor", [0.2, 0.7, 1.5, 4])
def test_blocks_that_grew_or_shrank_get_zero_points_of_their_own(name: str, factor: float) -> None:
    spec, make = LAYOUTS[name]
    base = make(spec, normal())
    values = codec.dequantise(base)
    values[2] = normal(5)[2] * np.float32(factor)
    made = refitted(values, base)
    error, plain = (np.square(codec.dequantise(each) - values).sum(1) for each in (made, make(spec, values)))
    assert error[2] <= plain[2] * 1.5
    others = np.arange(ROWS) != 2
    np.testing.assert_array_equal(made.scales[others], base.scales[others])
    assert (made.scales[2] != base.scales[2]).any()


@given(seed=st.integers(0, 200), factor=st.floats(0.1, 5))
def test_twins_remain_twins(seed: int, factor: float) -> None:
    spec, _ = LAYOUTS["twin"]
    values = normal(seed)
    base = rounded(spec, values)
    values[:, :BLOCK] *= np.float32(factor)
    values[3] *= np.float32(factor)
    made = refitted(values, base)
    assert row_steps(made.scales) is not None


def test_a_block_of_a_twin_gets_another_multiple_of_the_same_step() -> None:
    spec, _ = LAYOUTS["twin"]
    values = normal()
    values[:, -BLOCK] = 0.5  # so that the rows' largest scales are elsewhere
    base = rounded(spec, values)
    values[0, :BLOCK] *= np.float32(1.6)
    made = refitted(values, base)
    assert made.scales[0, 0] != base.scales[0, 0]
    np.testing.assert_array_equal(made.scales[0, 1:], base.scales[0, 1:])
    np.testing.assert_array_equal(made.scales[1:], base.scales[1:])


def test_a_base_whose_scales_are_no_twins_is_rounded_anew() -> None:
    spec, _ = LAYOUTS["twin"]
    values = normal()
    base = rounded(spec, values)
    odd = QuantisedMatrix(spec, base.columns, base.packed, base.scales * np.linspace(1, 2, 5, dtype=np.float32))
    assert same(refitted(values, odd), rounded(spec, values))


@pytest.mark.parametrize("name", LAYOUTS)
def test_zeros_stay_zeros(name: str) -> None:
    spec, make = LAYOUTS[name]
    base = make(spec, normal())
    values = np.zeros((ROWS, COLUMNS), np.float32)
    assert np.abs(codec.dequantise(refitted(values, base))).max() < 0.002
    if make is rounded:
        empty = rounded(spec, values)
        assert np.abs(codec.dequantise(refitted(normal(), empty)) - normal()).max() < 0.05
