"""When to look. Time and chance are given, and the wall's clock is UTC here."""

import pytest

from device_agent.sync.records import Window
from device_agent.sync.schedule import RETRY_S, Rhythm, is_open, opens_in_s

NIGHT = (Window(begin_minute=22 * 60, end_minute=6 * 60),)
LUNCH = (Window(begin_minute=12 * 60, end_minute=13 * 60),)
MIDNIGHT = 86_400.0 * 20_000


def rhythm(*windows: Window, interval_s: float = 3600.0, chance: float = 0.5) -> Rhythm:
    return Rhythm(interval_s, windows, chance=lambda: chance, minute=lambda now: int(now % 86_400) // 60)


@pytest.mark.parametrize(
    ("windows", "hour", "allowed"),
    [
        ((), 3, True),
        (NIGHT, 23, True),
        (NIGHT, 22, True),
        (NIGHT, 0, True),
        (NIGHT, 5, True),
        (NIGHT, 6, False),
        (NIGHT, 12, False),
        (LUNCH, 12, True),
        (LUNCH, 13, False),
        (LUNCH, 11, False),
        ((*NIGHT, *LUNCH), 12, True),
        ((*NIGHT, *LUNCH), 14, False),
    ],
)
def test_windows_may_go_over_midnight(windows: tuple[Window, ...], hour: int, *, allowed: bool) -> None:
    assert is_open(windows, hour * 60) is allowed
    assert (opens_in_s(windows, hour * 60) == 0) is allowed


def test_the_next_window_is_the_nearest_one() -> None:
    assert opens_in_s(NIGHT, 21 * 60 + 59) == 60.0
    assert opens_in_s((*NIGHT, *LUNCH), 6 * 60) == 6 * 3600.0


def test_looks_come_at_intervals_with_chance() -> None:
    for chance, wait_s in ((0.0, 3240.0), (0.5, 3600.0), (1.0, 3960.0)):
        found = rhythm(chance=chance)
        found.looked(MIDNIGHT, fine=True)
        assert found.due() == pytest.approx(MIDNIGHT + wait_s)


def test_the_first_look_is_soon_after_the_start() -> None:
    found = rhythm(chance=1.0)
    assert not found.is_due(MIDNIGHT)
    found.started(MIDNIGHT)
    assert not found.is_due(MIDNIGHT + 9)
    assert found.is_due(MIDNIGHT + 10)


def test_failures_are_retried_sooner_and_then_as_usual() -> None:
    found = rhythm(chance=0.0)
    waits = []
    for _ in range(6):
        found.looked(MIDNIGHT, fine=False)
        waits.append((found.due() or 0) - MIDNIGHT)
    assert waits == pytest.approx([*RETRY_S, 3240.0, 3240.0])
    found.looked(MIDNIGHT, fine=True)
    found.looked(MIDNIGHT, fine=False)
    assert (found.due() or 0) - MIDNIGHT == pytest.approx(RETRY_S[0])


def test_an_interval_shorter_than_a_retry_stays() -> None:
    found = rhythm(interval_s=10, chance=0.5)
    found.looked(MIDNIGHT, fine=False)
    assert found.due() == pytest.approx(MIDNIGHT + 10)


def test_a14_a_clock_that_is_set_back_does_not_put_looks_off() -> None:
    found = rhythm()
    found.looked(MIDNIGHT, fine=True)
    assert not found.is_due(MIDNIGHT)
    assert found.is_due(0.0)
    assert found.wait_s(0.0) <= 3600 * 1.1


def test_without_an_interval_nothing_happens_by_itself() -> None:
    found = rhythm(interval_s=0)
    found.started(MIDNIGHT)
    found.looked(MIDNIGHT, fine=False)
    assert found.due() is None
    assert not found.is_due(MIDNIGHT * 2)
    assert found.wait_s(MIDNIGHT) == 86_400


def test_waiting_goes_on_into_the_window() -> None:
    found = rhythm(*NIGHT, interval_s=3600)
    found.looked(MIDNIGHT + 12 * 3600, fine=True)
    assert found.wait_s(MIDNIGHT + 12 * 3600) == pytest.approx(10 * 3600)
    assert not found.may_fetch(MIDNIGHT + 12 * 3600)
    assert found.may_fetch(MIDNIGHT + 23 * 3600)
