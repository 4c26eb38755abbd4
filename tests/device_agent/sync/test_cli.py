"""The verbs enrol, sync, rollback and pin, against a signed repository in a folder and with real trials."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_agent.activation.records import Verdict
from device_agent.sync import composing
from device_agent.sync.identity import read_identity
from device_agent.sync.lock import updating
from edgekit.cli import main
from tests.device_agent.bundles import TINY, copy_to, edit
from tests.repositories import Repository

Run = Callable[..., int]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    monkeypatch.setenv("EDGEKIT_HOME", str(found))
    return found


@pytest.fixture
def run() -> Run:
    def call(*words: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0)

    return call


class Fleet:
    """A repository in a folder, whose owner publishes versions of the tiny model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.made = Repository(now=time.time())
        self._scratch = folder
        self._version = 0
        self.publish()

    def publish(self, *, say: bool = True) -> str:
        self._version += 1
        scratch = self._scratch / f"version{self._version}"
        scratch.mkdir()
        bundle = copy_to(scratch, TINY)
        edit(bundle, lambda manifest: manifest.update(version=f"{self._version}.0"))
        release = self.made.add_folder(bundle)
        if say:
            self.made.set_channel("stable", release.id, version=self._version)
        self.write()
        return release.id

    def write(self) -> None:
        self.made.publish()
        self.made.write(self.folder)

    def provisioning(self, path: Path) -> Path:
        told = msgspec.structs.replace(self.made.provisioning(), repositories=(str(self.folder),), labels={"a": "1"})
        path.write_bytes(told.to_bytes())
        return path


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Verdict]:
    """Trials that end at once, as the first of these says; well if there is none."""
    verdicts: list[Verdict] = []
    probe = lambda *_, **__: lambda *_: verdicts[0] if verdicts else Verdict(ok=True)  # noqa: E731
    monkeypatch.setattr(composing, "ChildProbe", probe)
    return verdicts


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_first_time_by_a_folder_with_a_real_trial(
    home: Path, fleet: Fleet, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sync", "--once", "--repo", fleet.folder, "--json") == 0
    heard = capsys.readouterr()
    assert "for the first time" in heard.err
    assert "sha256" in heard.err
    (outcome,) = json.loads(heard.out)["outcomes"]
    assert (outcome["channel"], outcome["ending"], outcome["release"]) == ("stable", "installed", "tiny-llama-1.0")
    assert outcome["moved_bytes"] > 200_000
    (folder,) = (home / "sync" / "releases").iterdir()
    assert (folder / "bundle.json").read_bytes() == (
        fleet._scratch / "version1" / "bundle" / "bundle.json"
    ).read_bytes()
    assert run("sync", "--once") == 0
    assert "is the newest" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_by_a_file_of_its_owner(
    home: Path, fleet: Fleet, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fleet.provisioning(tmp_path / "p.json")
    assert run("enrol", file, "--id", "board-7", "--label", "site=lyon", "--json") == 0
    assert said(capsys) == {
        "device": "board-7",
        "labels": {"a": "1", "site": "lyon"},
        "repositories": [str(fleet.folder)],
        "channels": ["stable"],
    }
    assert run("sync", "--check", "--json") == 0
    (offer,) = said(capsys)["offers"]
    assert offer["release"] == "tiny-llama-1.0"
    assert offer["cost"]["fetch_bytes"] > 200_000
    assert not (home / "sync" / "releases").exists() or not list((home / "sync" / "releases").iterdir())
    assert run("sync", "--once") == 0
    assert run("enrol", "--show") == 0
    shown = capsys.readouterr().out
    assert "board-7" in shown


@pytest.mark.usefixtures("home", "quick")
def test_a_second_version_then_back_then_pinned(fleet: Fleet, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sync", "--once", "--repo", fleet.folder) == 0
    fleet.publish()
    capsys.readouterr()
    assert run("sync", "--once", "--json") == 0
    (outcome,) = said(capsys)["outcomes"]
    assert (outcome["ending"], outcome["release"]) == ("installed", "tiny-llama-2.0")
    assert outcome["reused_bytes"] > 20 * outcome["moved_bytes"]
    assert run("rollback", "--json") == 0
    assert said(capsys) == {"channel": "stable", "release": "tiny-llama-1.0", "done": "rollback"}
    assert run("sync", "--once", "--json") == 68, "what somebody went back from is not taken again"
    capsys.readouterr()
    assert run("pin") == 0
    assert "tiny-llama-1.0 stays" in capsys.readouterr().out
    assert run("sync", "--once", "--json") == 0
    assert said(capsys)["outcomes"][0]["ending"] == "held"
    assert run("pin", "--off") == 0
    fleet.publish()
    assert run("sync", "--once") == 0
    assert "tiny-llama-3.0 is installed" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_a_failed_trial_is_refused_and_what_was_active_stays(
    fleet: Fleet, run: Run, quick: list[Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sync", "--once", "--repo", fleet.folder) == 0
    fleet.publish()
    quick.append(Verdict(ok=False, reason="3 of 24 golden tokens agree"))
    assert run("sync", "--once") == 68
    assert "refused: The release failed its trial" in capsys.readouterr().out
    quick.clear()
    assert run("sync", "--once", "--json") == 68, "it is not tried again"
    assert "3 of 24" in said(capsys)["outcomes"][0]["reason"]
    assert run("rollback") == 67


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["sync", "--once"], 71, "follows no repository"),
        (["sync", "--check", "--repo", "REPO"], 71, "follows no repository"),
        (["sync", "--repo", "REPO"], 71, "follows no repository"),
        (["sync", "--once", "--repo", "http://models.example/x"], 2, "cannot be trusted at first sight"),
        (["sync", "--once", "--repo", "http://u:pass@models.example/x"], 2, "http://models.example/x cannot be"),
        (["sync", "--once", "--repo", "/no/such/folder"], 63, "/no/such/folder"),
        (["rollback"], 71, "follows no repository"),
        (["enrol"], 2, "edgekit enrol FILE"),
        (["enrol", "--show"], 71, "follows no repository"),
        (["enrol", "/no/such/file"], 2, "/no/such/file"),
        (["pin", "tiny-1.0", "--off"], 2, "edgekit pin --off"),
    ],
)
def test_what_a_device_that_was_never_enrolled_is_told(
    home: Path, fleet: Fleet, run: Run, words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(str(fleet.folder) if word == "REPO" else word for word in words)) == code
    assert says in capsys.readouterr().err
    assert read_identity(home) is None


def test_e04_a_second_updater_is_refused_by_name(
    home: Path, fleet: Fleet, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enrol", fleet.provisioning(tmp_path / "p.json")) == 0
    with updating(home, "update", now=time.time()):
        for words in (("sync", "--once"), ("rollback",), ("pin",), ("sync", "--check")):
            assert run(*words) == 70
            assert f"process {os.getpid()} does `update`" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_trust_that_is_lost_can_be_reset_by_hand(
    home: Path, fleet: Fleet, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sync", "--once", "--repo", fleet.folder) == 0
    for slot in (home / "sync" / "trust").glob("record.*"):
        slot.write_bytes(b"{")
    capsys.readouterr()
    assert run("sync", "--once", "--json") == 62
    assert said(capsys)["outcomes"][0]["ending"] == "refused"
    assert run("sync", "--once", "--reset-trust") == 0
    assert "is the newest" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_enrolling_again_heals_what_was_lost(home: Path, fleet: Fleet, run: Run, tmp_path: Path) -> None:
    file = fleet.provisioning(tmp_path / "p.json")
    assert run("enrol", file) == 0
    assert run("sync", "--once") == 0
    before = read_identity(home)
    for slot in (home / "sync" / "trust").glob("record.*"):
        slot.write_bytes(b"{")
    assert run("enrol", file) == 0
    after = read_identity(home)
    assert before is not None
    assert after is not None
    assert (after.device.id, after.secret) == (before.device.id, before.secret)
    assert run("sync", "--once") == 0


@pytest.mark.usefixtures("home")
def test_enrolling_again_keeps_what_was_trusted(fleet: Fleet, run: Run, tmp_path: Path) -> None:
    """A provisioning file is no way around the floors of versions."""
    file = fleet.provisioning(tmp_path / "p.json")
    assert run("enrol", file) == 0
    old = dict(fleet.made.files)
    fleet.publish(say=False)
    assert run("sync", "--check") == 0
    (fleet.folder / "metadata" / "timestamp.json").write_bytes(old["metadata/timestamp.json"])
    assert run("enrol", file) == 0
    assert run("sync", "--check") == 61


@pytest.mark.usefixtures("quick")
def test_it_goes_on_until_it_is_stopped(
    home: Path, fleet: Fleet, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("enrol", fleet.provisioning(tmp_path / "p.json")) == 0
    rounds = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rounds.append(timeout)
            if len(rounds) == 1:
                fleet.publish()
            else:
                self.set()
            return True

    monkeypatch.setattr("device_agent.sync.cli.threading.Event", Event)
    assert run("sync") == 130
    assert len(rounds) == 2
    (line,) = msgspec.json.decode(_record(home))["lines"]
    assert line["active"]["id"] == "tiny-llama-2.0"


def _record(home: Path) -> bytes:
    slots = [msgspec.json.decode(path.read_bytes()) for path in (home / "sync").glob("state.[01]")]
    return str(max(slots, key=lambda slot: slot["seq"])["payload"]).encode()


def test_ctrl_c_leaves_what_can_be_gone_on_with(home: Path, fleet: Fleet) -> None:
    """A real process, and a real signal, in the middle of a download that is throttled."""
    command = [sys.executable, "-m", "edgekit", "sync", "--once", "--repo", str(fleet.folder)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [*command, "--max-bytes-per-s", "2000", "--json"],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for row in process.stderr:
            if "fetching" in row:
                break
        process.send_signal(signal.SIGINT)
        out = process.stdout.read()
        process.stderr.read()
        assert process.wait() == 130
    (outcome,) = json.loads(out)["outcomes"]
    assert (outcome["ending"], outcome["exit_code"]) == ("held", 0)
    assert "told to stop" in outcome["reason"]
    assert list((home / "sync" / "staging").iterdir())
    assert subprocess.run([*command[:-2], "--json"], env=env, check=True, capture_output=True).returncode == 0
