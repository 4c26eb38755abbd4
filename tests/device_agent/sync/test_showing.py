"""Updates in words, and how fast they come."""

import pytest

from device_agent.sync import showing
from device_agent.sync.pace import SPAN_S, Pace, eta_s
from device_agent.sync.records import Cost, Offer, Outcome, Progress
from edgekit import errors


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (103_700_000, "104 MB"), (1_900_000_000, "1.9 GB")],
)
def test_sizes(count: int, said: str) -> None:
    assert showing.size(count) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (75.4, "1:15"), (93_784, "26:03:04"), (-3, "0:00")])
def test_spans(seconds: float, said: str) -> None:
    assert showing.span(seconds) == said


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(), ""),
        (Progress(phase="checking"), "asking the repository"),
        (Progress(phase="trial", channel="stable", release="a-1"), "a-1  trying it"),
        (
            Progress(
                phase="fetching",
                release="a-1",
                done_bytes=5_000_000,
                total_bytes=10_000_000,
                bytes_per_s=500_000.0,
                eta_s=10.0,
            ),
            "a-1  fetching  [##############--------------]   50%  5.0 MB of 10 MB  500 kB/s  0:10 left",
        ),
        (
            Progress(phase="fetching", release="a-1"),
            "a-1  fetching  [############################]  100%  0 bytes of 0 bytes",
        ),
    ],
)
def test_progress(progress: Progress, said: str) -> None:
    assert showing.doing(progress) == said


@pytest.mark.parametrize(
    ("outcome", "said", "code"),
    [
        (Outcome(channel="s", ending="current", release="a-1"), "s: a-1 is the newest, and runs here", 0),
        (Outcome(channel="s", ending="held", release=None, reason="paused"), "s: waits: paused", 0),
        (Outcome(channel="s", ending="refused", release="a-1", reason="no", exit_code=68), "s: refused: no", 68),
        (Outcome(channel="s", ending="failed", release=None, reason="gone", exit_code=63), "s: not done: gone", 63),
        (
            Outcome(channel="s", ending="installed", release="a-1", moved_bytes=1_500, reused_bytes=0, seconds=2.0),
            "s: a-1 is installed (1.5 kB fetched, 0 bytes were here already, 2.0 s)",
            0,
        ),
    ],
)
def test_outcomes_and_their_exit_codes(outcome: Outcome, said: str, code: int) -> None:
    assert showing.outcome(outcome) == said
    assert showing.exit_code([Outcome(channel="x", ending="current", release=None), outcome]) == code


def test_an_offer_says_what_it_takes() -> None:
    cost = Cost(fetch_bytes=11_000_000, delta_bytes=0, reused_bytes=0, full_bytes=106_000_000, disk_bytes=60_000_000)
    said = showing.offer(Offer(channel="s", release="a-2", reason="offered", cost=cost))
    assert said == "s: a-2, offered: 11 MB to fetch, 10% of 106 MB; 60 MB on disk"
    assert showing.offer(Offer(channel="s", release=None, reason="paused")) == "s: nothing, paused"
    whole = Cost(fetch_bytes=107, delta_bytes=0, reused_bytes=0, full_bytes=106, disk_bytes=60)
    assert showing.cost(whole) == "107 bytes to fetch; 60 bytes on disk"


def test_what_to_do_next_is_said_once() -> None:
    full = Outcome(channel="a", ending="failed", release="a-1", exit_code=errors.NoSpace.exit_code)
    cut = Outcome(channel="b", ending="failed", release=None, exit_code=errors.Unreachable.exit_code)
    fine = Outcome(channel="c", ending="held", release=None)
    assert showing.hints([full, fine, full, cut]) == (errors.NoSpace.hint, errors.Unreachable.hint)
    assert showing.hints([fine]) == ()


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_speed_is_that_of_the_last_seconds() -> None:
    ticks = Ticks()
    pace = Pace(ticks)
    pace.begin(1_000_000)  # which came in an earlier run
    assert pace.bytes_per_s(1_000_000) is None
    done, speed = 1_000_000, None
    for ticks.now in range(1, 101):
        done += 1_000 if ticks.now <= 50 else 10_000
        speed = pace.bytes_per_s(done)
        if ticks.now == 50:
            assert speed == pytest.approx(1_000)
    assert speed == pytest.approx(10_000)
    ticks.now += 10 * SPAN_S
    assert pace.bytes_per_s(done) == pytest.approx(0, abs=500)


def test_nobody_knows_when_nothing_comes() -> None:
    assert eta_s(100, None) is None
    assert eta_s(100, 0.0) is None
    assert eta_s(100, 50.0) == 2.0
