"""The link inside of the agent: one step of its thread at a time, with doubles of all rooms."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.http.replies.sync import SyncReply
from device_agent.releases.records import Installed, Line, Refusal, State
from device_agent.sync.identity import Identity
from device_agent.sync.lock import FOLDER, updating
from device_agent.sync.records import LinkSettings, Progress, Window
from device_agent.sync.rooms import Rooms
from device_agent.sync.schedule import Rhythm
from device_agent.sync.upkeep import Upkeep
from edgekit.errors import Busy, EdgekitError, NotEnrolled, Refused, SyncError, TrustLost, Unreachable
from edgekit.release.provisioning import Provisioning
from tests.device_agent.sync.fakes import COST, DEVICE, NOW, Scene, channel, ref, release, trusting

V1, V2 = (release(version=f"{n}.0", sequence=n) for n in (1, 2))
NIGHT = (Window(begin_minute=22 * 60, end_minute=6 * 60),)
HOUR = 3600.0


class House:
    """An upkeep over a scene, with clocks that stand still until they are moved."""

    def __init__(self, home: Path, *, settings: LinkSettings | None = None) -> None:
        (home / FOLDER).mkdir(parents=True)
        self.home = home
        self.settings = settings or LinkSettings(repositories=("https://user:secret@host/x",), interval_s=HOUR)
        self.scene = Scene(trusting(V1, V2), settings=self.settings)
        self.scene.trust.say(channel(V2.id))
        self.scene.active(V1)
        self.now = NOW
        self.ticks = 0.0
        self.minute = 12 * 60
        self.problem: EdgekitError | None = None
        self.beats = 0
        self.upkeep = Upkeep(
            home,
            self.settings,
            self.compose,
            pulse=self.beat,
            clock=lambda: self.now,
            ticks=lambda: self.ticks,
            rhythm=lambda found: Rhythm(
                found.interval_s, found.windows, chance=lambda: 0.5, minute=lambda _: self.minute
            ),
        )

    def beat(self) -> None:
        self.beats += 1

    def compose(self, settings: LinkSettings) -> Rooms:
        if self.problem is not None:
            raise self.problem
        scene = self.scene
        told = Provisioning(format=1, root="{}")
        return Rooms(
            home=self.home,
            identity=Identity(device=DEVICE, provisioning=told, secret=b"s" * 32),
            device=DEVICE,
            settings=settings,
            trust=scene.trust,
            connect=scene._connect,
            store=scene.store,
            activation=scene.activation,
            link=scene.link,
        )

    def step(self, *, after_s: float = 0.0) -> None:
        """What the thread does once."""
        self.now += after_s
        self.ticks += after_s
        self.upkeep._step()

    def status(self) -> SyncReply:
        return self.upkeep.status()


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.step()  # the first look is due some seconds later
    return made


# --- by itself --------------------------------------------------------------------------------


def test_it_looks_soon_after_the_start_and_then_at_intervals(house: House) -> None:
    assert house.scene.activation.tried == []
    house.step(after_s=10)
    assert house.scene.activation.tried == [("stable", V2.id)]
    assert house.status().next_look_at == pytest.approx(house.now + HOUR)
    house.step(after_s=HOUR - 1)
    assert house.scene.trust.refreshed == 2
    house.step(after_s=2)
    assert house.scene.trust.refreshed == 3


def test_a_failure_is_tried_again_sooner(house: House) -> None:
    house.scene.trust.problem = Unreachable("no route")
    house.step(after_s=10)
    assert house.status().next_look_at == pytest.approx(house.now + 90)
    last = house.status().lines[0].last
    assert last is not None
    assert (last.ending, last.exit_code) == ("failed", 63)


def test_a_bug_of_ours_is_not_met_again_every_second(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.scene.link, "update", broken)
    with pytest.raises(ZeroDivisionError):
        house.step(after_s=10)
    house.step(after_s=1)
    assert house.status().next_look_at == pytest.approx(house.now - 1 + 90)


def test_outside_of_its_windows_it_only_looks(tmp_path: Path) -> None:
    house = House(tmp_path, settings=LinkSettings(repositories=("fake",), interval_s=HOUR, windows=NIGHT))
    house.step()
    house.step(after_s=10)
    assert house.scene.activation.tried == []
    offered = house.status().lines[0].offered
    assert offered is not None
    assert (offered.release, offered.cost) == (V2.id, COST)
    assert house.status().fetches_at == pytest.approx(house.now + 10 * HOUR)
    house.minute = 23 * 60
    house.step(after_s=2 * HOUR)
    assert house.scene.activation.tried == [("stable", V2.id)]
    assert house.status().fetches_at is None
    assert [each.windows for each in house.scene.connected] == [(), NIGHT]


def test_without_an_interval_it_waits_to_be_asked(tmp_path: Path) -> None:
    house = House(tmp_path, settings=LinkSettings(repositories=("fake",), interval_s=0))
    house.step()
    house.step(after_s=1000 * HOUR)
    assert house.scene.trust.refreshed == 0
    house.upkeep.update()
    house.step()
    assert house.scene.activation.tried == [("stable", V2.id)]


# --- what operators wish ----------------------------------------------------------------------


def test_an_operators_update_does_not_wait_for_a_window(tmp_path: Path) -> None:
    house = House(tmp_path, settings=LinkSettings(repositories=("fake",), windows=NIGHT))
    house.upkeep.update()
    house.step()
    assert house.scene.connected[0].windows == ()
    assert house.scene.activation.tried == [("stable", V2.id)]


def test_a_check_tells_and_installs_nothing(house: House) -> None:
    house.upkeep.check()
    house.step()
    assert house.scene.activation.tried == []
    found = house.status()
    assert found.lines[0].offered is not None
    assert found.lines[0].offered.cost == COST
    assert found.checked_at == house.now


def test_back_pinned_and_following_again(house: House) -> None:
    house.step(after_s=10)
    house.upkeep.rollback(None)
    house.step()
    assert house.status().lines[0].active == V1.id
    house.upkeep.pin("stable", V1.id)
    house.step()
    assert house.status().lines[0].pin == V1.id
    house.upkeep.unpin(None)
    house.step()
    assert house.status().lines[0].pin is None
    assert [entry.does for entry in house.status().history[:3]] == ["unpin", "pin", "rollback"]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (lambda up: up.rollback(None), "no release to go back to"),
        (lambda up: up.rollback("beta"), "follows no channel beta"),
        (lambda up: up.pin(None, "tiny-9.0"), "tiny-9.0 cannot be pinned"),
        (lambda up: up.unpin("beta"), "follows no channel beta"),
    ],
)
def test_what_cannot_be_is_refused_at_once(house: House, wish: Callable[[Upkeep], None], says: str) -> None:
    with pytest.raises(Refused, match=says):
        wish(house.upkeep)
    house.step()
    assert house.scene.activation.done == []


def test_a_refusal_that_comes_later_is_in_the_history(house: House) -> None:
    house.step(after_s=10)
    house.scene.activation.problem = Refused("tiny-1.0 is damaged: model.onnx")
    house.upkeep.rollback(None)
    house.step()
    entry = house.status().history[0]
    assert (entry.does, entry.ending, entry.exit_code) == ("rollback", "refused", 67)
    assert "model.onnx" in entry.reason


def test_a_wish_interrupts_a_download_which_then_goes_on(house: House) -> None:
    house.scene.store.kept = State(lines=(Line(channel="stable", active=ref(V1), previous=ref(V1)),))
    first = True

    def fetch(*_: object, **__: object) -> object:
        nonlocal first
        if first:
            first = False
            house.upkeep.rollback(None)
            assert house.upkeep._leave.is_set()
            raise SyncError("it was told to stop")
        return fetched(*_, **__)  # type: ignore[arg-type]

    fetched = house.scene.delivery.fetch
    house.scene.delivery.fetch = fetch  # type: ignore[assignment, method-assign]
    house.step(after_s=10)
    assert house.scene.activation.done == [("rollback", "stable")]
    assert house.scene.activation.tried == [("stable", V2.id)], "after the wish, the update went on"


def test_e04_another_process_at_work_is_named_and_not_disturbed(house: House) -> None:
    with updating(house.home, "sync", now=time.time()):
        for wish in (house.upkeep.check, house.upkeep.update):
            with pytest.raises(Busy, match=f"process {os.getpid()} does `sync`"):
                wish()
        busy = house.status().busy
        assert busy is not None
        assert (busy.pid, busy.does) == (os.getpid(), "sync")
        house.step(after_s=10)
        assert house.scene.activation.tried == []
        assert house.status().history == ()
    house.step(after_s=HOUR * 1.2)
    assert house.scene.activation.tried == [("stable", V2.id)]


def test_e04_what_was_accepted_waits_until_a_repair_is_over(house: House) -> None:
    """The lock may be taken between the answer to an operator and the first step."""
    house.step(after_s=10)
    known = len(house.status().history)
    house.upkeep.update()
    house.upkeep.rollback(None)
    house.upkeep.pin(None, V1.id)
    with updating(house.home, "repair", now=time.time()):
        for _ in range(3):
            house.step(after_s=1)
        assert len(house.status().history) == known
    house.step(after_s=1)
    found = house.status().history
    assert [one.does for one in found[: len(found) - known]] == ["update", "pin", "rollback"]


# --- who this device is -----------------------------------------------------------------------


def test_a_device_that_was_never_enrolled_says_so_and_notices_when_it_is(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.problem = NotEnrolled("nobody told it")
    house.step()
    found = house.status()
    assert (found.enrolled, found.problem, found.lines) == (False, None, ())
    with pytest.raises(NotEnrolled):
        house.upkeep.update()
    house.problem = None
    house.step(after_s=1)
    assert not house.status().enrolled, "it does not look all the time"
    house.step(after_s=5)
    assert house.status().enrolled
    house.step(after_s=10)
    assert house.scene.activation.tried == [("stable", V2.id)]


def test_what_keeps_the_link_from_working_is_told(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.problem = TrustLost("device.json is damaged")
    house.step()
    assert "device.json is damaged" in (house.status().problem or "")
    with pytest.raises(NotEnrolled, match=r"device\.json is damaged"):
        house.upkeep.update()


def test_other_settings_count_from_the_next_look(house: House) -> None:
    house.upkeep.adjust(LinkSettings(repositories=("/media/usb",), interval_s=60))
    house.step()
    assert house.status().repositories == ["/media/usb"]
    house.step(after_s=10)
    assert house.status().next_look_at == pytest.approx(house.now + 60)


# --- what it says -----------------------------------------------------------------------------


def test_the_whole_state_is_told_without_secrets(house: House) -> None:
    house.scene.store.kept = State(
        lines=(Line(channel="stable", active=ref(V1), trial=ref(V2), soaking=True, tries_left=1),),
        refusals=(Refusal(release=ref(V2), channel="stable", reason="it hung", at=NOW),),
    )
    found = house.status()
    assert found.repositories == ["https://host/x"]
    assert (found.device, found.labels) == ("device-1", {"site": "lyon"})
    assert (found.state.phase, found.state.release) == ("soaking", V2.id)
    (line,) = found.lines
    assert (line.active, line.trial, line.soaking, line.tries_left) == (V1.id, V2.id, True, 1)
    assert [(one.release, one.reason) for one in found.refusals] == [(V2.id, "it hung")]
    assert found.trust is not None
    assert (found.trust.fresh, found.trust.timestamp_version, found.trust.releases) == (True, 7, 2)
    assert found.disk is not None


def test_no_password_of_a_registry_is_told(house: House) -> None:
    house.upkeep.adjust(LinkSettings(repositories=("oci://user:secret@host:5000/models/tiny:1",), interval_s=60))
    assert house.status().repositories == ["oci://host:5000/models/tiny:1"]


def test_a_pin_below_the_floor_is_shouted(house: House) -> None:
    house.scene.store.here = [Installed(ref(V1), Path("x"), V1)]
    house.scene.store.kept = State(lines=(Line(channel="stable", active=ref(V1), pin=ref(V1)),))
    house.scene.trust.view = replace(house.scene.trust.view, floors={"tiny": 2}, releases={})
    below, withdrawn = house.status().lines[0].warnings
    assert below.startswith("tiny-1.0 is pinned, and below")
    assert "withdrawn" in withdrawn


def test_trust_that_is_lost_is_a_problem_and_no_crash(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise TrustLost("both records are damaged")

    monkeypatch.setattr(house.scene.trust, "last", lost)
    found = house.status()
    assert found.trust is None
    assert "both records" in (found.problem or "")
    assert found.lines[0].active == V1.id


def test_what_was_done_is_counted(house: House) -> None:
    house.step(after_s=10)
    texts = {sample.name: sample.value for metric in house.upkeep.readings() for sample in metric.samples}
    assert texts["edgekit_sync_trust_fresh"] == 1
    named = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in house.upkeep.readings()
        for sample in metric.samples
    }
    assert named["edgekit_sync_outcomes_total", "installed"] == 1
    assert named["edgekit_sync_bytes_total", "fetched"] == 100
    assert named["edgekit_sync_bytes_total", "reused"] == 900
    assert named["edgekit_sync_release_info", "stable", "active", V2.id] == 1
    assert named["edgekit_sync_release_info", "stable", "previous", V1.id] == 1
    assert named["edgekit_sync_phase", "idle"] == 1


def test_a_device_that_was_never_enrolled_has_no_metrics(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.problem = NotEnrolled("nobody told it")
    assert list(house.upkeep.readings()) == []


# --- the threads ------------------------------------------------------------------------------


@pytest.fixture
def running(house: House) -> Iterator[House]:
    house.upkeep.start()
    yield house
    house.upkeep.close()


def test_the_threads_do_what_is_wished_and_end(running: House) -> None:
    told = threading.Event()
    tell = running.upkeep._tell

    def noting(progress: Progress) -> None:
        tell(progress)
        if progress.phase == "fetching":
            told.set()

    running.upkeep._tell = noting  # type: ignore[method-assign]
    running.upkeep.update()
    assert told.wait(30)
    running.upkeep.close()
    assert not any(thread.is_alive() for thread in running.upkeep._threads)
    assert running.scene.activation.tried == [("stable", V2.id)]


def test_closing_before_the_start_is_harmless(tmp_path: Path) -> None:
    House(tmp_path).upkeep.close()
