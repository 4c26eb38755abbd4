"""What a person says of a channel, and the file that comes of it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PublishError, UsageError
from edgekit.release.channel import Channel, Device, RampStep, decide, parse
from edgekit.release.names import release_target
from export.publish.channels import Wish, changed, check, check_name, steps
from tests.export.publish.publishers import NOW

FIRST = changed("stable", None, Wish(release="tiny-1"), now=NOW, salt="salt")


def change(channel: Channel, wish: Wish) -> Channel:
    return changed("stable", channel, wish, now=NOW, salt="other")


def test_a_new_channel_offers_its_release_to_everybody() -> None:
    assert (FIRST.version, FIRST.release, FIRST.previous, FIRST.ramp) == (1, "tiny-1", None, ())
    assert parse(FIRST.to_bytes()) == FIRST


def test_who_has_nothing_gets_what_everybody_was_to_have() -> None:
    half = change(FIRST, Wish(release="tiny-2", ramp=(RampStep(0, 50.0),)))
    assert half.previous == "tiny-1"
    again = change(half, Wish(release="tiny-3", ramp=(RampStep(0, 5.0),)))
    assert again.previous == "tiny-1"  # tiny-2 was never for everybody
    whole = change(half, Wish(ramp=()))
    assert change(whole, Wish(release="tiny-3")).previous == "tiny-2"
    assert change(whole, Wish(release="tiny-1")).previous == "tiny-2"
    assert change(half, Wish(release="tiny-1")).previous is None


def test_an_abort_ends_with_the_next_release_and_what_it_went_back_to_counts() -> None:
    half = change(FIRST, Wish(release="tiny-2", ramp=(RampStep(0, 50.0),)))
    back = change(half, Wish(abort_to="tiny-1"))
    assert back.abort_to == "tiny-1"
    fixed = change(back, Wish(release="tiny-3", ramp=(RampStep(0, 1.0),)))
    assert (fixed.abort_to, fixed.previous, fixed.ramp) == (None, "tiny-1", (RampStep(0, 1.0),))


def test_another_release_ends_a_pause_and_a_note_does_not() -> None:
    paused = change(FIRST, Wish(pause=True))
    assert change(paused, Wish(note="why")).pause
    assert not change(paused, Wish(release="tiny-2")).pause
    assert change(paused, Wish(release="tiny-2", pause=True)).pause


def test_the_salt_stays_so_that_a_fix_reaches_whom_it_is_for() -> None:
    wide = change(change(FIRST, Wish(release="tiny-2", ramp=(RampStep(0, 5.0),))), Wish(release="tiny-3"))
    assert wide.salt == "salt"
    assert change(wide, Wish(new_salt=True)).salt == "other"


@given(st.lists(st.sampled_from([1.0, 5.0, 20.0, 60.0, 100.0]), min_size=2), st.integers(0, 10**6))
def test_whoever_was_in_a_narrower_stage_is_in_a_wider_one(percents: list[float], number: int) -> None:
    channel, device = change(FIRST, Wish(release="tiny-2")), Device(id=f"d{number}", labels={})
    was_in = False
    for percent in sorted(percents):
        channel = change(channel, Wish(ramp=(RampStep(0, percent),)))
        is_in = decide(channel, device, now=NOW, has_one=True).release == "tiny-2"
        assert is_in or not was_in
        was_in = is_in


def test_percentages_and_ramps_are_read() -> None:
    assert steps(None, None) is None
    assert steps(100, None) == ()
    assert steps(5, None) == (RampStep(0, 5.0),)
    assert steps(None, "2026-12-03:50, 2026-12-01:5%") == (
        RampStep(1_796_083_200, 5.0),
        RampStep(1_796_256_000, 50.0),
    )
    assert steps(None, "2026-12-01T01:00+01:00:5") == (RampStep(1_796_083_200, 5.0),)


@pytest.mark.parametrize("ramp", ["", "5", "2026-12-01", "2026-12-01:x", "2026-13-01:5", "2026-12-01:101", "x:5"])
def test_a_ramp_that_is_none_is_refused(ramp: str) -> None:
    with pytest.raises(UsageError):
        steps(None, ramp)


def test_a_percentage_and_a_ramp_are_one_too_many() -> None:
    with pytest.raises(UsageError):
        steps(5, "2026-12-01:5")


LISTED: dict[str, dict[str, Any]] = {
    release_target(f"tiny-{n}"): {"sequence": n, "model": "tiny", "kind": "model"} for n in (1, 2)
}


@pytest.mark.parametrize("wish", [Wish(release="tiny-3"), Wish(abort_to="tiny-3")])
def test_a_channel_may_not_name_what_is_not_listed(wish: Wish) -> None:
    check(FIRST, LISTED, {"tiny": 1, "other": 9})
    with pytest.raises(PublishError, match="tiny-3"):
        check(change(FIRST, wish), LISTED, {})


def test_a_channel_may_not_name_what_is_below_the_floor() -> None:
    with pytest.raises(PublishError, match="below the floor"):
        check(FIRST, LISTED, {"tiny": 2})
    with pytest.raises(PublishError, match="below the floor"):
        check(change(FIRST, Wish(release="tiny-2")), LISTED, {"tiny": 2})
    check(change(FIRST, Wish(release="tiny-2", forget_previous=True)), LISTED, {"tiny": 2})


def test_a_channel_of_models_never_becomes_one_of_adapters() -> None:
    listed = {**LISTED, release_target("tone-1"): {"model": "tone", "sequence": 4, "kind": "adapter"}}
    after = change(FIRST, Wish(release="tone-1", forget_previous=True))
    check(after, listed, {})
    with pytest.raises(PublishError, match="adapter and model"):
        check(after, listed, {}, old=FIRST)
    with pytest.raises(PublishError, match="adapter and model"):
        check(change(FIRST, Wish(abort_to="tone-1")), listed, {})


@pytest.mark.parametrize("name", ["bad name", "Stable", ".hidden", "", "a/b", "x" * 65, "stable\n"])
def test_a_name_that_no_channel_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a channel's name"):
        check_name(name)
    check_name("stable-2.lyon")


@pytest.mark.parametrize(
    "wish",
    [
        Wish(note="x" * 2_001),
        Wish(ramp=(RampStep(0, math.nan),)),
        Wish(ramp=(RampStep(-1, 5.0),)),
        Wish(ramp=tuple(RampStep(i, 5.0) for i in range(1_001))),
        Wish(allow={"site": ("x" * 101,)}),
        Wish(deny={"": ("lyon",)}),
    ],
    ids=["note", "no number", "before 1970", "steps", "value", "label"],
)
def test_a_file_that_nobody_could_read_is_never_made(wish: Wish) -> None:
    with pytest.raises(PublishError, match="channel stable cannot be so"):
        check(change(FIRST, wish), LISTED, {})


def test_a_file_that_is_too_long_is_never_made() -> None:
    values = tuple(f"{number:0100}" for number in range(11_000))
    with pytest.raises(PublishError, match="too long"):
        check(change(FIRST, Wish(allow={"site": values})), LISTED, {})
