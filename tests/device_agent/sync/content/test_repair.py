"""Bit rot is put right by the damaged chunks alone, and without touching a file that is in use."""

import os
import stat
from pathlib import Path

import pytest

from device_agent.releases.records import Installed
from device_agent.sync.content import repair
from edgekit.errors import NotInRepository, Unreachable
from tests.contents import FakeSource, Never, contents, make, noise, source_of, with_flips

FILES = {"weights.data": noise(25_300, seed=1), "sub/tokenizer.json": noise(2100, seed=2), "empty": b""}
MADE = make(FILES, codecs=())


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return MADE.install(tmp_path / "installed")


def rot(installed: Installed, path: str, *places: int) -> None:
    (installed.folder / path).write_bytes(with_flips(FILES[path], *places))


def wrong(folder: Path) -> list[str]:
    """Paths of the files that are not what was signed."""
    found = contents(folder)
    return [path for path, data in MADE.contents.items() if (folder / path).is_symlink() or found.get(path) != data]


def mend(installed: Installed, source: FakeSource, *, others: tuple[Installed, ...] = ()) -> None:
    repair(
        installed,
        source,
        paths=wrong(installed.folder),
        bench=installed.folder.parent / "bench",
        others=others,
        tell=lambda _: None,
        stop=Never(),
    )


def test_e09_it_is_put_right_by_that_chunk_alone(installed: Installed) -> None:
    rot(installed, "weights.data", 12_345)
    source = source_of(MADE)
    mend(installed, source)
    assert contents(installed.folder) == MADE.contents
    assert source.sent_bytes == 1000
    assert not (installed.folder.parent / "bench").exists()
    assert not stat.S_IMODE((installed.folder / "weights.data").stat().st_mode) & 0o222


def test_another_release_that_has_the_chunk_saves_the_network(installed: Installed, tmp_path: Path) -> None:
    rot(installed, "weights.data", 12_345)
    other = make({"weights.data": FILES["weights.data"], "more": b"more"}, version="2").install(tmp_path / "other")
    mend(installed, FakeSource({}), others=(other,))
    assert contents(installed.folder) == MADE.contents


def test_files_that_are_shorter_longer_or_gone_are_put_right(installed: Installed) -> None:
    os.truncate(installed.folder / "weights.data", 1500)
    (installed.folder / "sub/tokenizer.json").unlink()
    (installed.folder / "empty").write_bytes(b"not any more")
    assert wrong(installed.folder) == ["weights.data", "sub/tokenizer.json", "empty"]
    mend(installed, source_of(MADE))
    assert contents(installed.folder) == MADE.contents


def test_who_has_the_file_open_or_linked_sees_no_change(installed: Installed, tmp_path: Path) -> None:
    rot(installed, "weights.data", 5)
    os.link(installed.folder / "weights.data", tmp_path / "second name")
    before = (installed.folder / "weights.data").read_bytes()
    with (installed.folder / "weights.data").open("rb") as stream:
        mend(installed, source_of(MADE))
        assert stream.read() == before
    assert (tmp_path / "second name").read_bytes() == before
    assert contents(installed.folder) == MADE.contents


def test_a_file_that_became_a_link_is_replaced_and_the_link_is_not_followed(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(FILES["weights.data"])
    (installed.folder / "weights.data").unlink()
    (installed.folder / "weights.data").symlink_to(tmp_path / "elsewhere")
    mend(installed, source_of(MADE))
    assert contents(installed.folder) == MADE.contents
    assert not (installed.folder / "weights.data").is_symlink()
    assert (tmp_path / "elsewhere").stat().st_nlink == 1


def test_without_the_bytes_everything_stays_as_it_is(installed: Installed) -> None:
    rot(installed, "weights.data", 5)
    before = contents(installed.folder)
    with pytest.raises(NotInRepository):
        mend(installed, FakeSource({}))
    assert contents(installed.folder) == before


def test_a_repair_that_was_cut_goes_on(installed: Installed) -> None:
    rot(installed, "weights.data", 5, 15_000)
    source = source_of(MADE)
    source.break_after, source.gone = 1100, Unreachable("gone")
    with pytest.raises(Unreachable):
        mend(installed, source)
    source.break_after = None
    mend(installed, source)
    assert contents(installed.folder) == MADE.contents
    assert source.sent_bytes <= 3000


def test_the_new_file_is_durable_before_it_takes_the_name(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rot(installed, "sub/tokenizer.json", 5)
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        events.append("folder" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size}")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"replace {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    mend(installed, source_of(MADE))
    assert events == ["file of 2100", "replace tokenizer.json", "folder"]
