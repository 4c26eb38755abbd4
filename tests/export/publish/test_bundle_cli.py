"""`edgekit bundle create`, as a person runs it."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgekit.errors import EdgekitError, PublishError, UsageError
from export.publish import devices as fleet_room
from export.publish.bundle_cli import bundle_command
from export.publish.channels import Wish
from tests.export.publish.fleets import envelope, fleet, report
from tests.export.publish.publishers import DAY, NOW, Publisher, publisher


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    monkeypatch.setattr("export.publish.bundle_cli.clock", lambda: NOW)
    monkeypatch.delenv("EDGEKIT_KEY_PASSPHRASE", raising=False)
    made = publisher(tmp_path)
    for version in ("1.0", "2.0"):
        made.add("tiny", version, channel="stable")
    made.add("other", "1", channel="beta")
    made.repository.folder.with_name("repo.keys").symlink_to(tmp_path / "keys")
    return made


def run(own: Publisher, words: str) -> Result:
    folder = own.repository.folder
    text = words.replace("REPO", str(folder)).replace("HERE", str(folder.parent))
    return CliRunner().invoke(bundle_command, ["create", "--repo", str(folder), *text.split()])


def told(own: Publisher, words: str) -> Any:
    result = run(own, f"{words} --json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def raised(result: Result) -> EdgekitError:
    assert isinstance(result.exception, EdgekitError)
    return result.exception


def test_a_stick_for_any_device(own: Publisher, tmp_path: Path) -> None:
    found = told(own, "-o HERE/usb")
    assert {fit["release"] for fit in found["fits"]} == {"tiny-2.0", "other-1"}
    sizes = [path.stat().st_size for path in (tmp_path / "usb").rglob("*") if path.is_file()]
    assert (sum(sizes), len(sizes)) == (found["bytes"], found["files"])
    assert found["copied_bytes"] == found["bytes"]
    assert found["expires"] == int(NOW + 30 * DAY)
    shown = run(own, "-o HERE/usb").output
    assert "new devices, and any other" in shown
    assert "2027-02-14" in shown  # until when devices install from it


def test_channels_releases_and_bases(own: Publisher) -> None:
    found = told(own, "-o HERE/usb --channel stable --release other-1 --since tiny-1.0")
    assert [(fit["for"], fit["release"]) for fit in found["fits"]] == [
        ("devices that have tiny-1.0", "tiny-2.0"),
        ("devices that have tiny-1.0", "other-1"),
    ]


def test_a_tar(own: Publisher, tmp_path: Path) -> None:
    found = told(own, "--tar HERE/x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert len(tar.getmembers()) == found["files"]


def test_for_those_that_left_reports_on_the_stick(own: Publisher, tmp_path: Path) -> None:
    fleet_room.default_path(own.repository.folder).write_bytes(fleet(["a", "b", "c"]).to_bytes())
    told(own, "-o HERE/usb")
    for name, have in (("a", "tiny-1.0"), ("stranger", "tiny-2.0")):
        (tmp_path / "usb" / "returns" / f"{name}.json").write_bytes(envelope(report(name, have=(have,))))
    found = told(own, "--channel stable --for HERE/usb -o HERE/usb")
    assert [fit["devices"] for fit in found["fits"]] == [["a"], ["stranger"]]
    member = fleet_room.FleetFile(fleet_room.default_path(own.repository.folder)).read().member("a")
    assert member is not None
    assert member.report == report("a", have=("tiny-1.0",))  # what came back counts for rollouts too


def test_for_a_list_of_devices_silent_ones_get_everything(own: Publisher, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_bytes(fleet(["a", "b"]).to_bytes())
    found = told(own, "--channel stable --for HERE/list.json -o HERE/usb")
    assert [(fit["for"], fit["devices"]) for fit in found["fits"]] == [("2 devices with nothing", ["a", "b"])]


def test_nobody_to_be_for_is_said(own: Publisher, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no device" in str(raised(run(own, "--for HERE/empty -o HERE/usb")))


def test_a_longer_life_is_signed_and_said(own: Publisher) -> None:
    result = run(own, "-o HERE/usb --expires 180")
    assert "for 180 days" in result.output
    assert "2027-07-1" in result.output
    state = own.repository.state()
    for role in ("timestamp", "snapshot", "rollout", "releases", "targets"):
        assert state.role(role).signed.expires.timestamp() >= NOW + 180 * DAY
    own.now = NOW + 179 * DAY
    own.verify()
    versions = {role: state.role(role).signed.version for role in ("releases", "targets")}
    assert versions == {"releases": 4, "targets": 1}  # those last for a year as they are


def test_the_next_publish_has_the_usual_life_again(own: Publisher) -> None:
    run(own, "-o HERE/usb --expires 180")
    own.set("stable", Wish(note="changed"))
    assert own.repository.state().timestamp.signed.expires.timestamp() == NOW + 30 * DAY


def test_what_is_left_over_is_deleted_when_asked(own: Publisher, tmp_path: Path) -> None:
    told(own, "-o HERE/usb")
    (tmp_path / "usb" / "mine.txt").write_text("mine")
    found = told(own, "-o HERE/usb --channel beta --clean")
    assert found["freed_bytes"] > 0
    assert not list((tmp_path / "usb" / "targets" / "channels").glob("*.stable.json"))
    assert (tmp_path / "usb" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("words", ["", "-o HERE/usb --tar HERE/x.tar", "--tar HERE/x.tar --clean"])
def test_what_makes_no_sense_is_said(own: Publisher, words: str) -> None:
    assert isinstance(raised(run(own, words)), UsageError)


@pytest.mark.parametrize("words", ["--since nope-1", "--channel nope", "--release nope-1"])
def test_what_is_not_there_is_said(own: Publisher, tmp_path: Path, words: str) -> None:
    assert isinstance(raised(run(own, f"-o HERE/usb {words}")), PublishError)
    assert not (tmp_path / "usb").exists()
