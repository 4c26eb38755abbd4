import numpy as np
import pytest

from export.divergence import Divergence, divergence, log_softmax


def logits(seed: int, tokens: int = 6) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 3, (tokens, 50)).astype(np.float32)


def test_it_is_the_mean_over_all_tokens_of_all_rows() -> None:
    truth, others = [logits(0, 4), logits(1, 9)], [logits(2, 4), logits(3, 9)]
    expected = divergence(np.concatenate(truth), np.concatenate(others))[0]
    assert Divergence(truth).of(others) == pytest.approx(expected, rel=1e-5)


def test_equal_distributions_do_not_diverge() -> None:
    assert Divergence([logits(0)]).of([logits(0) + np.float32(100)]) == pytest.approx(0, abs=1e-5)


def test_large_logits_do_not_overflow() -> None:
    found = log_softmax(logits(0) * np.float32(1e4))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(-1), 1, rtol=1e-5)


def test_each_row_needs_its_other() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Divergence([logits(0), logits(1)]).of([logits(0)])
