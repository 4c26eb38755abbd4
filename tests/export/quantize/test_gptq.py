import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.quant import QuantSpec
from export.quantize import codec, gptq, rtn

Floats = NDArray[np.float32]


def correlated(tokens: int, columns: int, seed: int = 0) -> Floats:
    """Inputs [tokens, columns] whose columns go together and differ in size, as a model's do."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(columns // 2, columns)) * np.exp(random.normal(size=columns))
    found: Floats = (
        random.normal(size=(tokens, columns // 2)) @ mixing + 0.1 * random.normal(size=(tokens, columns))
    ).astype(np.float32)
    return found


def weights(rows: int, columns: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def meant(codes: codec.Codes, scales: Floats, bits: int, block: int) -> Floats:
    return codec.dequantise(codec.store_symmetric(codes, scales, QuantSpec(bits, block)))


@pytest.mark.parametrize("block", [16, 32, 64])
@pytest.mark.parametrize("columns", [128, 200], ids=["whole blocks", "a padded block"])
@pytest.mark.parametrize("twin", [False, True], ids=["free", "twin"])
def test_the_output_is_nearer_than_with_rounding_to_nearest(block: int, columns: int, twin: bool) -> None:
    x, values = correlated(1024, columns), weights(48, columns)
    inputs = gptq.inputs_of(x.T @ x)
    found = meant(*gptq.quantise(values, inputs, 4, block, twin=twin), 4, block)
    nearest = meant(*rtn.quantise(values, 4, block, twin=twin, importance=inputs.importance), 4, block)

    def error(rounded: Floats) -> float:
        return float(np.square(x @ (rounded - values).T).sum())

    assert error(found) < 0.5 * error(nearest)
    assert np.square(found - values).sum() > np.square(nearest - values).sum()  # each weight by itself is farther off


@pytest.mark.parametrize("bits", [4, 8])
@given(columns=st.integers(1, 150), seed=st.integers(0, 100))
def test_inputs_that_do_not_go_together_give_rounding_to_nearest(bits: int, columns: int, seed: int) -> None:
    values = weights(5, columns, seed)
    inputs = gptq.inputs_of(np.eye(columns, dtype=np.float32))
    found = meant(*gptq.quantise(values, inputs, bits, 32, twin=False), bits, 32)
    np.testing.assert_allclose(found, meant(*rtn.quantise(values, bits, 32), bits, 32), rtol=1e-6)


def test_scales_are_those_of_rounding_weighted_by_the_inputs_power() -> None:
    x, values = correlated(512, 96), weights(16, 96)
    inputs = gptq.inputs_of(x.T @ x)
    power = np.square(x).sum(0)
    np.testing.assert_allclose(inputs.importance, power + gptq.DAMPING * power.mean(), rtol=1e-3)
    scales = gptq.quantise(values, inputs, 4, 32, twin=True)[1]
    np.testing.assert_array_equal(scales, rtn.quantise(values, 4, 32, twin=True, importance=inputs.importance)[1])


def test_the_most_moved_column_comes_first_and_is_rounded_to_nearest() -> None:
    x, values = correlated(512, 64), weights(16, 64)
    inputs = gptq.inputs_of(x.T @ x)
    power = np.square(x).sum(0)
    assert sorted(inputs.order) == list(range(64))
    assert (np.diff(power[inputs.order]) <= 1e-3 * power.max()).all()
    codes, scales = gptq.quantise(values, inputs, 4, 32, twin=False)
    first = int(inputs.order[0])
    nearest = np.clip(np.rint(values[:, first] / scales[:, first // 32]), -8, 7)
    np.testing.assert_array_equal(codes[:, first], nearest)


def test_the_order_of_the_columns_does_not_matter() -> None:
    """Within a block: shuffling inputs and weights alike shuffles the codes."""
    x, values = correlated(512, 32), weights(16, 32)
    shuffled = np.random.default_rng(2).permutation(32)
    codes, scales = gptq.quantise(values, gptq.inputs_of(x.T @ x), 4, 32, twin=False)
    moved = x[:, shuffled]
    others, same = gptq.quantise(
        np.ascontiguousarray(values[:, shuffled]), gptq.inputs_of(moved.T @ moved), 4, 32, twin=False
    )
    np.testing.assert_allclose(same, scales, rtol=1e-6)
    assert (others == codes[:, shuffled]).mean() > 0.99  # sums in another order: a value between two codes may tip


@pytest.mark.parametrize("tokens", [0, 3, 512], ids=["no token", "fewer tokens than columns", "many tokens"])
def test_inputs_that_never_moved_are_kept_sensible(tokens: int) -> None:
    x, values = correlated(512, 96)[:tokens], weights(16, 96)
    x = x.copy()
    x[:, [0, 5, 40]] = 0
    x[:, 64:] = 0  # a whole block
    found = meant(*gptq.quantise(values, gptq.inputs_of(x.T @ x), 4, 32, twin=True), 4, 32)
    nearest = meant(*rtn.quantise(values, 4, 32, twin=True), 4, 32)
    assert np.isfinite(found).all()
    assert np.square(found - values)[:, 64:].sum() <= 1.01 * np.square(nearest - values)[:, 64:].sum()


def test_zero_weights_stay_zero() -> None:
    x, values = correlated(256, 64), weights(4, 64)
    values[2] = 0
    codes, scales = gptq.quantise(values, gptq.inputs_of(x.T @ x), 4, 32, twin=True)
    assert np.isfinite(scales).all()
    assert not meant(codes, scales, 4, 32)[2].any()


def test_runs_of_columns_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, values = correlated(512, 96), weights(16, 96)
    inputs = gptq.inputs_of(x.T @ x)
    whole, _ = gptq.quantise(values, inputs, 4, 32, twin=True)
    monkeypatch.setattr(gptq, "_LAZY_COLUMNS", 7)
    pieces, _ = gptq.quantise(values, inputs, 4, 32, twin=True)
    assert (whole == pieces).mean() > 0.99  # as above


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_rows_do_not_know_of_each_other(rows: int) -> None:
    x, values = correlated(512, 64), weights(7, 64)
    inputs = gptq.inputs_of(x.T @ x)
    together = gptq.quantise(values, inputs, 4, 32, twin=True)
    alone = gptq.quantise(values[:rows], inputs, 4, 32, twin=True)
    np.testing.assert_array_equal(alone[1], together[1][:rows])
    assert (alone[0] == together[0][:rows]).mean() > 0.99
