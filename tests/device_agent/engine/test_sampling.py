import math
from types import MappingProxyType
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.records import GREEDY, Sampling
from device_agent.engine.sampling import RANGES, History, Logits, _adjustment, _crossing, distribution, make_sampler
from edgekit.errors import InvalidRequest, ServerError

NOTHING = History(())

# Quarters: equal logits are common, and float32 holds them exactly.
quarters = st.integers(-80, 80).map(lambda n: n / 4)
small_vocabularies = st.lists(quarters, min_size=1, max_size=40)


def array(values: list[float]) -> Logits:
    return np.array(values, np.float32)


def noise(size: int, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def naive_distribution(logits: list[float], s: Sampling, *, slack: float = 0.0) -> dict[int, float]:
    """The same filters, as their papers say them: sort everything, one step after the other."""
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    kept = ranked[: s.top_k] if s.top_k else ranked
    weights = {i: math.exp((logits[i] - logits[ranked[0]]) / s.temperature) for i in kept}
    total = sum(weights.values())
    nucleus: list[int] = []
    for i in kept:
        nucleus.append(i)
        if s.top_p < 1 and sum(weights[j] for j in nucleus) >= (s.top_p + slack) * total:
            break
    kept = [i for i in nucleus if weights[i] >= s.min_p + slack]
    total = sum(weights[i] for i in kept)
    return {i: weights[i] / total for i in kept}


def chosen(logits: Logits, s: Sampling) -> dict[int, float]:
    ids, weights = distribution(logits, s)
    assert ids is None or len(set(ids.tolist())) == len(ids)
    probabilities = (weights.astype(np.float64) / weights.sum(dtype=np.float64)).tolist()
    return dict(zip(range(len(logits)) if ids is None else ids.tolist(), probabilities, strict=True))


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 0.99]),
)


@given(small_vocabularies, samplings)
def test_filters_keep_the_tokens_that_their_definitions_keep(values: list[float], s: Sampling) -> None:
    found = chosen(array(values), s)
    # A token whose share lies on the border to 1e-6 may fall on either side in float32.
    narrow, wide = naive_distribution(values, s, slack=-1e-6), naive_distribution(values, s, slack=1e-6)
    narrow, wide = sorted((narrow, wide), key=len)
    assert set(narrow) <= set(found) <= set(wide)
    if found.keys() == narrow.keys():
        assert found == pytest.approx(narrow, rel=1e-4, abs=1e-7)


LARGE = {
    "top_k": Sampling(top_k=40),
    "top_k larger than the groups that bound it": Sampling(top_k=700),
    "top_k and top_p": Sampling(top_k=100, top_p=0.7),
    "top_p": Sampling(top_p=0.9),
    "top_p, nearly all": Sampling(top_p=0.999),
    "top_p of a flat distribution": Sampling(top_p=0.9, temperature=20.0),
    "min_p": Sampling(min_p=0.02),
    "all": Sampling(top_k=200, top_p=0.95, min_p=0.01, temperature=0.8),
}


@pytest.mark.parametrize("s", LARGE.values(), ids=LARGE.keys())
def test_shortcuts_for_large_vocabularies_lose_nothing(s: Sampling) -> None:
    logits = np.round(noise(30_011) * 64) / np.float32(64)  # many equal ones
    found = chosen(logits, s)
    expected = naive_distribution_fast(logits, s)
    assert len(set(found) ^ set(expected)) <= 1  # the token on the border of top_p, by float32's last digit
    for i in set(found) & set(expected):
        assert found[i] == pytest.approx(expected[i], rel=2e-3)


def naive_distribution_fast(logits: Logits, s: Sampling) -> dict[int, float]:
    """`naive_distribution` with running sums, for vocabularies where its loops take minutes."""
    order = np.lexsort((np.arange(logits.size), -logits))[: s.top_k or None]
    weights = np.exp((logits[order].astype(np.float64) - float(logits.max())) / s.temperature)
    inside = np.cumsum(weights) - weights < s.top_p * weights.sum()
    inside &= weights >= s.min_p
    kept = weights[inside] / weights[inside].sum()
    return dict(zip(order[inside].tolist(), kept.tolist(), strict=True))


def test_the_lowest_ids_win_among_equals_at_the_border_of_top_k() -> None:
    assert chosen(array([1.0, 2.0, 1.0, 1.0, 1.0]), Sampling(top_k=3)).keys() == {0, 1, 2}
    many = np.zeros(20_000, np.float32)
    many[19_999] = 1
    assert chosen(many, Sampling(top_k=4)).keys() == {0, 1, 2, 19_999}


def test_a_nucleus_has_the_token_that_completes_it_and_no_more() -> None:
    halves = array([math.log(p) for p in (0.5, 0.25, 0.125, 0.125)])
    for top_p, size in {0.0: 1, 0.4: 1, 0.6: 2, 0.74: 2, 0.76: 3, 0.99: 4}.items():
        assert len(chosen(halves, Sampling(top_p=top_p))) == size, top_p


@pytest.mark.parametrize("size", [8, 5000], ids=["one block", "several blocks"])
def test_draws_follow_the_probabilities(size: int) -> None:
    logits = np.full(size, -np.inf, np.float32)
    places = np.linspace(0, size - 1, 8).astype(int)
    probabilities = np.array([0.3, 0.25, 0.15, 0.1, 0.1, 0.05, 0.03, 0.02])
    logits[places] = np.log(probabilities)
    sample = make_sampler(Sampling(seed=7), vocab=size)
    draws = 4000
    counts = np.bincount([sample(logits, NOTHING) for _ in range(draws)], minlength=size)
    assert counts.sum() == counts[places].sum(), "an impossible token was drawn"
    expected = probabilities * draws
    chi_square = float(((counts[places] - expected) ** 2 / expected).sum())
    assert chi_square < 24.3, "7 degrees of freedom exceed this once in a thousand; the seed is fixed"


def test_temperature_sharpens_and_flattens() -> None:
    logits = array([0.0, 1.0])
    odds = [chosen(logits, Sampling(temperature=t))[1] for t in (0.25, 1.0, 4.0)]
    assert odds == pytest.approx([1 / (1 + math.exp(-1 / t)) for t in (0.25, 1.0, 4.0)])


CROSSINGS = {
    "a draw of 0 skips what is impossible": ([0.0, 0.0, 1.0], 0.0, "right", 2),
    "a draw on a border belongs to the next token": ([1.0, 1.0], 1.0, "right", 1),
    "a mass that is just reached is reached": ([1.0, 1.0], 1.0, "left", 0),
    "a target rounded past the end is the last possible token": ([1.0, 1.0, 0.0], 2.0, "right", 1),
    "in a later block": ([0.5] * 2000, 800.25, "left", 1600),
    "at the end of several blocks": ([*[0.5] * 1500, *[0.0] * 500], 750.0, "right", 1499),
}


@pytest.mark.parametrize(("weights", "target", "side", "index"), CROSSINGS.values(), ids=CROSSINGS.keys())
def test_running_sums_are_crossed_where_they_should(
    weights: list[float], target: float, side: Literal["left", "right"], index: int
) -> None:
    assert _crossing(array(weights), target, side=side) == index


def test_a_low_temperature_still_weighs_small_differences() -> None:
    found = chosen(array([0.0, 1e-5, -1.0]), Sampling(temperature=1e-5))
    assert found[1] == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-4)


@pytest.mark.parametrize("temperature", [1e-45, 1e-300, 1e-6])
def test_a_temperature_near_zero_is_nearly_greedy(temperature: float) -> None:
    sample = make_sampler(Sampling(temperature=temperature, seed=1), vocab=3)
    assert {sample(array([1.0, 3.0, 2.0]), NOTHING) for _ in range(20)} == {1}


def test_a_seed_repeats_its_draws_and_another_does_not() -> None:
    def draws(seed: int | None) -> list[int]:
        sample = make_sampler(Sampling(seed=seed), vocab=500)
        return [sample(noise(500), NOTHING) for _ in range(30)]

    assert draws(3) == draws(3)
    assert draws(-1) == draws(-1)
    assert len({tuple(draws(seed)) for seed in (0, 3, -3, -(2**63), None, None)}) == 6


def test_greedy_takes_the_lowest_id_of_the_largest() -> None:
    assert make_sampler(GREEDY, vocab=4)(array([1.0, 5.0, 5.0, 2.0]), NOTHING) == 1


@given(
    small_vocabularies,
    st.data(),
    st.sampled_from([1.0, 0.5, 1.3, 4.0]),
    st.sampled_from([0.0, 0.5, -1.0]),
    st.sampled_from([0.0, 0.25, -0.5]),
)
def test_penalties_and_biases_add_up_as_documented(
    values: list[float], data: st.DataObject, repetition: float, presence: float, frequency: float
) -> None:
    token = st.integers(0, len(values) - 1)
    prompt, answer = data.draw(st.lists(token, max_size=8)), data.draw(st.lists(token, max_size=8))
    bias = data.draw(st.dictionaries(token, st.sampled_from([-100.0, -2.5, 3.0]), max_size=3))
    expected = list(values)
    for i in range(len(values)):
        expected[i] += bias.get(i, 0)
        if i in prompt or i in answer:
            expected[i] = expected[i] / repetition if expected[i] > 0 else expected[i] * repetition
        if i in answer:
            expected[i] -= presence + frequency * answer.count(i)
    history = History(prompt)
    for i in answer:
        history.add(i)
    s = Sampling(
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=MappingProxyType(bias),
    )
    adjust, logits = _adjustment(s), array(values)
    if adjust is None:
        assert expected == values
    else:
        assert adjust(logits, history).tolist() == pytest.approx(expected, abs=1e-3)
    assert logits.tolist() == values, "the decoder's buffer was changed"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_penalties_apply_to_the_choice(temperature: float) -> None:
    history = History(())
    history.add(1)
    sample = make_sampler(Sampling(temperature=temperature, presence_penalty=90, seed=5), vocab=3)
    assert {sample(array([0.0, 9.0, -90.0]), history) for _ in range(20)} == {0}


BROKEN = {
    "one NaN": [0.0, math.nan, 1.0],
    "infinite": [0.0, math.inf, 1.0],
    "nothing possible": [-math.inf] * 3,
}


@pytest.mark.parametrize("values", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("s", [GREEDY, Sampling(), Sampling(top_k=2), Sampling(temperature=0, presence_penalty=1)])
def test_logits_that_are_not_numbers_are_an_error(values: list[float], s: Sampling) -> None:
    with pytest.raises(ServerError, match="largest logit is"):
        make_sampler(s, vocab=3)(array(values), NOTHING)


REFUSED = {
    "temperature": Sampling(temperature=-0.1),
    "top_k": Sampling(top_k=-1),
    "top_p": Sampling(top_p=1.01),
    "min_p": Sampling(min_p=math.nan),
    "repetition_penalty": Sampling(repetition_penalty=0),
    "presence_penalty": Sampling(presence_penalty=math.inf),
    "frequency_penalty": Sampling(frequency_penalty=-math.inf),
}


def test_every_range_has_a_refused_example() -> None:
    assert REFUSED.keys() == RANGES.keys()


@pytest.mark.parametrize(("param", "s"), REFUSED.items(), ids=REFUSED.keys())
def test_a_parameter_out_of_range_is_refused_by_name(param: str, s: Sampling) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_sampler(s, vocab=10)
    assert caught.value.param == param
    assert param in str(caught.value)


@pytest.mark.parametrize("bias", [{10: 1.0}, {-1: 1.0}, {3: 101.0}, {3: math.nan}, {3: -math.inf}])
def test_a_bias_outside_of_the_vocabulary_or_range_is_refused(bias: dict[int, float]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_sampler(Sampling(logit_bias=bias), vocab=10)
    assert caught.value.param == "logit_bias"
