"""What a device tells its owner, and how it gets there: never in the way of an update."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.releases.records import Line, Ref, Refusal, State
from device_agent.sync import courier
from device_agent.sync.identity import FOLDER, Identity, enrol
from device_agent.sync.records import Outcome
from device_agent.sync.reports import EVERY_S, RECORD, Reporter, made, this_machine
from edgekit.errors import Unreachable
from edgekit.release.channel import Device
from edgekit.release.provisioning import Provisioning
from edgekit.release.reports import Report, check

NOW = 1_800_000_000.0


def ref(release: str, sequence: int = 1) -> Ref:
    return Ref(id=release, kind="model", sequence=sequence, sha256="0" * 63 + str(sequence))


ONE, TWO = ref("tiny-1.0", 1), ref("tiny-2.0", 2)
STATE = State(lines=(Line(channel="stable", active=TWO, previous=ONE),))


@dataclasses.dataclass
class Till:
    """A device with a clock that can be set."""

    home: Path
    now: float = NOW

    def __post_init__(self) -> None:
        provisioning = Provisioning(format=1, root="{}", labels={"site": "lyon"})
        self.identity: Identity = enrol(self.home, provisioning, device_id="till-7", labels={})

    @property
    def reporter(self) -> Reporter:
        return Reporter(self.home, self.identity, clock=lambda: self.now)

    def read(self, folder: Path) -> Report:
        found = check((folder / "till-7.json").read_bytes(), {"till-7": self.identity.secret})
        assert isinstance(found, Report)
        return found


@pytest.fixture
def device(tmp_path: Path) -> Till:
    return Till(tmp_path / "home")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


def outcome(**changed: Any) -> Outcome:
    return dataclasses.replace(Outcome(channel="stable", ending="installed", release="tiny-2.0"), **changed)


# --- what is said ---


def test_a_report_says_what_runs_and_what_failed(device: Till, box: Path) -> None:
    refusal = Refusal(release=ref("tiny-3.0", 3), channel="stable", reason="it hangs", at=NOW)
    state = State(lines=STATE.lines, refusals=(refusal,))
    failed = outcome(ending="failed", release="tiny-3.0", reason="out of reach", exit_code=63)
    assert device.reporter.note(state, (), (failed,))
    assert device.reporter.carry(str(box), ()) == (str(box),)
    found = device.read(box)
    assert found.device == "till-7"
    assert found.labels == {"site": "lyon"}
    assert (found.line("stable").active, found.line("stable").previous) == ("tiny-2.0", "tiny-1.0")
    assert [(one.release, one.channel, one.reason) for one in found.refusals] == [("tiny-3.0", "stable", "it hangs")]
    assert [(one.ending, one.exit_code) for one in found.outcomes] == [("failed", 63)]
    assert found.machine == this_machine()


def test_much_is_cut_to_the_newest() -> None:
    refusals = tuple(
        Refusal(release=ref(f"tiny-{i}", i), channel="stable", reason="no", at=float(i)) for i in range(1, 90)
    )
    found = made(
        State(refusals=refusals),
        (),
        (),
        device=Device(id="d", labels={}),
        counter=1,
        now=1,
        trials={},
    )
    assert [one.release for one in found.refusals] == [f"tiny-{i}" for i in range(89, 69, -1)]


def test_no_path_of_its_owner_is_in_a_reason(device: Till, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane.doe")
    monkeypatch.setenv("USERPROFILE", "/home/jane.doe")
    reason = f"{device.home}/sync/x is full, /home/jane.doe/y too"
    device.reporter.note(STATE, (), (outcome(ending="failed", reason=reason),))
    device.reporter.carry(str(box), ())
    assert device.read(box).outcomes[0].reason == "EDGEKIT_HOME/sync/x is full, ~/y too"
    assert "jane" not in (box / "till-7.json").read_text()


# --- when ---


def test_nothing_new_is_no_report_until_a_day_has_gone_by(device: Till) -> None:
    current = outcome(ending="current")
    assert device.reporter.note(STATE, ())
    for passed in (1, 3600, EVERY_S - 1):
        device.now = NOW + passed
        assert not device.reporter.note(STATE, (), (current,))
    device.now = NOW + EVERY_S
    assert device.reporter.note(STATE, (), (current,))


@pytest.mark.parametrize(
    ("state", "outcomes"),
    [
        (State(lines=(Line(channel="stable", active=ONE),)), ()),
        (STATE, (outcome(ending="refused"),)),
        (STATE, (outcome(),)),
    ],
    ids=["another one serves", "refused", "installed"],
)
def test_what_changed_is_reported_at_once(device: Till, state: State, outcomes: tuple[Outcome, ...]) -> None:
    device.reporter.note(STATE, ())
    assert device.reporter.note(state, (), outcomes)


def test_the_same_failure_every_hour_does_not_wear_out_the_card(device: Till) -> None:
    failed = outcome(ending="failed", exit_code=63)
    assert device.reporter.note(STATE, (), (failed,))
    device.now += 3600
    assert not device.reporter.note(STATE, (), (failed,))
    assert device.reporter.note(STATE, (), (outcome(ending="failed", exit_code=65),))


# --- counters ---


@pytest.mark.parametrize(
    "clock", [lambda i: NOW + 0 * i, lambda i: NOW - i * 86_400, lambda i: 0.0 * i, lambda i: -5.0 - i]
)
def test_counters_rise_whatever_the_clock_does(device: Till, box: Path, clock: Callable[[int], float]) -> None:
    counters = []
    for i in range(4):
        device.now = clock(i)
        device.reporter.note(STATE, (), (outcome(release=f"tiny-{i}"),))
        device.reporter.carry(str(box), ())
        counters.append(device.read(box).counter)
    assert counters == sorted(set(counters))


def test_a_clock_beyond_all_bounds_makes_a_valid_report(device: Till, box: Path) -> None:
    device.now = 1e18
    assert device.reporter.note(STATE, ())
    device.reporter.carry(str(box), ())
    assert device.read(box).at == (1 << 40) - 1


def test_a_lost_record_does_not_begin_to_count_anew(device: Till, box: Path, caplog: pytest.LogCaptureFixture) -> None:
    device.reporter.note(STATE, ())
    device.reporter.carry(str(box), ())
    before = device.read(box).counter
    for i in range(2):
        path = device.home / FOLDER / f"{RECORD}.{i}"
        path.write_bytes(b"")
    device.now += 60
    assert device.reporter.note(STATE, ())
    device.reporter.carry(str(box), ())
    assert device.read(box).counter > before
    assert "damaged" in caplog.text


# --- where it goes ---


def test_a_report_goes_home_on_every_stick_that_has_a_folder_for_it(device: Till, tmp_path: Path) -> None:
    sticks = [tmp_path / name for name in ("with", "without")]
    for stick in sticks:
        stick.mkdir()
    (sticks[0] / "returns").mkdir()
    tarred = tmp_path / "tarred"
    (tarred / "returns").mkdir(parents=True)
    repositories = (str(sticks[0]), sticks[0].as_uri(), str(sticks[1]), str(tarred / "x.tar"), "https://example.org/r")
    device.reporter.note(STATE, ())
    carried = device.reporter.carry(None, repositories)
    assert carried == (str(sticks[0] / "returns"), str(tarred / "returns"))
    assert device.read(sticks[0] / "returns") == device.read(tarred / "returns")
    assert list(sticks[1].iterdir()) == []


def test_only_the_newest_waits_and_replaces_the_one_before(device: Till, box: Path) -> None:
    device.reporter.note(STATE, ())
    device.reporter.carry(str(box), ())
    first = device.read(box)
    for i in range(3):
        device.reporter.note(STATE, (), (outcome(release=f"tiny-{i}"),))
    device.reporter.carry(str(box), ())
    assert device.read(box).outcomes[0].release == "tiny-2"
    assert device.read(box).counter == first.counter + 3
    assert [path.name for path in box.iterdir()] == ["till-7.json"]


def test_a_stick_that_has_it_already_is_not_written_again(device: Till, box: Path) -> None:
    device.reporter.note(STATE, ())
    device.reporter.carry(str(box), ())
    before = (box / "till-7.json").stat()
    assert device.reporter.carry(str(box), ()) == (str(box),)
    after = (box / "till-7.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_link_on_a_strangers_stick_is_not_followed(device: Till, box: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (box / "till-7.json").symlink_to(precious)
    device.reporter.note(STATE, ())
    assert device.reporter.carry(str(box), ()) == ()
    assert precious.read_text() == "mine"


def test_a_folder_for_reports_that_is_a_link_on_a_strangers_stick_is_none(device: Till, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "returns").symlink_to(tmp_path / "precious", target_is_directory=True)
    device.reporter.note(STATE, ())
    assert device.reporter.carry(None, (str(tmp_path / "stick"),)) == ()
    assert list((tmp_path / "precious").iterdir()) == []


@pytest.mark.parametrize("place", ["nowhere/at/all", "ftp://x/y", "https://", "http://[::1", "file:///no/such/folder"])
def test_a_place_that_takes_none_costs_nothing_else(device: Till, place: str) -> None:
    device.reporter.note(STATE, ())
    assert device.reporter.carry(place, ()) == ()


def test_a_disk_that_is_full_costs_nothing_else(device: Till) -> None:
    reporter = device.reporter
    for path in (device.home / FOLDER).iterdir():
        path.unlink()
    (device.home / FOLDER).rmdir()
    assert not reporter.note(STATE, ())
    assert reporter.carry(None, ()) == ()


def test_a_place_that_never_answers_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    answer = threading.Event()
    monkeypatch.setattr(courier, "_put", lambda *_: answer.wait())
    monkeypatch.setattr(courier, "PATIENCE_S", 0.01)
    try:
        with pytest.raises(Unreachable, match="within"):
            courier.deliver(b"{}", "d", "https://user:secret@example.org/r")
    finally:
        answer.set()


def test_no_password_is_kept_in_the_record(device: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(courier, "_put", lambda _, url: sent.append(url))
    device.reporter.note(STATE, ())
    for _ in range(2):
        assert device.reporter.carry("https://u:secret@example.org/r/", ()) == ("https://example.org/r/",)
    assert sent == ["https://u:secret@example.org/r/till-7.json"]  # once: it was remembered
    texts = [path.read_text() for path in (device.home / FOLDER).glob(f"{RECORD}.*")]
    assert texts
    assert not any("secret@" in text for text in texts)
    assert json.loads(texts[0])


def test_a_server_gets_the_next_report_too(device: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(courier, "_put", lambda envelope, _: sent.append(envelope))
    for i in range(2):
        device.reporter.note(STATE, (), (outcome(release=f"tiny-{i}"),))
        device.reporter.carry("https://example.org/r", ())
    assert len(set(sent)) == 2
