"""What is done to what is installed, with the real rooms and a signed repository in memory."""

import time
from pathlib import Path
from threading import Event

import pytest

from device_agent.activation.records import Verdict
from device_agent.releases.scrub import damaged
from device_agent.sync import composing
from device_agent.sync.composing import compose_alone
from device_agent.sync.identity import enrol
from device_agent.sync.passes import Passes
from device_agent.sync.records import LinkSettings, Wish
from edgekit.errors import Refused
from tests.device_agent.bundles import TINY, copy_to, edit
from tests.repositories import Repository


@pytest.fixture
def made() -> Repository:
    return Repository(now=time.time())


def offer(made: Repository, scratch: Path, version: str) -> None:
    """The tiny model with some MB beside it, as another version."""
    scratch.mkdir()
    bundle = copy_to(scratch, TINY)
    edit(bundle, lambda manifest: manifest.update(version=version))
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    release = made.add_release("tiny-llama", version, files)
    made.set_channel("stable", release.id, version=len(made.made))
    made.publish()


@pytest.fixture
def passes(made: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passes:
    monkeypatch.setattr(composing, "ChildProbe", lambda *_, **__: lambda *_: Verdict(ok=True, figures={"load_s": 0.25}))
    offer(made, tmp_path / "first", "1.0")
    repository = made.write(tmp_path / "repository")
    home = tmp_path / "home"
    enrol(home, made.provisioning(), device_id="board-7", labels={})
    settings = LinkSettings(repositories=(str(repository),), reserve_bytes=0)
    return Passes(compose_alone(home, settings, models=home / "models", clock=time.time), clock=time.time)


def update(passes: Passes) -> str:
    (outcome,) = passes.update(lambda _: None, Event(), anytime=True)
    return outcome.ending


def test_e09_bit_rot_is_repaired_from_the_repository(passes: Passes) -> None:
    assert update(passes) == "installed"
    (installed,) = passes.rooms.store.installed()
    path = installed.folder / "model.onnx.data"
    right = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    found = damaged(installed)
    assert found is not None
    assert found.paths == ("model.onnx.data",)
    assert passes.mend(found, Event())
    assert path.read_bytes() == right
    assert damaged(installed) is None


def test_e09_what_cannot_be_repaired_gives_way_to_the_one_before(
    passes: Passes, made: Repository, tmp_path: Path
) -> None:
    assert update(passes) == "installed"
    offer(made, tmp_path / "second", "2.0")
    made.write(tmp_path / "repository")
    assert update(passes) == "installed"
    second = next(one for one in passes.rooms.store.installed() if one.release.version == "2.0")
    path = second.folder / "bundle.json"
    path.chmod(0o600)
    path.write_bytes(b"{}")
    for pack in (tmp_path / "repository" / "packs").rglob("*.pack"):
        pack.unlink()
    found = damaged(second)
    assert found is not None
    assert not passes.mend(found, Event())
    active = passes.rooms.store.state().line("stable").active
    assert active is not None
    assert active.id == "tiny-llama-1.0"


def test_f04_going_back_needs_no_network_and_obeys_the_floor(passes: Passes, made: Repository, tmp_path: Path) -> None:
    update(passes)
    offer(made, tmp_path / "second", "2.0")
    made.set_floor("tiny-llama", 2)
    made.publish()
    made.write(tmp_path / "repository")
    assert update(passes) == "installed"
    (tmp_path / "repository").rename(tmp_path / "gone")
    with pytest.raises(Refused, match="below the lowest number"):
        passes.change(Wish(does="rollback"))
    active = passes.rooms.store.state().line("stable").active
    assert active is not None
    assert active.id == "tiny-llama-2.0"


def test_reports_are_made_of_what_became_of_updates(passes: Passes, tmp_path: Path) -> None:
    (tmp_path / "repository" / "returns").mkdir()
    update(passes)
    (report,) = (tmp_path / "repository" / "returns").iterdir()
    assert report.name == "board-7.json"
    assert b"tiny-llama-1.0" in report.read_bytes()


def test_reports_tell_what_a_trial_measured_and_a_restart_is_no_news(passes: Passes, tmp_path: Path) -> None:
    (tmp_path / "repository" / "returns").mkdir()
    update(passes)
    (report,) = (tmp_path / "repository" / "returns").iterdir()
    told = report.read_bytes()
    assert b"load_s" in told
    after = Passes(
        compose_alone(passes.rooms.home, passes.rooms.settings, models=tmp_path / "models", clock=time.time),
        clock=time.time,
    )
    assert update(after) == "current"
    assert report.read_bytes() == told
