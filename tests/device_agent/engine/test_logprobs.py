from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.logprobs import PromptLogprobs, logprob_of
from device_agent.engine.records import TokenLogprob
from edgekit.errors import ServerError

Array = npt.NDArray[np.floating[Any]]


def log_softmax(logits: Array) -> Array:
    exact = logits.astype(np.float64)
    found: Array = exact - np.logaddexp.reduce(exact)
    return found


LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40).map(
    lambda found: np.array(found, np.float32)
)


@given(LOGITS, st.integers(0, 20), st.data())
def test_they_are_the_log_softmax_and_the_likeliest_come_first(
    logits: npt.NDArray[np.float32], top: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.integers(0, logits.size - 1))
    found, expected = logprob_of(logits, chosen, top=top), log_softmax(logits)
    assert found.id == chosen
    assert found.logprob == pytest.approx(expected[chosen], rel=1e-6, abs=1e-5)
    assert len(found.top) == min(top, logits.size)
    order = sorted(range(logits.size), key=lambda each: (-logits[each], each))
    assert [token_id for token_id, _ in found.top] == order[: len(found.top)]
    np.testing.assert_allclose(
        [value for _, value in found.top], expected[order[: len(found.top)]], rtol=1e-6, atol=1e-5
    )


@given(LOGITS)
def test_all_of_them_sum_to_one(logits: npt.NDArray[np.float32]) -> None:
    total = sum(np.exp(logprob_of(logits, each, top=0).logprob or 0.0) for each in range(logits.size))
    assert total == pytest.approx(1, rel=1e-5)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ServerError):
        logprob_of(np.full(4, np.nan, np.float32), 0, top=1)


def test_logits_are_not_changed() -> None:
    logits = np.array([1, 2, 3], np.float32)
    logprob_of(logits, 0, top=2)
    assert logits.tolist() == [1, 2, 3]


def test_a_prompts_logprobs_do_not_depend_on_how_it_was_read() -> None:
    prompt = (3, 1, 4, 1, 5)
    lines = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    whole, parts = PromptLogprobs(prompt, top=2), PromptLogprobs(prompt, top=2)
    whole.note(0, lines)
    parts.note(0, lines[:2])
    parts.note(2, lines[2:3])
    parts.note(1, lines[1:])  # read again, from the second token on
    assert whole.all() == parts.all()
    assert whole.all()[0] == TokenLogprob(3, None)
    assert [each.id for each in whole.all()] == list(prompt)
    assert whole.all()[2] == logprob_of(lines[1], 4, top=2)
