"""E1, E2: the disk is full, or broken, from any operation of an update on, and has room again later.

What serves goes on; what was promised stays; the outcome says what is the matter; and with room again the next update
comes to its end. The same device and the same invariants as for crashes.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from unittest import mock

import pytest

from tests.crashes.device import World
from tests.crashes.recorder import Op, Recorder, recording
from tests.crashes.scenarios import ACTS, USERS

GROWING = ("create", "write", "mkdir", "link", "fsync")
"""What a full disk refuses (a broken one too); names can still be changed and removed."""

REASONS = {errno.ENOSPC: "space", errno.EDQUOT: "space|quota", errno.EIO: "Input/output"}


@contextmanager
def failing(home: Path, left: int, code: int) -> Iterator[list[int]]:
    """After so many growing operations below `home` each further one fails. Yields how many there were."""
    count = [0]
    real = Recorder._log

    def log(recorder: Recorder, op: Op) -> None:
        real(recorder, op)
        if op.kind in GROWING:
            count[0] += 1
            if count[0] > left:
                raise OSError(code, os.strerror(code), op.path)

    with mock.patch.object(Recorder, "_log", log), recording(home):
        yield count


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A device that runs version 1 and is offered version 2, in `folder`/home."""
    world = World(tmp_path_factory.mktemp("full"))
    for number in range(1, 3):
        world.add(str(number), flip=number)
    home = world.folder / "home"
    home.mkdir()
    (home / "notes.txt").write_bytes(USERS)
    act = ACTS["d03 update by differences"]
    act.before(world, home)
    act.offers(world)
    return world


def _again(world: World) -> Path:
    home = world.folder / "again"
    if home.exists():
        for path in (home, *home.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(home)
    shutil.copytree(world.folder / "home", home, copy_function=shutil.copy2)
    return home


FULL, BROKEN = (pytest.param(code, id=os.strerror(code)) for code in (errno.ENOSPC, errno.EIO))
NO_QUOTA = pytest.param(errno.EDQUOT, id=os.strerror(errno.EDQUOT), marks=pytest.mark.long)


@pytest.mark.parametrize("code", [FULL, NO_QUOTA, BROKEN])
def test_e01_a_disk_that_takes_no_more_from_any_operation_on(world: World, code: int, kill_every: int) -> None:
    device = world.started(_again(world))
    with failing(world.folder / "again", 1 << 30, code) as count:
        assert [outcome.ending for outcome in device.link.update(lambda _: None, Event())] == ["installed"]
    assert count[0] > 100
    floor = world.look(world.folder / "home").floor
    for left in range(0, count[0], kill_every):
        home = _again(world)
        device = world.started(home)
        with failing(home, left, code):
            [outcome] = device.link.update(lambda _: None, Event())
        assert outcome.ending in ("failed", "installed"), f"after {left}: {outcome}"
        assert outcome.ending == "installed" or re.search(REASONS[code], outcome.reason), f"after {left}: {outcome}"
        seen = world.look(home)
        assert seen.served <= {"1", "2"}, f"after {left}"
        assert seen.floor >= floor
        world.update(home)
        seen = world.look(home)
        assert seen.served == {"2"}, f"after {left}: {seen}"
        assert not seen.state.refusals
