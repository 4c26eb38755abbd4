"""A smaller model keeps in step with a text, and a request asks whatever promises most."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.drafting.guesser import Guesser
from device_agent.engine.drafting.lengths import MOST_GUESSES
from device_agent.engine.drafting.model import ModelDrafter, check_same_vocabulary
from device_agent.engine.kept.prefixes import common
from device_agent.engine.records import GREEDY
from device_agent.engine.rows import Floats
from edgekit.errors import BundleError, UsageError
from tests.device_agent.engine.guessable import VOCAB, FakeRows, affine, decoded, flat, linear, sharp

TOKENS = st.lists(st.integers(0, 3), max_size=60)


# --- a smaller model ------------------------------------------------------------------------


class Words:
    def __init__(self, **words: int) -> None:
        self._words = words

    def get_vocab(self, with_added_tokens: bool = True) -> Mapping[str, int]:
        return self._words


def test_the_same_tokens_may_guess() -> None:
    check_same_vocabulary(Words(a=1, b=2), Words(b=2, a=1), name="small")


@pytest.mark.parametrize(
    ("theirs", "count"), [(Words(a=1, b=3), 1), (Words(a=1), 1), (Words(a=1, b=2, c=3), 1), (Words(x=1, y=2), 4)]
)
def test_other_tokens_may_not(theirs: Words, count: int) -> None:
    with pytest.raises(UsageError, match=f"small cannot guess .* {count} tokens differ"):
        check_same_vocabulary(Words(a=1, b=2), theirs, name="small")


def test_a_model_guesses_what_it_would_say() -> None:
    assert list(ModelDrafter(FakeRows(sharp), vocab=10).propose([3], 5)) == [4, 5, 6, 0, 1]


def test_only_what_is_new_is_read() -> None:
    rows = FakeRows(sharp)
    drafter = ModelDrafter(rows, vocab=10)
    drafter.propose([1, 2, 3], 3)  # guesses 4 5 6, and has read 4 and 5
    rows.calls.clear()
    assert list(drafter.propose([1, 2, 3, 4, 9], 2)) == [3, 4]  # 4 came true, then came 9
    assert rows.calls == [(9,), (3,)]
    rows.calls.clear()
    drafter.propose([1, 2, 3, 4, 9], 1)  # the same again: the last one must be read for its logits
    assert rows.calls == [(9,)]
    rows.calls.clear()
    drafter.propose([5, 6], 1)
    assert rows.calls == [(5, 6)]


@given(st.lists(st.tuples(TOKENS.filter(bool), st.integers(1, 5)), min_size=1, max_size=5))
def test_the_row_always_agrees_with_the_text(texts: list[tuple[list[int], int]]) -> None:
    drafter = ModelDrafter(FakeRows(), vocab=VOCAB)
    for ids, most in texts:
        assert drafter.propose(ids, most) == ModelDrafter(FakeRows(), vocab=VOCAB).propose(ids, most)


def test_long_texts_are_read_in_chunks() -> None:
    rows = FakeRows(sharp)
    ModelDrafter(rows, vocab=10).propose([1] * 300, 1)
    assert [len(call) for call in rows.calls] == [128, 128, 44]


@pytest.mark.parametrize(("tokens", "guesses"), [(4, 3), (6, 1), (7, 0), (20, 0)])
def test_guesses_end_where_the_smaller_context_does(tokens: int, guesses: int) -> None:
    rows = FakeRows(sharp, context_tokens=6)
    assert len(ModelDrafter(rows, vocab=10).propose([1] * tokens, 9)) == guesses


def test_ids_that_the_larger_model_lacks_are_not_guessed() -> None:
    def beyond(_ids: Sequence[int]) -> Floats:
        return np.asarray([0, 1, 5], np.float32)

    assert list(ModelDrafter(FakeRows(beyond), vocab=2).propose([0], 2)) == [1, 1]


@pytest.mark.parametrize("error", [BundleError("small", "broken"), ValueError("no"), MemoryError()], ids=repr)
def test_an_error_ends_the_guessing_and_nothing_else(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    rows = FakeRows(sharp)
    drafter = ModelDrafter(rows, vocab=10)
    drafter.propose([1], 2)
    rows.error = error
    assert list(drafter.propose([1, 2, 3], 2)) == []
    rows.error = None
    assert list(drafter.propose([1, 2, 3], 2)) == []
    assert [record.message for record in caplog.records] == ["The draft model failed, and is not used any more"]


def test_the_time_of_a_guess_is_measured_without_long_readings() -> None:
    now = itertools.count()
    drafter = ModelDrafter(FakeRows(sharp), vocab=10, clock=lambda: float(next(now)))
    drafter.propose([1] * 100, 4)
    assert drafter.guess_s == 0
    drafter.propose([*[1] * 100, 2], 4)
    assert drafter.guess_s == 0.25


# --- both together --------------------------------------------------------------------------


def follow(
    guesser: Guesser, prompt: Sequence[int], answer: Sequence[int], cost: Callable[[int], float]
) -> list[tuple[int, int]]:
    """Decode `answer`; for each step, guesses made and guesses that came true."""
    ids, at, steps = [*prompt, answer[0]], 1, []
    while at < len(answer):
        drafts = guesser.guess(ids, room=len(answer) - at - 1, cost=cost)
        assert len(drafts) <= max(0, min(len(answer) - at - 1, MOST_GUESSES))
        true = common(drafts, answer[at:])
        ids += answer[at : at + true + 1]
        at += true + 1
        steps.append((len(drafts), true))
    return steps


def test_a_copied_text_takes_a_fraction_of_the_steps() -> None:
    text = list(np.random.default_rng(1).permutation(200))
    steps = follow(Guesser(), text, text, affine)
    assert len(steps) < len(text) / 8
    seconds = sum(affine(1 + made) for made, _ in steps)
    assert len(text) * affine(1) / seconds > 2


def test_a_text_that_does_not_repeat_costs_nothing() -> None:
    steps = follow(Guesser(), range(1000, 1100), list(range(300)), affine)
    assert steps == [(0, 0)] * 299


def test_repetitions_that_mislead_are_left_alone_soon() -> None:
    random = np.random.default_rng(2).integers(0, 12, 400).tolist()  # every pair occurs, and tells nothing
    steps = follow(Guesser(), random[:100], random[100:], affine)
    seconds = sum(affine(1 + made) for made, _ in steps)
    assert seconds < 1.06 * affine(1) * 300
    assert sum(made for made, _ in steps[150:]) <= 5


def test_unverified_guesses_teach_it_that_copying_has_begun() -> None:
    noise = np.random.default_rng(3).integers(0, 12, 300).tolist()
    block = [20, 21, 22, 23]
    answer = [*noise, *itertools.chain.from_iterable([*block, 30 + i] for i in range(100))]
    steps = follow(Guesser(), [], answer, affine)
    assert sum(true for _, true in steps[-30:]) >= 15


def test_what_costs_too_much_is_not_guessed_however_sure() -> None:
    text = list(range(100))
    assert follow(Guesser(), text, text, linear) == [(0, 0)] * 99


def test_no_room_is_no_guess() -> None:
    guesser = Guesser()
    assert list(guesser.guess([1, 2, 3, 1, 2], room=0, cost=flat)) == []
    assert list(guesser.guess([1, 2, 3, 1, 2], room=1, cost=flat)) == [3]


def test_a_smaller_model_guesses_where_the_text_has_nothing() -> None:
    rows = FakeRows(sharp)
    steps = follow(Guesser(ModelDrafter(rows, vocab=10)), [9], [0, 1, 2, 3, 4, 5, 6], flat)
    assert steps[0][1] >= 4
    assert rows.calls


def test_the_surer_of_both_is_asked() -> None:
    rows = FakeRows(sharp)
    guesser = Guesser(ModelDrafter(rows, vocab=10))
    text = [9, 8, 7, 9, 8, 6, 5] * 20  # long known, and nothing that the small model would say
    assert list(guesser.guess(text, room=3, cost=flat)) == text[:3]
    assert not rows.calls


def test_a_smaller_model_that_is_as_slow_as_the_larger_one_is_not_asked() -> None:
    now = itertools.count()
    rows = FakeRows(sharp)
    guesser = Guesser(
        ModelDrafter(rows, vocab=10, clock=lambda: float(next(now)) * 5)
    )  # a second for each of 5 guesses
    steps = follow(guesser, [3], [(4 + at) % 7 for at in range(6)] + [9, 8], flat)
    assert steps
    rows.calls.clear()
    guesser.guess([50, 51, 52], room=8, cost=flat)
    assert not rows.calls


def test_a_smaller_model_that_is_wrong_is_asked_ever_more_seldom() -> None:
    rows = FakeRows(sharp)
    answer = [9 if at % 2 else 100 + at for at in range(600)]
    follow(Guesser(ModelDrafter(rows, vocab=10)), [3], answer, affine)
    trials = [call for call in rows.calls if len(call) > 1]  # it catches up with what came between
    assert 3 < len(trials) < 25


def test_greedy_text_is_the_same_with_a_guesser() -> None:
    prompt = [1, 2, 0, 1]
    guesser = Guesser(ModelDrafter(FakeRows(), vocab=VOCAB))
    plain = decoded(GREEDY, prompt, 60, guess=lambda _: [])
    assert decoded(GREEDY, prompt, 60, guess=lambda ids: list(guesser.guess(ids, room=8, cost=affine))) == plain
