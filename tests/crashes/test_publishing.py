"""D10: publishing, refreshing, offering and changing keys, cut off after every single file operation.

Every test explores each crash of its command: killed, and power lost in five ways (tests/crashes/disk.py). A device
that knows what was published before must take what it finds, the old state or the new one, all that is listed must be
there and whole, and no key be lost by which it is signed. Then the same command is given again, and another one.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.sync.transport.folder import FolderSource
from edgekit.errors import Untrusted
from tests.crashes.disk import Disk, put
from tests.crashes.explorer import Exploration, unneeded
from tests.crashes.figures import FIGURES, Figures, figures
from tests.crashes.publishing import ACTS, Desk, publish, scenario

TIMESTAMP = "repo/metadata/timestamp.json"


class Explorations:
    """Each command is recorded once for all tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Exploration] = {}
        self.desks: dict[str, Desk] = {}

    def __getitem__(self, name: str) -> Exploration:
        if name not in self._made:
            folder = self._folder / name.replace(" ", "-")
            folder.mkdir()
            self.desks[name] = Desk(folder)
            self._made[name] = Exploration(folder / "build-machine", scenario(self.desks[name], ACTS[name]))
        return self._made[name]

    def figures(self) -> list[Figures]:
        return [figures(name, one) for name, one in self._made.items()]


@pytest.fixture(scope="module")
def explorations(memory: Path, request: pytest.FixtureRequest) -> Iterator[Explorations]:
    folder = memory / "publishing"
    folder.mkdir()
    made = Explorations(folder)
    yield made
    request.config.stash.setdefault(FIGURES, []).extend(made.figures())
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ACTS)
def test_d10_every_crash_leaves_what_devices_accept(explorations: Explorations, name: str, converge_every: int) -> None:
    found = explorations[name].failures(converge_every=converge_every)
    assert not [str(crash) for crash in found][:5]


@pytest.mark.parametrize("name", ACTS)
def test_d11_the_next_try_may_be_cut_off_too(explorations: Explorations, name: str, resume_every: int) -> None:
    found = explorations[name].second_failures(every=resume_every)
    assert not [str(crash) for crash in found][:5]


def test_d12_no_place_that_publishes_can_do_without_its_fsyncs(explorations: Explorations, resume_every: int) -> None:
    for name in ACTS:
        assert not any(explorations[name].failures(converge_every=10**9))
        assert not any(explorations[name].second_failures(every=resume_every))
    found = [explorations[name] for name in ACTS]
    assert not unneeded(found, part=-1, every=resume_every, all_sites=resume_every == 1)


@pytest.mark.parametrize("name", [name for name, act in ACTS.items() if act.before and act.place == "repo"])
def test_d10_a_device_that_saw_what_a_power_cut_took_back_goes_on(explorations: Explorations, name: str) -> None:
    """The timestamp is there for all to see a moment before it is durable; its number must not be given twice."""
    exploration, desk = explorations[name], explorations.desks[name]
    disk, looked = Disk(exploration.base), 0
    for op in exploration.ops:
        disk.play(op)
        seen, left = disk.image("nothing"), disk.image("all")
        if seen.get(TIMESTAMP) == left.get(TIMESTAMP):
            continue
        looked += 1
        home = desk.folder / f"seen-{looked}"
        home.mkdir()
        put(seen, home)
        watcher = desk.trust(desk.folder / f"watcher-{looked}")
        before = watcher.refresh(FolderSource(home / "repo"))
        shutil.rmtree(home)
        home.mkdir()
        put(left, home)
        with contextlib.suppress(Untrusted):  # what it finds is older than what it has seen, and it keeps to that
            watcher.refresh(FolderSource(home / "repo"))
        desk.run(home, *publish("4"))
        after = watcher.refresh(FolderSource(home / "repo"))
        assert "cold-4" in after.releases
        assert after.timestamp_version > before.timestamp_version
    assert looked or name == "d10 prune"
