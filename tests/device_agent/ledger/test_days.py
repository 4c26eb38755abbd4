"""Days are UTC, and any float has one."""

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.ledger.days import DAY_S, day_of, first_day, seconds_left

MIDNIGHT = 1_800_057_600.0


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (0.0, "1970-01-01"),
        (MIDNIGHT - 0.001, "2027-01-15"),
        (MIDNIGHT, "2027-01-16"),
        (-1.0, "1969-12-31"),
        (math.nan, "1970-01-01"),
        (math.inf, "1970-01-01"),
        (1e30, "1970-01-01"),
    ],
)
def test_the_day_of_a_time(at: float, day: str) -> None:
    assert day_of(at) == day


@given(st.floats(min_value=0, max_value=4e9))
def test_a_day_is_pythons_and_ends_when_the_next_one_begins(at: float) -> None:
    assert day_of(at) == datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat()
    left = seconds_left(at)
    assert 1 <= left <= DAY_S
    assert day_of(at + left) > day_of(at)


def test_the_last_two_days_are_today_and_yesterday() -> None:
    assert first_day(MIDNIGHT, 1) == "2027-01-16"
    assert first_day(MIDNIGHT, 2) == "2027-01-15"
