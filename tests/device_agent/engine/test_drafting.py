"""Guesses save steps where a text repeats itself, cost nothing where it does not, and never change what is said."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine import drafting
from device_agent.engine.drafting import (
    MOST_GUESSES,
    DraftLengths,
    Guesser,
    ModelDrafter,
    NgramDrafter,
    check_same_vocabulary,
    verified,
)
from device_agent.engine.records import GREEDY, Sampling
from device_agent.engine.rows import Floats, Snapshot
from device_agent.engine.sampling import History, Sampler, make_sampler
from edgekit.errors import BundleError, UsageError

VOCAB = 5
TOKENS = st.lists(st.integers(0, 3), max_size=60)


def never(_token: int) -> bool:
    return False


def flat(_tokens: int) -> float:
    """A model for which several tokens cost as much as one."""
    return 1.0


def linear(tokens: int) -> float:
    """A model for which guesses never pay."""
    return float(tokens)


def affine(tokens: int) -> float:
    """About what two cores measured on a model of 135 M parameters, milliseconds."""
    return 5.0 + 2.5 * tokens


def logits_after(ids: Sequence[int]) -> Floats:
    """A model: its logits depend on the last two tokens."""
    seed = sum(token * VOCAB**at for at, token in enumerate(ids[-2:]))
    return np.random.default_rng(seed).normal(0, 1.5, VOCAB).astype(np.float32)


class FakeRows:
    """Implements rows.Rows for one row: says what `model` says after all that the row holds."""

    most_rows = 1
    bytes_per_token = 1

    def __init__(self, model: Callable[[Sequence[int]], Floats] = logits_after, *, context_tokens: int = 1000) -> None:
        self.context_tokens = context_tokens
        self.held: list[int] = []
        self.calls: list[tuple[int, ...]] = []
        self.error: Exception | None = None
        self._model = model

    def length(self, row: int) -> int:
        return len(self.held)

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        if self.error:
            raise self.error
        assert len(ids) >= 1
        assert len(self.held) + len(ids) <= self.context_tokens, "the context is overrun"
        self.calls.append(tuple(ids))
        self.held += ids
        ends = range(len(self.held) - keep + 1, len(self.held) + 1)
        return np.stack([self._model(self.held[:end]) for end in ends])

    def decode(self, ids: Mapping[int, int]) -> Floats:
        assert list(ids) == [0]
        return self.read(0, [ids[0]])

    def truncate(self, row: int, length: int) -> None:
        assert 0 <= length <= len(self.held)
        del self.held[length:]

    def snapshot(self, row: int, length: int) -> Snapshot:
        raise NotImplementedError

    def restore(self, row: int, snapshot: Snapshot) -> None:
        raise NotImplementedError

    def shrink(self) -> None:
        raise NotImplementedError


def sharp(ids: Sequence[int]) -> Floats:
    """A model that counts in circles of seven."""
    logits = np.zeros(10, np.float32)
    logits[(ids[-1] + 1) % 7] = 9
    return logits


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


def decoded(
    sampling: Sampling, prompt: Sequence[int], count: int, *, guess: Callable[[Sequence[int]], list[int]]
) -> list[int]:
    """`count` tokens after `prompt`, with steps of whatever is guessed."""
    sampler, history, ids = make_sampler(sampling, vocab=VOCAB), History(prompt), list(prompt)
    while len(ids) < len(prompt) + count:
        drafts = guess(ids)[: len(prompt) + count - len(ids) - 1]
        after = [*ids, *drafts]
        logits = np.stack([logits_after(after[: len(ids) + at]) for at in range(len(drafts) + 1)])
        ids += verified(logits, drafts, sampler, history, stop=never)
    return ids[len(prompt) :]


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
    return max((drafting._agreeing(ids, end) for end in ends), default=0)


@given(TOKENS.filter(bool), st.data())
def test_a_text_that_grows_gives_the_longest_repetition_at_any_time(ids: list[int], data: st.DataObject) -> None:
    drafter = NgramDrafter()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids)))))
    for cut in [*cuts, len(ids)]:
        text = ids[:cut]
        proposed = list(drafter.propose(text, 4))
        longest = longest_repetition(text)
        # A place that was followed for long is kept, and of many places not all are tried.
        assert (drafter.match >= min(longest, 8)) if longest >= 2 else drafter.match == 0
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


def test_another_text_starts_again() -> None:
    drafter = NgramDrafter()
    drafter.propose([1, 2, 3, 4, 5, 1, 2], 3)
    assert list(drafter.propose([1, 2], 3)) == []
    assert list(drafter.propose([1, 2, 9, 1, 2], 1)) == [9]


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
        true = drafting._common(drafts, answer[at:])
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
