"""Updates, activation, rollback, collection and key rotation, cut off after every single file operation.

Every test explores each crash of its act: killed, and power lost in five ways (tests/crashes/disk.py). Then the device
starts as after any power cut, twice, and must have a release that its owner signed, whole; it never forgets what it
has seen or promised; and with a good network the next update brings it where it was going.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.device import World
from tests.crashes.explorer import Exploration, unneeded
from tests.crashes.figures import FIGURES, Figures, figures
from tests.crashes.scenarios import ACTS, scenario


class Explorations:
    """Each act is recorded once for all tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Exploration] = {}

    def __getitem__(self, name: str) -> Exploration:
        if name not in self._made:
            folder = self._folder / name.replace(" ", "-")
            folder.mkdir()
            world = World(folder)
            for number in range(1, 4):
                world.add(str(number), flip=number, soak_s=10.0 if "soak" in name and number == 2 else 0.0)
            self._made[name] = Exploration(folder / "device", scenario(world, ACTS[name]))
        return self._made[name]

    def figures(self) -> list[Figures]:
        return [figures(name, one) for name, one in self._made.items()]


@pytest.fixture(scope="module")
def explorations(memory: Path, request: pytest.FixtureRequest) -> Iterator[Explorations]:
    folder = memory / "device"
    folder.mkdir()
    made = Explorations(folder)
    yield made
    request.config.stash.setdefault(FIGURES, []).extend(made.figures())
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ACTS)
def test_every_crash_is_survived(explorations: Explorations, name: str, converge_every: int) -> None:
    found = explorations[name].failures(converge_every=converge_every)
    assert not [str(crash) for crash in found][:5]


@pytest.mark.parametrize("name", ACTS)
def test_d11_crashes_of_the_recovery_are_survived(explorations: Explorations, name: str, kill_every: int) -> None:
    found = explorations[name].second_failures(every=kill_every)
    assert not [str(crash) for crash in found][:5]


def test_d12_no_fsync_can_be_left_out(explorations: Explorations, kill_every: int) -> None:
    for name in ACTS:
        assert not any(explorations[name].failures(converge_every=10**9))
        assert not any(explorations[name].second_failures(every=kill_every))
    assert not unneeded([explorations[name] for name in ACTS], part=0, every=kill_every)
