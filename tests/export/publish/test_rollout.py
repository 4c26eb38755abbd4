"""Two thresholds decide whether a release goes to more devices."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.release.channel import Channel, Labels, RampStep, percent_at
from edgekit.release.reports import Report
from export.publish.devices import gathered
from export.publish.rollout import DAY_S, Limits, Move, Standing, Status, next_move, place, stage_begin, status, widened
from tests.export.publish.fleets import NEW, NOW, OLD, channel, devices, envelope, failed, fleet, report

LIMITS = Limits(min_ok=20, max_fail_percent=2)
STEPS = (1.0, 10.0, 50.0, 100.0)


def seen(*reports: Report, also: tuple[str, ...] = (), on: Channel | None = None) -> Status:
    known = fleet([*(one.device for one in reports), *also])
    found = gathered(known, [envelope(one) for one in reports], now=NOW)
    return status(on or channel(100), found.fleet.members, now=NOW)


# --- where a device stands ---


@pytest.mark.parametrize(
    ("made", "standing"),
    [
        (report("d", active=NEW), "installed"),
        (report("d", active=OLD, trial=NEW), "trying"),
        (report("d", active=OLD, trial=NEW, soaking=True), "trying"),
        (report("d", active=OLD), "waiting"),
        (report("d"), "waiting"),
        (report("d", active=OLD, pin=OLD), "pinned"),
        (failed("d"), "failed"),
    ],
)
def test_where_a_device_stands(made: Report, standing: Standing) -> None:
    assert seen(made).counts == {standing: 1}


def test_a_failure_of_another_release_or_channel_is_not_this_ones() -> None:
    for changed in ({"release": OLD}, {"channel": "beta"}):
        refusal = msgspec.structs.replace(failed("d").refusals[0], **changed)
        assert seen(msgspec.structs.replace(failed("d"), refusals=(refusal,))).counts == {"waiting": 1}


def test_one_that_failed_and_runs_since_is_installed() -> None:
    lines = report("d", active=NEW).lines
    assert seen(msgspec.structs.replace(failed("d"), lines=lines)).counts == {"installed": 1}


def test_silence_is_no_report_for_a_week_or_ever() -> None:
    [member] = gathered(fleet(["d"]), [envelope(report("d", active=NEW))], now=NOW).fleet.members
    on = channel(100)
    assert place(on, member, now=NOW + 7 * DAY_S, silent_s=7 * DAY_S).standing == "installed"
    assert place(on, member, now=NOW + 7 * DAY_S + 1, silent_s=7 * DAY_S).standing == "silent"
    assert seen(also=("d",)).counts == {"silent": 1}


def test_who_is_not_meant_is_not_counted_in() -> None:
    inside, outside = devices(1, end=10)[0], devices(1, begin=10)[0]
    on = channel(10)
    found = seen(report(inside, active=NEW), report(outside, active=OLD), also=("silent",), on=on)
    assert found.counts["installed"] == 1
    assert found.counts["later"] >= 1
    elsewhere = msgspec.structs.replace(on, labels=Labels(allow={"site": ("oslo",)}))
    assert seen(report(inside, active=NEW), on=elsewhere).counts == {"other": 1}


def test_a_device_whose_turn_has_not_come_and_that_got_the_one_before_proves_nothing_of_the_new_one() -> None:
    outside = devices(1, begin=10)[0]
    assert seen(report(outside), on=channel(10)).counts == {"later": 1}


def test_a_pause_takes_nobodys_place_away() -> None:
    paused = msgspec.structs.replace(channel(100), pause=True)
    assert seen(report("d", active=NEW), failed("e"), on=paused).counts == {"installed": 1, "failed": 1}


def test_after_an_abort_those_count_that_went_back() -> None:
    aborted = msgspec.structs.replace(channel(1), abort_to=OLD)
    found = seen(report("d", active=OLD), report("e", active=NEW), on=aborted)
    assert found.counts == {"installed": 1, "waiting": 1}


def test_versions_and_reasons_are_counted() -> None:
    found = seen(report("a", active=NEW), report("b", active=OLD), failed("c"), failed("d", reason="slow"), also=("e",))
    assert found.versions == {NEW: 1, OLD: 3, "none": 1}
    assert found.reasons == {"it hangs": 1, "slow": 1}
    assert found.offered == 5


# --- stages ---


@pytest.mark.parametrize(
    ("percents", "begin"),
    [((), 0), ((1,), 0), ((1, 10), 100), ((1, 10, 50), 1000), ((10, 10), 0), ((50, 10), 0), ((10, 50, 50), 1000)],
)
def test_the_newest_stage_begins_where_the_one_before_ended(percents: tuple[float, ...], begin: int) -> None:
    assert stage_begin(channel(*percents), NOW) == begin


def test_a_step_to_come_is_no_stage_yet() -> None:
    on = msgspec.structs.replace(channel(), ramp=(RampStep(0, 1), RampStep(10, 10), RampStep(int(NOW) + 1, 50)))
    assert stage_begin(on, NOW) == 100


def test_each_stage_needs_proof_of_its_own() -> None:
    old = [report(device, active=NEW) for device in devices(30, end=1)]
    new = [report(device, active=NEW) for device in devices(20, begin=1, end=10)]
    assert next_move(seen(*old, on=channel(1)), LIMITS, STEPS) == Move(
        "widen", "30 devices of the newest stage run it", 10
    )
    assert next_move(seen(*old, on=channel(1, 10)), LIMITS, STEPS).kind == "wait"
    assert next_move(seen(*old, *new[:19], on=channel(1, 10)), LIMITS, STEPS).kind == "wait"
    assert next_move(seen(*old, *new, on=channel(1, 10)), LIMITS, STEPS).percent == 50


# --- thresholds ---


def fleet_of(ok: int, bad: int) -> Status:
    names = devices(ok + bad)
    return seen(*(report(name, active=NEW) for name in names[:ok]), *(failed(name) for name in names[ok:]))


@pytest.mark.parametrize(
    ("ok", "bad", "kind"),
    [
        (0, 0, "wait"),
        (19, 0, "wait"),
        (20, 0, "done"),
        (38, 2, "stop"),  # 5 % of 40
        (97, 3, "stop"),
        (98, 2, "done"),  # 2 % is not over 2 %
        (49, 1, "done"),
        (48, 1, "stop"),
        (0, 1, "stop"),  # not waited for: nothing that comes until the twentieth could put it right
        (5, 1, "stop"),
    ],
)
def test_f06_the_two_thresholds(ok: int, bad: int, kind: str) -> None:
    assert next_move(fleet_of(ok, bad), LIMITS, STEPS).kind == kind


def test_f06_three_percent_of_forty_reports_are_over_the_limit() -> None:
    """3 % of 40 is one and a bit: with one failure, 2.5 % failed."""
    assert next_move(fleet_of(39, 1), LIMITS, STEPS).kind == "stop"
    assert next_move(fleet_of(39, 1), Limits(min_ok=20, max_fail_percent=3), STEPS).kind == "done"


@given(st.integers(0, 60), st.integers(0, 10), st.integers(1, 40), st.floats(0, 100))
def test_the_thresholds_hold_for_any_numbers(ok: int, bad: int, min_ok: int, limit: float) -> None:
    counts: dict[Standing, int] = {"installed": ok, "failed": bad}
    found = Status(channel=channel(1), percent=1, counts=counts, stage=counts, versions={}, reasons={})
    move = next_move(found, Limits(min_ok=min_ok, max_fail_percent=limit), STEPS)
    if move.kind == "widen":
        assert ok >= min_ok
        assert bad <= limit / 100 * (ok + bad) + 1e-9
    if move.kind == "wait":  # a share that is over the limit now is not sure to stay so
        assert bad * 100 <= limit * max(ok + bad, min_ok)
    if move.kind == "stop":
        assert bad * 100 > limit * (ok + bad)


def test_failures_of_early_stages_do_not_vanish_in_a_new_one() -> None:
    old = devices(20, end=1)
    new = [report(device, active=NEW) for device in devices(30, begin=1, end=10)]
    early = [report(device, active=NEW) for device in old[:10]] + [failed(device) for device in old[10:]]
    assert next_move(seen(*early, *new, on=channel(1, 10)), LIMITS, STEPS).kind == "stop"


def test_failures_of_a_new_stage_do_not_vanish_among_the_old_ones() -> None:
    old = [report(device, active=NEW) for device in devices(300, end=10)]
    new = [report(device, active=NEW) for device in devices(25, begin=10, end=50)]
    bad = [failed(device) for device in devices(30, begin=10, end=50)[25:]]
    assert next_move(seen(*old, *new, *bad, on=channel(10, 50)), LIMITS, STEPS).kind == "stop"


def test_pinned_waiting_and_silent_devices_are_neither_for_nor_against() -> None:
    names = devices(60)
    found = seen(
        *(report(name, active=NEW) for name in names[:20]),
        *(report(name, active=OLD, pin=OLD) for name in names[20:30]),
        *(report(name, active=OLD) for name in names[30:40]),
        also=tuple(names[40:]),
        on=channel(100),
    )
    assert next_move(found, LIMITS, STEPS).kind == "done"


@pytest.mark.parametrize("changed", [{"pause": True}, {"abort_to": OLD}])
def test_what_was_stopped_is_not_widened(changed: dict[str, object]) -> None:
    on = msgspec.structs.replace(channel(1), **changed)
    names = devices(30, end=1)
    active = OLD if "abort_to" in changed else NEW
    assert next_move(seen(*(report(name, active=active) for name in names), on=on), LIMITS, STEPS).kind == "stop"


def test_a_stage_with_too_few_devices_says_so() -> None:
    move = next_move(seen(report(devices(1, end=1)[0], active=NEW), on=channel(1)), LIMITS, STEPS)
    assert move.kind == "wait"
    assert "only 1 of the devices that are enrolled" in move.reason


# --- the new ramp ---


@given(st.lists(st.floats(0, 100), max_size=4), st.lists(st.floats(0, 100), max_size=3), st.floats(0, 100))
def test_widening_lets_nobody_out_and_says_where_the_stage_began(
    past: list[float], to_come: list[float], percent: float
) -> None:
    ramp = (
        *(RampStep(i, step) for i, step in enumerate(past)),
        *(RampStep(int(NOW) + 10 + i, step) for i, step in enumerate(to_come)),
    )
    on = msgspec.structs.replace(channel(), ramp=ramp)
    before = percent_at(ramp, NOW) if ramp else 0.0
    wide = widened(on, percent, now=NOW)
    assert percent_at(wide, NOW) == max(before if past else 0.0, percent)
    assert percent_at(wide, NOW + 1e9) >= percent_at(ramp, NOW + 1e9) if ramp else True
    assert list(wide) == sorted(wide, key=lambda step: step.not_before)
    if past and percent > before:
        after = msgspec.structs.replace(on, ramp=wide)
        assert stage_begin(after, NOW) == round(before * 100)
