import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.bench.plan import GRID_DEPTHS, GRID_PROMPTS, GRID_ROWS, Decode, Plan, common, fitted, make_plan
from edgekit.errors import UsageError


def test_without_a_length_two_prompts_are_read() -> None:
    plan = make_plan(None, 64, 1, full=False)
    assert plan == Plan(prompts=(128, 512), decodes=(Decode(128),), decode_tokens=64)


def test_a_length_that_is_given_is_the_only_one() -> None:
    assert make_plan(300, 5, 4, full=False) == Plan(prompts=(300,), decodes=(Decode(300, 4),), decode_tokens=5)


def test_the_whole_grid_has_every_length_depth_and_width_once() -> None:
    plan = make_plan(None, 64, 1, full=True)
    assert sorted(plan.prompts) == list(GRID_PROMPTS)
    assert sorted(case.depth for case in plan.decodes if case.depth != 128) == list(GRID_DEPTHS)
    assert sorted(case.rows for case in plan.decodes if case.depth == 128) == list(GRID_ROWS)
    assert (plan.prompts[0], plan.decodes[0]) == (128, Decode(128))
    assert plan.most_rows == 8


def test_what_a_context_cannot_hold_is_left_out_or_made_less_deep() -> None:
    plan = fitted(make_plan(None, 64, 1, full=True), 1024)
    assert max(plan.prompts) == 1024
    assert {case.depth for case in plan.decodes if case.rows == 1} == {128, 0, 512, 960}


@given(st.integers(1, 5000), st.integers(2, 300), st.integers(1, 8), st.booleans(), st.integers(1, 9000))
def test_a_plan_that_was_fitted_never_goes_beyond_the_context(
    prompt: int, tokens: int, rows: int, full: bool, context: int
) -> None:
    plan = make_plan(prompt, tokens, rows, full=full)
    if prompt + tokens > context:
        with pytest.raises(UsageError, match=f"context is {context}"):
            fitted(plan, context)
        return
    fit = fitted(plan, context)
    assert (fit.prompts[0], fit.decodes[0]) == (prompt, Decode(prompt, rows))
    assert max(fit.prompts) <= context
    assert all(0 <= case.depth <= context - tokens for case in fit.decodes)
    assert len(set(fit.decodes)) == len(fit.decodes)


def test_several_bundles_do_what_the_least_of_them_can() -> None:
    plan = common(make_plan(None, 64, 1, full=True), [8192, 1024], [8, 2])
    assert max(plan.prompts) == 1024
    assert plan.most_rows == 2


def test_rows_that_were_asked_for_and_cannot_be_are_an_error() -> None:
    with pytest.raises(UsageError, match="4 rows: the model decodes at most 1 together"):
        common(make_plan(8, 2, 4, full=False), [2048], [1])
