import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.scheduling.costs import Costs, Curve


def curve(points: dict[int, float]) -> Curve:
    found = Curve()
    for size, took_s in points.items():
        found.note(size, took_s)
    return found


def test_nothing_measured_costs_nothing() -> None:
    assert Curve()(7) == 0
    assert Costs().decode_s(1) == Costs().verify_s(3) == 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [(2, 10.0), (6, 18.0), (3, 12.0), (4, 14.0), (8, 18.0 * 3.1 / 2.5), (1, 10.0 / 1.3)],
    ids=["measured", "measured too", "between", "in the middle", "beyond the largest", "below the smallest"],
)
def test_costs_between_two_measurements_lie_on_a_line_and_beyond_them_on_the_usual_one(
    size: int, expected: float
) -> None:
    assert curve({2: 10.0, 6: 18.0})(size) == pytest.approx(expected)


def test_one_measurement_gives_the_whole_usual_curve() -> None:
    found = curve({100: 30.7 * 2})
    assert found(1) == pytest.approx(2.0, rel=0.01)


def test_a_cost_that_changed_is_believed_after_some_steps() -> None:
    found = curve({4: 1.0})
    for _ in range(20):
        found.note(4, 2.0)
    assert found(4) == pytest.approx(2.0, rel=0.02)


def test_one_hiccup_changes_little() -> None:
    found = curve({4: 1.0})
    found.note(4, 1000.0)
    assert found(4) < 2


@given(st.integers(1, 5000))
def test_sizes_near_each_other_share_a_measurement(size: int) -> None:
    assert curve({size: 1.0})(size) == pytest.approx(1.0, rel=0.01)
    assert len({_only_point(around) for around in range(1, 5000)}) < 40


def _only_point(size: int) -> int:
    (point,) = curve({size: 1.0})._sizes
    return point


def test_a_step_of_one_token_of_one_row_is_on_all_three_curves() -> None:
    decoded = Costs()
    decoded.note_decode(1, 3.0)
    assert (decoded.read_within(3.0, most=10), decoded.verify_s(1)) == (1, 3.0)
    read = Costs()
    read.note_read(1, 3.0)
    assert read.decode_s(1) == 3.0


def test_a_decode_is_guessed_from_reads_until_there_was_one() -> None:
    found = Costs()
    found.note_read(1, 2.0)
    assert found.decode_s(3) == pytest.approx(2.0 * 1.6)
    found.note_decode(3, 9.0)
    assert found.decode_s(3) == 9.0


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, 0), (1.0, 1), (2.9, 2), (100.0, 8)])
def test_the_most_tokens_within_a_time(seconds: float, expected: int) -> None:
    found = Costs()
    for tokens in range(1, 9):
        found.note_read(tokens, float(tokens))
    assert found.read_within(seconds, most=8) == expected
