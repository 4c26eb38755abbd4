import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgekit.errors import BudgetTooSmall
from edgekit.quant import QuantSpec
from export.quantize.budget import Option, allocate, hull
from export.quantize.plan import Choice

CHOICE = Choice(QuantSpec(4, 32), "round")
OPTIONS = st.lists(
    st.builds(Option, st.just(CHOICE), st.integers(1, 60), st.integers(0, 1000).map(lambda n: n / 1000)),
    min_size=1,
    max_size=5,
)
UNITS = st.dictionaries(st.sampled_from("abcdef"), OPTIONS, min_size=1, max_size=4)
Units = Mapping[str, Sequence[Option]]


def option(size: int, kl: float) -> Option:
    return Option(CHOICE, size, kl)


def total(chosen: Mapping[str, Option]) -> tuple[int, float]:
    return sum(each.bytes for each in chosen.values()), sum(each.kl for each in chosen.values())


def smallest(units: Units) -> dict[str, Option]:
    return {unit: min(each, key=lambda one: (one.bytes, one.kl)) for unit, each in units.items()}


@given(UNITS, st.integers(0, 240))
def test_what_is_chosen_fits_and_is_no_worse_than_the_smallest(units: Units, budget: int) -> None:
    least, worst = total(smallest(units))
    assume(budget >= least)
    chosen = allocate(units, budget)
    assert set(chosen) == set(units)
    assert all(chosen[unit] in units[unit] for unit in units)
    size, kl = total(chosen)
    assert size <= budget
    assert kl <= worst + 1e-12


@given(UNITS, st.integers(0, 240))
def test_it_is_within_one_step_of_the_best(units: Units, budget: int) -> None:
    """The greedy bound: a better choice saves at most what the largest single step saves."""
    assume(budget >= total(smallest(units))[0])
    found = total(allocate(units, budget))[1]
    fitting = (total(dict(zip(units, each, strict=True))) for each in itertools.product(*units.values()))
    best = min(kl for size, kl in fitting if size <= budget)
    steps = [worse.kl - better.kl for each in units.values() for worse, better in itertools.pairwise(hull(each))]
    assert best - 1e-12 <= found <= best + max(steps, default=0) + 1e-12


@given(UNITS)
def test_without_a_limit_that_binds_the_least_loss_is_chosen(units: Units) -> None:
    kl = total(allocate(units, 10**6))[1]
    assert kl == pytest.approx(sum(min(one.kl for one in each) for each in units.values()))


@given(UNITS)
def test_one_byte_too_few_is_an_error(units: Units) -> None:
    least, _ = total(smallest(units))
    assert total(allocate(units, least))[0] == least
    with pytest.raises(BudgetTooSmall, match=f"take {least:,} bytes"):
        allocate(units, least - 1)


@given(OPTIONS)
def test_the_hull_has_no_option_that_another_beats(options: list[Option]) -> None:
    kept = hull(options)
    assert kept[0].bytes == min(one.bytes for one in options)
    assert kept[-1].kl == min(one.kl for one in options)
    for one in kept:
        assert not any(
            other != one and other.bytes <= one.bytes and other.kl <= one.kl and other not in kept for other in options
        )
    for worse, better in itertools.pairwise(kept):
        assert better.bytes > worse.bytes
        assert better.kl < worse.kl
    slopes = [(a.kl - b.kl) / (b.bytes - a.bytes) for a, b in itertools.pairwise(kept)]
    assert all(later < earlier + 1e-12 for earlier, later in itertools.pairwise(slopes))


@given(OPTIONS)
def test_no_option_lies_below_the_hull(options: list[Option]) -> None:
    kept = hull(options)
    for one in options:
        for left, right in itertools.pairwise(kept):
            if left.bytes <= one.bytes <= right.bytes:
                share = (one.bytes - left.bytes) / (right.bytes - left.bytes)
                assert one.kl >= left.kl + share * (right.kl - left.kl) - 1e-9


def test_bytes_go_where_they_save_most() -> None:
    units = {
        "loud": [option(10, 1.0), option(20, 0.1)],
        "quiet": [option(10, 0.2), option(20, 0.1)],
    }
    assert allocate(units, 30) == {"loud": units["loud"][1], "quiet": units["quiet"][0]}


def test_a_step_that_does_not_fit_leaves_room_for_others() -> None:
    units = {
        "large": [option(10, 1.0), option(100, 0.0)],
        "small": [option(10, 0.05), option(20, 0.0)],
    }
    assert allocate(units, 40) == {"large": units["large"][0], "small": units["small"][1]}


def test_a_second_step_is_not_taken_without_the_first() -> None:
    """The step from 30 to 31 bytes would fit, but the option is 31 bytes, and 12 are left."""
    unit = [option(10, 1.0), option(30, 0.5), option(31, 0.499)]
    assert allocate({"one": unit}, 22) == {"one": unit[0]}


def test_steps_of_small_matrices_do_not_keep_a_large_one_from_its_own() -> None:
    small, large = Choice(QuantSpec(4, 32), "round"), Choice(QuantSpec(8, 64), "round")
    options = {
        "embed": [Option(small, 100, 0.15), Option(large, 200, 0.0)],
        **{f"layers.{i}.o": [Option(small, 10, 0.02), Option(large, 20, 0.0)] for i in range(2)},
    }  # a byte buys more in the layers, but once they have theirs, the embedding's step no longer fits
    found = allocate(options, 225)
    assert found["embed"].choice is large
    assert sum(option.kl for option in found.values()) == pytest.approx(0.04)
