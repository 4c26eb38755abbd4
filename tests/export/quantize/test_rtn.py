import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.quant import QuantSpec
from export.quantize import codec, rtn

Floats = NDArray[np.float32]


def rounded(values: Floats, bits: int, block: int) -> Floats:
    return codec.dequantise(codec.store_symmetric(*rtn.quantise(values, bits, block), QuantSpec(bits, block)))


def squared_error_of_plain_scales(values: Floats, bits: int, block: int) -> Floats:
    codes, scales = codec.round_blocks(values, bits, block)
    meant = codes.reshape(*scales.shape, block) * scales[..., None]
    error: Floats = np.square(codec.as_blocks(values, block) - meant).sum(-1)
    return error


@given(seed=st.integers(0, 500), columns=st.integers(1, 100), outlier=st.floats(1, 30), bits=st.sampled_from([4, 8]))
def test_no_block_gets_worse_than_with_its_plain_scale(seed: int, columns: int, outlier: float, bits: int) -> None:
    values = np.random.default_rng(seed).normal(size=(3, columns)).astype(np.float32)
    values[0, 0] *= np.float32(outlier)
    error = np.square(codec.as_blocks(values - rounded(values, bits, 32), 32)).sum(-1)
    assert (error <= squared_error_of_plain_scales(values, bits, 32) * 1.0001 + 1e-9).all()


def test_searching_scales_pays_for_four_bits() -> None:
    values = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    error = np.square(values - rounded(values, 4, 32)).sum()
    assert error < 0.97 * squared_error_of_plain_scales(values, 4, 32).sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_zeros_stay_zero(bits: int) -> None:
    values = np.zeros((2, 64), np.float32)
    values[1, 40] = 3.0
    np.testing.assert_allclose(rounded(values, bits, 32), values, rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@given(seed=st.integers(0, 100), step=st.floats(0.001, 10))
def test_values_on_the_grid_are_kept(bits: int, seed: int, step: float) -> None:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(seed).integers(-half, half, (2, 32))
    codes[:, 0] = -half  # the extreme that tells the scale
    values = (codes * np.float32(step)).astype(np.float32)
    np.testing.assert_allclose(rounded(values, bits, 32), values, rtol=1e-5)


@pytest.mark.parametrize(("bits", "steps"), [(4, 8), (8, 128)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_error_is_at_most_half_a_step(bits: int, steps: int, sign: int) -> None:
    values = sign * np.linspace(-0.2, 1, 32, dtype=np.float32)[None]
    codes, scales = codec.round_blocks(values, bits, 32)
    assert np.abs(codes * scales - values).max() <= 0.5001 / steps
