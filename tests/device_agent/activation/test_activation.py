"""A release on its way from the disk into service: what goes wrong on it, and what serves meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.activation import Verdict
from device_agent.releases.records import TRIES, Installed, Ref, State
from device_agent.releases.store import Store
from edgekit.errors import CorruptBundle, FailedTrial, Refused, ShuttingDown, StorageFailed
from edgekit.release.manifest import HealthFloor
from tests.device_agent.activation.faked import Device, PowerCut, device, lines, silent, told
from tests.releases import CHANNEL, install, wreck

SOAK = HealthFloor(soak_s=60.0)


# --- forward ----------------------------------------------------------------------------------


def test_a_release_is_tried_then_serves_then_is_active(made: Device) -> None:
    ref, heard = install(made.store, "3", health=SOAK), list[str]()
    made.activation.try_release(CHANNEL, ref, tell=told(heard))
    assert heard == ["trial tiny-3", "soaking tiny-3"]
    assert (made.switch.served[-1], lines(made)) == (("tiny-3",), ("tiny-2", "tiny-1"))
    made.ticks.now += 59
    made.activation.soaked()
    assert made.line().soaking
    made.ticks.now += 1
    made.activation.soaked()
    assert lines(made) == ("tiny-3", "tiny-2")
    assert made.switch.served[-1] == ("tiny-3",)


def test_what_is_active_serves_while_another_one_is_tried(made: Device) -> None:
    seen = []

    def looking(installed: Installed, floor: HealthFloor) -> Verdict:
        seen.append(made.serves())
        return made.probe(installed, floor)

    made.activation._probe = looking
    active = made.line().active
    made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert seen == [[active]]


def test_the_first_release_of_a_device_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    found = device(Store(tmp_path / "home"))
    found.probe.verdicts = [Verdict(ok=False, reason="wrong tokens")]
    with pytest.raises(FailedTrial):
        found.activation.try_release(CHANNEL, install(found.store, "1"), tell=silent)
    assert (found.serves(), lines(found)) == ([], (None, None))
    found.activation.try_release(CHANNEL, install(found.store, "2"), tell=silent)
    assert lines(found) == ("tiny-2", None)


def test_every_start_is_on_the_disk_before_it_happens(made: Device) -> None:
    made.probe.verdicts = [Verdict(ok=False, reason="too slow", final=False)]
    made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert made.probe.tries_left == [1, 0]


def test_a_machine_that_was_busy_gives_a_release_a_second_try_and_no_third(made: Device) -> None:
    made.probe.verdicts = [Verdict(ok=False, reason="too slow", final=False)] * 3
    with pytest.raises(FailedTrial, match="too slow"):
        made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert len(made.probe.tried) == TRIES


def test_f1_a_release_that_fails_is_refused_and_the_active_one_stays(made: Device) -> None:
    ref = install(made.store, "3")
    made.probe.verdicts = [Verdict(ok=False, reason="3 of 10 golden answers come out")]
    with pytest.raises(FailedTrial, match="golden answers"):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    refusal = made.store.state().refused(ref.sha256)
    assert refusal is not None
    assert (refusal.reason, refusal.at, lines(made)) == (
        "3 of 10 golden answers come out",
        1_800_000_000.0,
        ("tiny-2", "tiny-1"),
    )
    with pytest.raises(FailedTrial, match="golden answers"):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    assert made.probe.tried == [ref]
    assert made.switch.served[-1] == ("tiny-2",)


def test_a_release_that_passes_and_cannot_be_served_is_refused(made: Device) -> None:
    made.switch.unable["tiny-3"] = CorruptBundle("tiny-3", "the shelf cannot open it")
    with pytest.raises(FailedTrial, match="the shelf cannot open it"):
        made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert (lines(made), made.switch.served[-1]) == (("tiny-2", "tiny-1"), ("tiny-2",))


def test_an_agent_that_is_stopping_blames_nobody(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.switch.unable["tiny-3"] = ShuttingDown("no new requests are taken")
    with pytest.raises(ShuttingDown):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    assert made.store.state().refusals == ()
    assert made.line().trial == ref


def test_what_cannot_be_tried_now_is_tried_another_time_with_all_its_tries(made: Device) -> None:
    ref = install(made.store, "3")
    for problem in (Refused("there is no memory for it"), KeyboardInterrupt(), Refused("its base is not there yet")):
        made.probe.verdicts = [problem]
        with pytest.raises(type(problem)):
            made.activation.try_release(CHANNEL, ref, tell=silent)
    made.store.collect()
    assert made.line().tries_left == TRIES
    made.activation.try_release(CHANNEL, ref, tell=silent)
    assert lines(made) == ("tiny-3", "tiny-2")


def test_a_release_that_is_gone_when_it_is_to_be_tried_may_be_fetched_again(made: Device) -> None:
    ref = install(made.store, "3")
    wreck(made.store.folder / "releases" / ref.folder)
    with pytest.raises(Refused, match="not whole on disk"):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    assert made.store.state().refusals == ()
    made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert lines(made) == ("tiny-3", "tiny-2")


def test_a_newer_release_takes_the_place_of_one_that_soaks_without_blame(made: Device) -> None:
    made.activation.try_release(CHANNEL, install(made.store, "3", health=SOAK), tell=silent)
    made.activation.try_release(CHANNEL, install(made.store, "4"), tell=silent)
    assert (lines(made), made.store.state().refusals) == (("tiny-4", "tiny-2"), ())


def test_a_channel_that_goes_back_to_the_active_one_ends_the_soak(made: Device) -> None:
    active = made.line().active
    made.activation.try_release(CHANNEL, install(made.store, "3", health=SOAK), tell=silent)
    made.activation.try_release(CHANNEL, active, tell=silent)
    assert (made.switch.served[-1], made.line().trial) == (("tiny-2",), None)


def test_another_channel_is_not_disturbed_by_one_that_fails(made: Device) -> None:
    other = install(made.store, "7", name="other")
    made.activation.try_release("beta", other, tell=silent)
    made.probe.verdicts = [Verdict(ok=False, reason="wrong tokens")]
    with pytest.raises(FailedTrial):
        made.activation.try_release(CHANNEL, install(made.store, "3"), tell=silent)
    assert made.switch.served[-1] == ("other-7", "tiny-2")


# --- soaking ----------------------------------------------------------------------------------


def test_a_fault_while_it_soaks_brings_the_active_one_back(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    made.switch.faulty["tiny-3"] = "it cannot be loaded"
    made.activation.soaked()
    assert (made.switch.served[-1], lines(made)) == (("tiny-2",), ("tiny-2", "tiny-1"))
    assert made.store.state().refused(ref.sha256) is not None


def test_f3_when_both_are_bad_it_stays_on_the_one_before_and_goes_nowhere(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    made.switch.faulty.update({"tiny-3": "it cannot be loaded", "tiny-2": "neither can this", "tiny-1": "nor this"})
    made.activation.soaked()
    after, served = made.store.seen(), len(made.switch.served)
    for _ in range(5):
        made.ticks.now += 100
        made.activation.soaked()
        with pytest.raises(FailedTrial):
            made.activation.try_release(CHANNEL, ref, tell=silent)
    assert (made.store.seen(), len(made.switch.served)) == (after, served)
    assert lines(made) == ("tiny-2", "tiny-1")


def test_a_process_that_serves_nobody_leaves_the_soak_to_the_agent(made: Device) -> None:
    updater = device(Store(made.store.folder.parent), serving=False, ticks=made.ticks)
    ref = install(updater.store, "3", health=SOAK)
    updater.activation.try_release(CHANNEL, ref, tell=silent)
    made.ticks.now += 1_000
    updater.activation.soaked()
    assert made.line().trial == ref
    made.activation.soaked()  # the agent sees the record: it serves from now on
    assert (made.switch.served[-1], made.line().soaking) == (("tiny-3",), True)
    made.ticks.now += 60
    made.activation.soaked()
    assert lines(made) == ("tiny-3", "tiny-2")


def test_without_an_agent_a_release_that_needs_no_soak_is_active_at_once(tmp_path: Path) -> None:
    found = device(Store(tmp_path / "home"), serving=False)
    found.activation.try_release(CHANNEL, install(found.store, "1"), tell=silent)
    assert lines(found) == ("tiny-1", None)


def test_an_agent_looks_at_a_record_that_did_not_change_once(made: Device) -> None:
    made.activation.soaked()
    served = len(made.switch.served)
    for _ in range(3):
        made.activation.soaked()
    assert len(made.switch.served) == served


def test_a_record_of_another_process_that_cannot_be_served_is_gone_back_from(made: Device) -> None:
    updater = device(Store(made.store.folder.parent), serving=False)
    made.activation.soaked()
    made.switch.unable["tiny-3"] = CorruptBundle("tiny-3", "the shelf cannot open it")
    updater.activation.try_release(CHANNEL, install(updater.store, "3", health=SOAK), tell=silent)
    made.activation.soaked()
    assert (made.switch.served[-1], lines(made), made.line().trial) == (("tiny-2",), ("tiny-2", "tiny-1"), None)


def test_a_disk_that_fails_for_a_moment_blames_nobody(made: Device) -> None:
    updater = device(Store(made.store.folder.parent), serving=False)
    made.activation.soaked()
    updater.activation.try_release(CHANNEL, install(updater.store, "3", health=SOAK), tell=silent)
    made.switch.unable["tiny-3"] = StorageFailed("no handles left")
    with pytest.raises(StorageFailed):
        made.activation.soaked()
    made.switch.unable.clear()
    made.activation.soaked()
    assert (made.switch.served[-1], made.store.state().refusals) == (("tiny-3",), ())


# --- restarts and power cuts ------------------------------------------------------------------


def cut(made: Device, ref: Ref) -> None:
    """The power goes while the release is tried: nothing is written any more."""
    living, steps = made.store.change, iter(("begun", "started"))

    def change(event: Callable[[State], State]) -> State:
        if next(steps, None) is None:
            raise PowerCut
        return living(event)

    made.probe.verdicts = [PowerCut()]
    made.store.change = change  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        made.activation.try_release(CHANNEL, ref, tell=silent)


def test_f2_a_power_cut_in_each_trial_costs_a_try_until_it_is_refused(made: Device) -> None:
    ref = install(made.store, "3")
    for tries_left in (1, 0):
        cut(made, ref)
        made = made.again()
        assert made.line().tries_left == tries_left
        assert made.serves() == [made.line().active]
    with pytest.raises(FailedTrial, match="each of its starts ended"):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    assert made.probe.tried == []
    with pytest.raises(FailedTrial):
        made.again().activation.try_release(CHANNEL, ref, tell=silent)
    assert lines(made) == ("tiny-2", "tiny-1")


def test_f2_a_power_cut_while_it_serves_on_trial_costs_a_try_until_it_is_refused(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    made = made.again()
    assert (made.line().tries_left, made.serves()) == (0, [ref])
    made.activation.resume()
    assert made.line().soaking, "one process is one start"
    made = made.again()
    assert (made.serves(), lines(made)) == ([made.line().active], ("tiny-2", "tiny-1"))
    assert made.store.state().refused(ref.sha256) is not None


def test_an_agent_that_is_restarted_in_order_any_number_of_times_refuses_nothing(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    for _ in range(5):
        made.activation.close()
        made = made.again()
    assert made.line().trial == ref
    made.activation.soaked()
    made.ticks.now += 60
    made.activation.soaked()
    assert lines(made) == ("tiny-3", "tiny-2")


def test_an_updater_that_starts_beside_an_agent_costs_what_soaks_no_try(made: Device) -> None:
    made.activation.try_release(CHANNEL, install(made.store, "3", health=SOAK), tell=silent)
    before = made.store.seen()
    device(Store(made.store.folder.parent), serving=False).activation.resume()
    assert made.store.seen() == before


def test_f10_what_is_installed_starts_whatever_the_clock_and_the_repository_say(made: Device) -> None:
    ref = install(made.store, "3", health=SOAK)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    again = made.again()  # no trust, no network and no date are asked anywhere on this way
    assert again.serves() == [ref]


def test_a_start_empties_the_trash_and_forgets_what_is_gone(made: Device, caplog: pytest.LogCaptureFixture) -> None:
    (made.store.folder / "trash" / "tiny-0.000000000000.abc" / "deep").mkdir(parents=True)
    active = made.line().active
    wreck(made.store.folder / "releases" / active.folder)
    again = made.again()
    assert list((made.store.folder / "trash").iterdir()) == []
    assert (lines(again), "not whole on disk any more" in caplog.text) == (("tiny-1", None), True)


def test_a_start_on_a_device_that_was_never_synced_writes_nothing(tmp_path: Path) -> None:
    found = device(Store(tmp_path / "home"))
    found.activation.resume()
    found.activation.soaked()
    found.activation.close()
    assert not (tmp_path / "home").exists()
