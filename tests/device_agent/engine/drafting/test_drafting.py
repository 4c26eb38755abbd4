"""Guesses save steps where a text repeats itself, are as many as pay, and never change what is said."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.drafting import ngram
from device_agent.engine.drafting.lengths import MOST_GUESSES, DraftLengths
from device_agent.engine.drafting.ngram import NgramDrafter
from device_agent.engine.drafting.verify import verified
from device_agent.engine.records import Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, Sampler
from tests.device_agent.engine.guessable import VOCAB, affine, decoded, flat, linear, logits_after, never

TOKENS = st.lists(st.integers(0, 3), max_size=30)


# --- verified -------------------------------------------------------------------------------


def always(*tokens: int) -> Sampler:
    """Says these tokens in turn."""
    script = iter(tokens)
    return lambda _logits, _history: next(script)


@pytest.mark.parametrize(
    ("drafts", "said", "expected"),
    [
        ((), (3,), [3]),
        ((3, 1), (3, 1, 2), [3, 1, 2]),
        ((3, 1), (3, 0), [3, 0]),
        ((3, 1), (2,), [2]),
        ((3, 4, 1), (3, 4), [3, 4]),
        ((4,), (4,), [4]),
    ],
    ids=["no guess", "all true", "the last one wrong", "the first one wrong", "the end as guessed", "ends at once"],
)
def test_true_guesses_and_one_more_token_are_kept(
    drafts: tuple[int, ...], said: tuple[int, ...], expected: list[int]
) -> None:
    history = History([])
    logits = np.zeros((len(drafts) + 1, VOCAB), np.float32)
    found = verified(logits, drafts, always(*said), history, stop=lambda token: token == 4)
    assert found == expected
    ids, counts = history.generated()
    assert Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True))) == Counter(expected)


def test_each_token_is_drawn_from_its_own_logits_and_sees_those_before_it_in_the_history() -> None:
    seen: list[tuple[float, set[int]]] = []

    def sampler(logits: Floats, history: History) -> int:
        seen.append((float(logits[0]), set(history.seen().tolist())))
        return len(seen)

    logits = np.arange(3, dtype=np.float32)[:, None]
    verified(logits, (1, 2), sampler, History([9]), stop=never)
    assert seen == [(0.0, {9}), (1.0, {9, 1}), (2.0, {9, 1, 2})]


@given(TOKENS, st.integers(0, 2**32), st.integers(0, 6), st.sampled_from([0.0, 0.7, 1.3]))
def test_the_same_seed_says_the_same_with_and_without_guesses(
    guesses: list[int], seed: int, size: int, temperature: float
) -> None:
    sampling = Sampling(
        temperature=temperature,
        seed=seed,
        top_p=0.9,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.3,
    )
    stream = itertools.cycle(guesses or [0])
    plain = decoded(sampling, [1, 2], 20, guess=lambda _: [])
    assert decoded(sampling, [1, 2], 20, guess=lambda _: [next(stream) for _ in range(size)]) == plain


@pytest.mark.parametrize("guess", [[], [0, 0], [1, 4], [2, 3]], ids=str)
def test_three_tokens_are_distributed_as_the_model_says(guess: list[int]) -> None:
    """Chi-square against the exact probabilities of all 125 continuations; the seeds are fixed, so is the outcome."""
    prompt, draws = [1, 2], 4000
    expected = np.zeros((VOCAB,) * 3)
    for a, b, c in itertools.product(range(VOCAB), repeat=3):
        after = [prompt, [*prompt, a], [*prompt, a, b]]
        expected[a, b, c] = np.prod([_probabilities(ids)[token] for ids, token in zip(after, (a, b, c), strict=True)])
    found = np.zeros_like(expected)
    for seed in range(draws):
        found[tuple(decoded(Sampling(seed=seed), prompt, 3, guess=lambda _: list(guess)))] += 1
    often = expected * draws >= 5  # the usual bound of the test; the rest is one class
    classes = [(found[often], expected[often] * draws), (found[~often].sum(), expected[~often].sum() * draws)]
    statistic = sum(float(np.sum((seen - due) ** 2 / due)) for seen, due in classes)
    freedom = int(often.sum())
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)  # mean and four standard deviations


def _probabilities(ids: Sequence[int]) -> Floats:
    weights = np.exp(logits_after(ids).astype(np.float64))
    return np.asarray(weights / weights.sum())


# --- guesses from the text ------------------------------------------------------------------

PLACES = {
    "nothing": ([], 3, [], 0),
    "one token": ([7], 3, [], 0),
    "no repetition": ([1, 2, 3, 4], 3, [], 0),
    "one token alone agrees": ([1, 2, 3, 2], 3, [], 0),
    "a pair": ([1, 2, 3, 4, 9, 1, 2], 2, [3, 4], 2),
    "the longest context": ([5, 1, 2, 3, 0, 6, 1, 2, 4, 0, 5, 1, 2], 1, [3], 3),
    "the newest of equals": ([1, 2, 3, 0, 1, 2, 4, 7, 1, 2], 1, [4], 2),
    "a circle": ([4, 1, 2, 3, 1, 2, 3], 7, [1, 2, 3, 1, 2, 3, 1], 3),
    "one token over and over": ([8, 5, 5, 5], 3, [5, 5, 5], 2),
    "as many as may be": ([1, 2, 3, 4, 9, 1, 2], 0, [], 2),
}


@pytest.mark.parametrize(("ids", "most", "expected", "match"), PLACES.values(), ids=PLACES)
def test_what_followed_the_longest_repetition_is_guessed(
    ids: list[int], most: int, expected: list[int], match: int
) -> None:
    drafter = NgramDrafter()
    assert list(drafter.propose(ids, most)) == expected
    assert drafter.match == match


def longest_repetition(ids: Sequence[int]) -> int:
    """By brute force: how many tokens at the end stood together before, followed by something."""
    ends = range(len(ids) - 1, 0, -1)
    return max((ngram._agreeing(ids, end) for end in ends), default=0)


@given(TOKENS.filter(bool), st.data())
def test_a_text_that_grows_gives_the_longest_repetition_at_any_time(ids: list[int], data: st.DataObject) -> None:
    drafter = NgramDrafter()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids)))))
    for cut in [*cuts, len(ids)]:
        text = ids[:cut]
        proposed = list(drafter.propose(text, 4))
        longest = longest_repetition(text)
        assert drafter.match == (longest if longest >= 2 else 0)
        assert len(proposed) == (4 if drafter.match else 0)
        assert set(proposed) <= set(text)


def test_a_copy_is_followed_though_a_newer_place_agrees_as_well() -> None:
    source = list(range(100, 120))
    other = [*range(104, 108), 50]  # the same pairs, and another end
    drafter = NgramDrafter()
    text = [*source, 0, *other, 1, *source[:4]]
    assert list(drafter.propose(text, 3)) == source[4:7]
    for at in range(4, 12):
        text.append(source[at])
        assert list(drafter.propose(text, 2)) == source[at + 1 : at + 3]


def test_each_token_is_indexed_once() -> None:
    class Counting(list[int]):
        reads = 0

        def __getitem__(self, at: object) -> int:  # type: ignore[override]
            Counting.reads += 1
            return super().__getitem__(at)  # type: ignore[call-overload,no-any-return]

    drafter, text = NgramDrafter(), Counting(range(5000))
    drafter.propose(text, 4)
    Counting.reads = 0
    text.append(7)
    drafter.propose(text, 4)
    assert Counting.reads < 50


# --- how many -------------------------------------------------------------------------------


def trained(accepted: int, proposed: int, *, match: int = 0, times: int = 60) -> DraftLengths:
    lengths = DraftLengths()
    for _ in range(times):
        lengths.note(proposed, accepted, match=match)
    return lengths


def test_guesses_that_come_true_are_made_as_long_as_allowed_where_they_cost_nothing() -> None:
    assert trained(8, 8).most(flat) == MOST_GUESSES


@pytest.mark.parametrize("lengths", [trained(0, 1), trained(8, 8), DraftLengths()], ids=["wrong", "right", "new"])
def test_nothing_is_guessed_where_each_token_costs_a_step(lengths: DraftLengths) -> None:
    assert lengths.best(linear) == (0, 1.0)


def test_guesses_that_come_to_nothing_are_not_made() -> None:
    assert trained(0, 4, match=2).most(affine, match=2) == 0


def test_the_number_is_the_one_with_most_tokens_a_second() -> None:
    lengths = trained(1, 2)  # chance one half, nearly
    chance = lengths.chance(0)
    rates = [sum(chance**i for i in range(guesses + 1)) / affine(guesses + 1) for guesses in range(MOST_GUESSES + 1)]
    count, rate = lengths.best(affine)
    assert count == int(np.argmax(rates)) > 0
    assert rate == pytest.approx(max(rates))


def test_each_guess_is_judged_by_the_match_that_those_before_it_make() -> None:
    lengths = trained(1, 2, match=2)  # a match of 2 goes on, one of 3 does not
    assert lengths.most(flat, match=2) == MOST_GUESSES
    assert lengths.most(affine, match=2) == 1
    assert lengths.most(affine, match=3) == 0


def test_a_longer_match_is_trusted_with_more() -> None:
    counts = [DraftLengths().most(affine, match=match) for match in (2, 3, 6, 16, 32)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_what_is_learnt_of_short_matches_leaves_long_ones_alone() -> None:
    lengths = trained(0, 1, match=2)
    assert lengths.most(affine, match=2) == 0
    assert lengths.most(affine, match=32) == DraftLengths().most(affine, match=32) > 0


def test_a_true_guess_lengthens_the_match_that_the_next_one_is_judged_by() -> None:
    lengths = trained(2, 3, match=2)
    assert lengths.chance(2) > DraftLengths().chance(2)
    assert lengths.chance(3) > DraftLengths().chance(3)
    assert lengths.chance(4) < DraftLengths().chance(4)


def test_old_experience_fades() -> None:
    lengths = trained(0, 1, match=2, times=1000)
    for _ in range(100):
        lengths.note(1, 1, match=2)
    assert lengths.chance(2) > 0.9


def test_a_guesser_that_nobody_can_watch_gets_trials_ever_more_seldom_until_one_comes_true() -> None:
    lengths = trained(0, 1)
    trials = [at for at in range(1, 1000) if lengths.most(affine)]
    assert trials == [16, 48, 112, 240, 496, 752]
    lengths.note(1, 1)
    assert next(at for at in range(1, 50) if lengths.most(affine)) == 16


def test_costs_that_are_not_known_yet_do_no_harm() -> None:
    count, rate = DraftLengths().best(lambda _: 0.0, match=4)
    assert 0 <= count <= MOST_GUESSES
    assert np.isfinite(rate)
