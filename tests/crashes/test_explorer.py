"""The explorer finds what it is there to find: a missing fsync, a missing order, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.files import fsync_folder, write_durably
from edgekit.slots import Slots
from tests.crashes.disk import Marks
from tests.crashes.explorer import Exploration, Scenario
from tests.crashes.recorder import Recorder


def _nothing(_: Path) -> None:
    pass


def _explore(
    tmp_path: Path,
    act: Callable[[Path, Recorder], None],
    check: Callable[[Path, Marks], None],
    prepare: Callable[[Path], None] = _nothing,
) -> Exploration:
    return Exploration(tmp_path, Scenario(prepare=prepare, act=act, recover=_nothing, check=check))


def _old(root: Path) -> None:
    (root / "file").write_bytes(b"old")


def _old_or_new(root: Path, marks: Marks) -> None:
    assert (
        (root / "file").read_bytes() == b"new" if "done" in marks else (root / "file").read_bytes() in {b"old", b"new"}
    )


def test_a_durable_write_survives_every_crash(tmp_path: Path) -> None:
    def scenario(root: Path, recorder: Recorder) -> None:
        write_durably(root / "file", b"new")
        recorder.mark("done")

    exploration = _explore(tmp_path, scenario, _old_or_new, _old)
    assert not [str(crash) for crash in exploration.failures()]
    assert exploration.states > 5
    assert len(exploration.sites) == 2
    assert all(exploration.needs([site]) for site in exploration.sites)


@pytest.mark.parametrize("missing", ["data", "folder", "rename"])
def test_a_careless_write_is_found(tmp_path: Path, missing: str) -> None:
    def scenario(root: Path, recorder: Recorder) -> None:
        path = root / "file" if missing == "rename" else root / "other"
        with path.open("wb") as stream:
            stream.write(b"new")
            stream.flush()
            if missing != "data":
                os.fsync(stream.fileno())
        if missing != "rename":
            path.rename(root / "file")
        if missing != "folder":
            fsync_folder(root)
        recorder.mark("done")

    assert list(_explore(tmp_path, scenario, _old_or_new, _old).failures())


def test_slots_keep_the_record_before_or_the_new_one(tmp_path: Path) -> None:
    def act(root: Path, recorder: Recorder) -> None:
        for i in range(4):
            Slots(root, "record").write(str(i).encode())
            recorder.mark(str(i))

    def seen(root: Path) -> int:
        found = Slots(root, "record").read().payload
        return -1 if found is None else int(found)

    def check(root: Path, marks: Marks) -> None:
        last = int(marks[-1]) if marks else -1
        assert seen(root) in {last, last + 1}

    scenario = Scenario(
        prepare=_nothing, act=act, recover=_nothing, check=check, observe=lambda root: (str(seen(root)),)
    )
    exploration = Exploration(tmp_path, scenario)
    assert not [str(crash) for crash in exploration.failures()]
    assert not [str(crash) for crash in exploration.second_failures()]
    sites = {*exploration.sites, *exploration.second_sites}
    assert all(exploration.needs([site]) or exploration.needs_twice([site]) for site in sites)
