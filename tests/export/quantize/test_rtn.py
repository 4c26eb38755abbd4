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


# --- importance ------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", [False, True], ids=["free", "twin"])
def test_columns_that_matter_are_rounded_finer(twin: bool) -> None:
    values = np.random.default_rng(0).standard_t(3, (64, 128)).astype(np.float32)
    importance = np.ones(128, np.float32)
    importance[::4] = 50.0

    def weighted_error(given: Floats | None) -> float:
        codes, scales = rtn.quantise(values, 4, 32, twin=twin, importance=given)
        found = codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(4, 32)))
        return float((np.square(found - values) * importance).sum())

    assert weighted_error(importance) < 0.95 * weighted_error(None)


@pytest.mark.parametrize("twin", [False, True], ids=["free", "twin"])
def test_equal_importance_changes_nothing(twin: bool) -> None:
    values = np.random.default_rng(0).normal(size=(7, 80)).astype(np.float32)
    plain = rtn.quantise(values, 4, 32, twin=twin)
    weighed = rtn.quantise(values, 4, 32, twin=twin, importance=np.full(80, 4.0, np.float32))
    for one, other in zip(plain, weighed, strict=True):
        np.testing.assert_array_equal(one, other)


# --- twin scales -----------------------------------------------------------------------------


def int8_twin(codes: codec.Codes, scales: Floats, block: int) -> tuple[Floats, Floats]:
    """What a device makes of a twin matrix: integers [rows, columns], and a scale of each row [rows]."""
    rows, columns = codes.shape
    integers, row_scales = np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32)
    for row in range(rows):
        largest = np.abs(scales[row]).max()
        for steps in range(1, rtn.TWIN_STEPS + 1) if largest else ():
            multiples = scales[row] / (largest / np.float32(steps))
            if np.abs(multiples - np.rint(multiples)).max() < 1e-4:
                row_scales[row] = largest / np.float32(steps)
                integers[row] = codes[row] * np.repeat(np.rint(multiples), block)[:columns]
                break
        else:
            assert largest == 0, f"the scales of row {row} are no multiples of one number: {scales[row]}"
    return integers, row_scales


@given(
    seed=st.integers(0, 500),
    rows=st.integers(1, 6),
    columns=st.integers(1, 300),
    block=st.sampled_from([16, 32, 64]),
    spread=st.floats(0, 3),
)
def test_a_twin_is_exactly_one_int8_matrix_with_a_scale_for_each_row(
    seed: int, rows: int, columns: int, block: int, spread: float
) -> None:
    random = np.random.default_rng(seed)
    blocks = -(-columns // block)
    loudness = np.repeat(np.exp(spread * random.normal(size=(rows, blocks))), block, axis=1)[:, :columns]
    values = (random.normal(size=(rows, columns)) * loudness).astype(np.float32)
    codes, scales = rtn.quantise(values, 4, block, twin=True)
    integers, row_scales = int8_twin(codes, scales, block)
    assert np.abs(integers).max() <= 127
    meant = codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(4, block, twin=True)))
    np.testing.assert_allclose(integers * row_scales[:, None], meant, rtol=1e-6, atol=0)


def test_twin_scales_cost_hardly_more_than_free_ones() -> None:
    values = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)

    def error(*, twin: bool) -> float:
        codes, scales = rtn.quantise(values, 4, 32, twin=twin)
        return float(np.square(codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(4, 32))) - values).sum())

    assert error(twin=True) < 1.05 * error(twin=False)


def test_a_quiet_block_beside_a_loud_one_still_has_a_step_of_its_own() -> None:
    """One fifteenth of the loudest: with 4 bits, a block of a tenth of the row's largest value keeps its shape."""
    values = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    values[:, 32:] *= np.float32(0.1)
    codes, scales = rtn.quantise(values, 4, 32, twin=True)
    found = codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(4, 32)))
    quiet = np.square(found - values)[:, 32:].sum() / np.square(values[:, 32:]).sum()
    assert quiet < 0.05


@pytest.mark.parametrize("twin", [False, True], ids=["free", "twin"])
def test_rows_and_blocks_of_zeros_stay_zero_beside_others(twin: bool) -> None:
    values = np.random.default_rng(0).normal(size=(3, 96)).astype(np.float32)
    values[1] = 0
    values[2, 32:64] = 0
    codes, scales = rtn.quantise(values, 4, 32, twin=twin)
    found = codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(4, 32)))
    assert np.isfinite(scales).all()
    assert not found[values == 0].any()
    assert np.abs(found - values).max() < 0.5


@pytest.mark.parametrize("twin", [False, True], ids=["free", "twin"])
def test_tiles_do_not_show(twin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 70)).astype(np.float32)
    whole = rtn.quantise(values, 4, 32, twin=twin)
    monkeypatch.setattr(rtn, "_TILE_VALUES", 3 * 70)
    for one, other in zip(whole, rtn.quantise(values, 4, 32, twin=twin), strict=True):
        np.testing.assert_array_equal(one, other)
