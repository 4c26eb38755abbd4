"""`edgekit rollout`: a fleet that reports, and a person (or cron) that goes on."""

import json
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from edgekit.errors import EdgekitError, RolloutStopped, RolloutWaits, UsageError
from edgekit.release.channel import Channel, RampStep
from edgekit.release.reports import Enrolment, Report, sealed
from export.publish import devices as fleet_room
from export.publish import rollout_cli
from export.publish.channels import Wish
from export.publish.devices import Fleet, FleetFile
from export.publish.rollout_cli import rollout_command
from tests.export.publish.fleets import NEW, OLD, devices, envelope, failed, fleet, report, secret
from tests.export.publish.publishers import NOW, Publisher, publisher


class Desk:
    """A publisher with the release NEW of a rollout that follows OLD, a fleet, and a folder of its reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own: Publisher = publisher(folder)
        for version in ("1.0", "2.0"):
            self.own.add("tiny", version)
        self.own.set("stable", Wish(release=OLD))
        self.reports = folder / "reports"
        self.reports.mkdir()
        self.members = FleetFile(fleet_room.default_path(self.repo))

    @property
    def repo(self) -> Path:
        return self.own.repository.folder

    @property
    def channel(self) -> Channel:
        return self.own.repository.channels()["stable"]

    def offer(self, *percents: float) -> None:
        """The salt of a new channel is "salt"."""
        ramp = tuple(RampStep(i, percent) for i, percent in enumerate(percents))
        self.own.set("stable", Wish(release=NEW, ramp=ramp))

    def enrol(self, names: list[str]) -> None:
        self.members.path.write_bytes(fleet([*names, *(m.device for m in self.members.read().members)]).to_bytes())

    def say(self, *reports: Report) -> None:
        for one in reports:
            (self.reports / f"{one.device}.json").write_bytes(envelope(one))

    def run(self, words: str) -> Result:
        text = words.replace("REPORTS", str(self.reports)).replace("REPO", str(self.repo))
        return CliRunner().invoke(rollout_command, text.replace("HERE", str(self.folder)).split())

    def json(self, words: str) -> Any:
        return json.loads(self.run(f"{words} --json").stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("export.publish.rollout_cli.clock", lambda: NOW + 100)
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    made = Desk(tmp_path)
    made.own.repository.folder.with_name("repo.keys").symlink_to(tmp_path / "keys")
    return made


def ran(names: list[str]) -> list[Report]:
    return [report(name, active=NEW) for name in names]


ADVANCE = "advance stable --repo REPO --reports REPORTS"


def raised(result: Result) -> EdgekitError:
    assert isinstance(result.exception, EdgekitError)
    return result.exception


# --- who they are ---


def test_devices_are_enrolled_listed_and_forgotten(desk: Desk) -> None:
    for name in ("till-1", "till-2"):
        record = Enrolment(format=1, device=name, secret=secret(name).hex(), labels={"site": "lyon"})
        (desk.folder / f"{name}.json").write_bytes(record.to_bytes())
    assert desk.json("enrol HERE/till-1.json HERE/till-2.json --repo REPO")["enrolled"] == ["till-1", "till-2"]
    desk.say(report("till-1", active=OLD, have=(OLD,)))
    found = desk.json("devices --repo REPO --reports REPORTS")
    assert [(one["device"], one["report"] is None) for one in found["devices"]] == [("till-1", False), ("till-2", True)]
    shown = desk.run("devices --repo REPO").output
    assert "stable: tiny-1.0" in shown
    assert "site=lyon" in shown
    assert "never" in shown
    for text in (json.dumps(found), shown):
        assert secret("till-1").hex() not in text
    desk.run("forget till-1 --repo REPO")
    assert [member.device for member in desk.members.read().members] == ["till-2"]


def test_the_list_of_devices_is_never_inside_of_the_repository(desk: Desk) -> None:
    error = raised(desk.run("devices --repo REPO --devices REPO/devices.json"))
    assert isinstance(error, UsageError)
    assert "secrets" in str(error)


# --- how far it is ---


def test_status_counts_and_draws(desk: Desk) -> None:
    desk.offer(50)
    inside, outside = devices(8, end=50, salt="salt"), devices(3, begin=50, salt="salt")
    desk.enrol([*inside, *outside])
    desk.say(*ran(inside[:5]), failed(inside[5], reason="too slow"), report(inside[6], active=OLD))
    (desk.reports / "stranger.json").write_bytes(envelope(report("stranger")))
    (desk.reports / "liar.json").write_bytes(sealed(report(inside[0], counter=9), b"x" * 32))
    found = desk.json("status --repo REPO --reports REPORTS")
    [one] = found["channels"]
    assert one["counts"] == {"installed": 5, "failed": 1, "waiting": 1, "silent": 1, "later": 3}
    assert (one["offered"], one["percent"], one["release"], one["state"]) == (8, 50.0, NEW, "open")
    assert one["reasons"] == {"too slow": 1}
    assert found["reports"] == {"new": 7, "unknown": 1, "forged": 1}
    shown = desk.run("status --repo REPO --reports REPORTS")
    assert "5 of 8 offered" in shown.output
    assert "failed on 1: too slow" in shown.output
    assert "not enrolled" in shown.output
    bar = shown.output.partition("[")[2].partition("]")[0]
    assert len(bar) == 50
    assert {sign: bar.count(sign) for sign in "#x-."} == {"#": 31, "x": 6, "-": 6, ".": 6}


def test_a_bar_shows_the_one_that_failed_among_thousands() -> None:
    drawn = click.unstyle(rollout_cli._bar({"installed": 9999, "failed": 1}, 10_000))
    assert (drawn.count("#"), drawn.count("x")) == (49, 1)


# --- how it goes on ---


def test_enough_run_it_and_it_goes_to_more_devices_with_the_same_salt(desk: Desk) -> None:
    desk.offer(10)
    names = devices(25, end=10, salt="salt")
    desk.enrol(names)
    desk.say(*ran(names))
    before = desk.channel
    found = desk.json(f"{ADVANCE} --steps 1,10,50,100")
    assert (found["move"], found["to_percent"]) == ("widen", 50.0)
    assert desk.channel.salt == before.salt
    assert desk.channel.version == before.version + 1
    assert [step.percent for step in desk.channel.ramp] == [10, 50]
    desk.own.verify()
    again = desk.run(f"{ADVANCE} --steps 1,10,50,100")  # the new stage has proven nothing yet
    assert isinstance(raised(again), RolloutWaits)
    assert [step.percent for step in desk.channel.ramp] == [10, 50]


def test_below_the_minimum_it_waits_and_changes_nothing(desk: Desk) -> None:
    desk.offer(10)
    names = devices(25, end=10, salt="salt")
    desk.enrol(names)
    desk.say(*ran(names[:19]))
    before = desk.channel
    result = desk.run(f"{ADVANCE} --to 50")
    assert raised(result).exit_code == 74
    assert "19 of at least 20" in str(result.exception)
    assert desk.run(f"{ADVANCE} --to 50 --json").exit_code == 74
    assert desk.channel == before


def test_f06_over_the_limit_the_pause_is_published(desk: Desk) -> None:
    desk.offer(100)
    names = devices(40, salt="salt")
    desk.enrol(names)
    desk.say(*ran(names[:38]), *(failed(name) for name in names[38:]))
    result = desk.run(f"{ADVANCE} --to 100 --min-ok 20 --max-fail 2%")
    assert isinstance(raised(result), RolloutStopped)
    assert raised(result).exit_code == 75
    assert desk.channel.pause
    assert "2 of 40" in desk.channel.note
    desk.own.verify()
    version = desk.channel.version
    assert desk.run(f"{ADVANCE} --to 100").exception is not None
    assert desk.channel.version == version  # and it is published once


def test_f06_nor_forged_nor_replayed_nor_strange_reports_move_anything(desk: Desk) -> None:
    desk.offer(10)
    names = devices(25, end=10, salt="salt")
    desk.enrol(names)
    desk.say(*(report(name, counter=5, active=OLD) for name in names))
    desk.run("status --repo REPO --reports REPORTS")
    for name in names:
        (desk.reports / f"{name}.json").write_bytes(envelope(report(name, counter=4, active=NEW)))
        (desk.reports / f"{name}-2.json").write_bytes(sealed(report(name, counter=9, active=NEW), b"x" * 32))
        (desk.reports / f"x{name}.json").write_bytes(envelope(report(f"x{name}", active=NEW)))
        (desk.reports / f"y{name}.json").write_bytes(envelope(failed(f"y{name}")))
    result = desk.run(f"{ADVANCE} --to 50")
    assert isinstance(raised(result), RolloutWaits)
    for words in ("25 reports older", "50 reports of devices that are not enrolled", "25 reports that their device"):
        assert words in result.output


def test_abort_sends_everybody_back(desk: Desk) -> None:
    desk.offer(100)
    names = devices(3, salt="salt")
    desk.enrol(names)
    desk.say(failed(names[0]))
    assert isinstance(raised(desk.run(f"{ADVANCE} --to 100 --on-fail abort")), RolloutStopped)
    assert (desk.channel.abort_to, desk.channel.pause) == (OLD, False)


def test_abort_without_a_release_to_go_back_to_is_a_pause(desk: Desk) -> None:
    desk.offer(100)
    desk.own.set("stable", Wish(forget_previous=True))
    names = devices(3, salt="salt")
    desk.enrol(names)
    desk.say(failed(names[0]))
    result = desk.run(f"{ADVANCE} --to 100 --on-fail abort")
    assert "no release to go back to" in result.output
    assert (desk.channel.abort_to, desk.channel.pause) == (None, True)


def test_a_stick_that_came_back_is_a_folder_of_reports(desk: Desk) -> None:
    desk.offer(10)
    names = devices(20, end=10, salt="salt")
    desk.enrol(names)
    stick = desk.folder / "usb"
    (stick / "returns").mkdir(parents=True)
    for one in ran(names):
        (stick / "returns" / f"{one.device}.json").write_bytes(envelope(one))
    assert desk.json("advance stable --repo REPO --reports HERE/usb --to 100")["move"] == "widen"
    assert desk.channel.ramp[-1].percent == 100


def test_without_devices_it_says_that_nobody_is_believed(desk: Desk) -> None:
    result = desk.run(f"{ADVANCE} --to 100")
    assert "no device is enrolled" in result.output
    assert isinstance(raised(result), RolloutWaits)


@pytest.mark.parametrize(
    "words",
    [
        *("", "--to 50 --steps 1,2", "--to 0", "--to 101", "--steps 10,1", "--steps a", "--steps 0,1", "--steps 1,1"),
        *("--to 5 --max-fail 101%", "--to 5 --max-fail x", "--to 5 --min-ok 0"),
    ],
)
def test_what_makes_no_sense_is_said(desk: Desk, words: str) -> None:
    result = desk.run(f"{ADVANCE} {words}")
    assert result.exit_code != 0
    assert not isinstance(result.exception, RolloutWaits | RolloutStopped)


def test_a_channel_that_is_not_there_is_said(desk: Desk) -> None:
    assert isinstance(raised(desk.run("advance nope --repo REPO --to 5")), UsageError)


def test_a_fleet_file_is_what_its_format_says(desk: Desk) -> None:
    desk.enrol(["a"])
    assert msgspec.json.decode(desk.members.path.read_bytes(), type=Fleet) == desk.members.read()
