"""Going back, staying, and mending: what a person or a scrub asks of releases that are there."""

import logging
from pathlib import Path

import pytest

from device_agent.releases.records import Installed, Line
from device_agent.releases.scrub import Damage, damaged
from device_agent.releases.store import Store
from edgekit.errors import CorruptBundle, FailedTrial, Refused, StorageFailed
from edgekit.release.manifest import HealthFloor
from tests.device_agent.activation.faked import Device, device, lines, silent
from tests.releases import CHANNEL, install, rot, wreck

SOAK = HealthFloor(soak_s=60.0)


def test_f4_going_back_needs_no_network_and_no_trial(made: Device) -> None:
    assert made.activation.rollback(CHANNEL).id == "tiny-1"
    assert (made.switch.served[-1], lines(made), made.probe.tried) == (("tiny-1",), ("tiny-1", "tiny-2"), [])


def test_f4_a_damaged_previous_release_is_refused_and_the_active_one_kept(made: Device) -> None:
    previous = made.store.find(made.line().previous)
    assert previous is not None
    rot(previous.folder / "weights")
    before, served = made.store.seen(), len(made.switch.served)
    with pytest.raises(Refused, match="tiny-1 is damaged: weights"):
        made.activation.rollback(CHANNEL)
    assert (made.store.seen(), len(made.switch.served)) == (before, served)


def test_f4_a_previous_release_that_is_gone_or_cannot_be_loaded_is_refused(made: Device) -> None:
    made.switch.unable["tiny-1"] = CorruptBundle("tiny-1", "the shelf cannot open it")
    before = made.store.state()
    with pytest.raises(Refused, match="the shelf cannot open it"):
        made.activation.rollback(CHANNEL)
    assert (made.store.state(), made.switch.served[-1]) == (before, ("tiny-2",))
    wreck(made.store.folder / "releases" / made.line().previous.folder)
    with pytest.raises(Refused, match="not whole on disk"):
        made.activation.rollback(CHANNEL)


def test_going_back_stops_above_the_floor_that_the_owner_signed(made: Device) -> None:
    with pytest.raises(Refused, match="below the lowest number"):
        made.activation.rollback(CHANNEL, floors={"tiny": 2})
    assert made.activation.rollback(CHANNEL, floors={"tiny": 1, "other": 9}).id == "tiny-1"


def test_f8_a_channel_may_go_back_to_what_ran_before_and_it_is_tried_like_any_other(made: Device) -> None:
    previous = made.line().previous
    made.activation.try_release(CHANNEL, previous, tell=silent)
    assert (lines(made), made.probe.tried) == (("tiny-1", "tiny-2"), [previous])


def test_f8_what_was_gone_back_from_by_hand_does_not_come_back_by_itself(made: Device) -> None:
    active = made.line().active
    made.activation.rollback(CHANNEL)
    with pytest.raises(FailedTrial, match="somebody went back"):
        made.activation.try_release(CHANNEL, active, tell=silent)


def test_going_back_while_it_soaks_ends_the_trial(made: Device) -> None:
    made.activation.try_release(CHANNEL, install(made.store, "3", health=SOAK), tell=silent)
    assert made.activation.rollback(CHANNEL).id == "tiny-2"
    assert (made.switch.served[-1], lines(made)) == (("tiny-2",), ("tiny-2", "tiny-1"))


def test_f9_a_pinned_release_stays_whatever_comes(made: Device) -> None:
    assert made.activation.pin(CHANNEL, None).id == "tiny-2"
    ref = install(made.store, "3")
    with pytest.raises(Refused, match="pinned to tiny-2"):
        made.activation.try_release(CHANNEL, ref, tell=silent)
    with pytest.raises(Refused, match="pinned to tiny-2"):
        made.activation.rollback(CHANNEL)
    assert made.again().line().pin == made.line().active
    made.activation.unpin(CHANNEL)
    made.activation.try_release(CHANNEL, ref, tell=silent)
    assert lines(made) == ("tiny-3", "tiny-2")


def test_the_one_before_can_be_pinned_and_serves_then(made: Device) -> None:
    assert made.activation.pin(CHANNEL, "tiny-1").id == "tiny-1"
    assert (made.switch.served[-1], made.line().pin.id) == (("tiny-1",), "tiny-1")


@pytest.mark.parametrize(
    ("channel", "name", "said"),
    [
        (CHANNEL, "tiny-9", "tiny-9 cannot be pinned on"),
        ("empty", None, "nothing is installed from empty"),
        ("empty", "tiny-9", "nothing is installed from empty"),
    ],
)
def test_what_is_not_there_cannot_be_pinned(made: Device, channel: str, name: str | None, said: str) -> None:
    with pytest.raises(Refused, match=said):
        made.activation.pin(channel, name)


def test_what_is_still_watched_cannot_be_pinned(made: Device) -> None:
    ref = made.store.state().line(CHANNEL).active
    made.store.change(lambda state: state.with_line(Line(channel="first", trial=ref)))
    with pytest.raises(Refused, match="is still on trial"):
        made.activation.pin("first", None)


def test_a_damaged_release_cannot_be_pinned(made: Device) -> None:
    previous = made.store.find(made.line().previous)
    assert previous is not None
    rot(previous.folder / "weights")
    with pytest.raises(Refused, match="is damaged"):
        made.activation.pin(CHANNEL, "tiny-1")


# --- damage -----------------------------------------------------------------------------------


def hurt(made: Device) -> Damage:
    active = made.store.find(made.line().active)
    assert active is not None
    rot(active.folder / "weights")
    found = damaged(active)
    assert found is not None
    return found


def test_e9_a_damaged_release_is_repaired(made: Device) -> None:
    found = hurt(made)
    before = made.store.seen()

    def repair(installed: Installed) -> None:
        path = installed.folder / "weights"
        (path.parent / "beside").write_bytes(b"weights of tiny 2")
        (path.parent / "beside").replace(path)

    assert made.activation.mend(found, repair)
    assert made.store.seen() == before


def test_e9_the_one_before_serves_until_what_could_not_be_loaded_is_repaired(made: Device) -> None:
    found = hurt(made)
    made.activation.soaked()
    made.store.doubt(found.installed.ref)
    before = made.store.seen()
    made.activation.soaked()
    assert made.switch.served[-1] == ("tiny-1",)

    def repair(installed: Installed) -> None:
        path = installed.folder / "weights"
        (path.parent / "beside").write_bytes(b"weights of tiny 2")
        (path.parent / "beside").replace(path)

    assert made.activation.mend(found, repair)
    assert made.switch.served[-1] == ("tiny-2",)
    assert made.store.seen() == before


@pytest.mark.parametrize("problem", [OSError(5, "it cannot be read"), StorageFailed("no space"), None])
def test_e9_the_one_before_takes_over_from_what_cannot_be_repaired(
    made: Device, problem: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    def repair(_: Installed) -> None:
        if problem is not None:
            raise problem

    caplog.set_level(logging.WARNING)
    assert not made.activation.mend(hurt(made), repair)
    assert (made.switch.served[-1], lines(made)) == (("tiny-1",), ("tiny-1", None))
    assert "tiny-1 takes over from tiny-2" in caplog.text
    made.store.collect()
    assert [one.ref.id for one in made.store.installed()] == ["tiny-1"]
    made.activation.try_release(CHANNEL, install(made.store, "2"), tell=silent)
    assert lines(made) == ("tiny-2", "tiny-1")


def test_what_nobody_needs_any_more_is_not_repaired(made: Device) -> None:
    found = hurt(made)
    made.store.change(lambda state: state.with_line(Line(channel=CHANNEL, active=made.line().previous)))
    repairs: list[Installed] = []
    assert not made.activation.mend(found, repairs.append)
    assert repairs == []


def test_e9_what_cannot_be_repaired_and_has_none_before_it_stays_to_be_repaired_later(tmp_path: Path) -> None:
    found = device(Store(tmp_path / "home"))
    found.activation.try_release(CHANNEL, install(found.store, "1"), tell=silent)
    assert not found.activation.mend(hurt(found), lambda _: None)
    assert found.store.state().lines == (Line(channel=CHANNEL, active=found.line().active),)
