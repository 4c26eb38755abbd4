"""No call to the disk follows a link, waits for a pipe, or leaves the folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.sync.content import disk
from edgekit.errors import CorruptRelease


def link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(b"secret")
    path.symlink_to(path.parent / "elsewhere")


def dangle(path: Path) -> None:
    path.symlink_to(path.parent / "not there yet")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


NO_FILES = {"link": link, "link to nothing": dangle, "pipe": pipe, "folder": folder}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("has_nofollow", [True, False], ids=["", "as Windows, which has no O_NOFOLLOW"])
def test_b07_what_is_no_plain_file_is_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], has_nofollow: bool
) -> None:
    make(tmp_path / "x")
    if not has_nofollow:
        monkeypatch.setattr(disk, "_PLAIN", 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="Errno"):
        disk.read_at(tmp_path / "x", 0, 6)
    with pytest.raises(OSError, match="Errno"):
        disk.hash_file(tmp_path / "x", lambda: None)
    with pytest.raises(OSError, match="Errno"):
        disk.write_at(tmp_path / "x", 0, b"through")
    assert sorted(tmp_path.iterdir()) == before
    assert all(path.read_bytes() == b"secret" for path in before if path.is_file())


def test_b07_a_device_is_no_plain_file_though_it_can_be_read_for_ever() -> None:
    with pytest.raises(OSError, match="not a plain file"):
        disk.read_at(Path("/dev/zero"), 0, 6)


def test_b07_a_link_that_comes_between_the_look_and_the_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(tmp_path / "x")
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    with pytest.raises(OSError, match="symbolic links"):
        disk.read_at(tmp_path / "x", 0, 6)


@pytest.mark.parametrize("join", [disk.inside, disk.below])
def test_b07_no_folder_on_the_way_may_be_a_link(tmp_path: Path, join: Callable[[Path, str], Path]) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(CorruptRelease):
        join(tmp_path / "in", "sub/deep/file")
    with pytest.raises(CorruptRelease):
        join(tmp_path / "in", "../outside/file")
    assert not list((tmp_path / "outside").iterdir())


def test_a_write_goes_on_after_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    disk.write_at(tmp_path / "x", 2, b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"\0\x000123456789"


def test_a_read_goes_on_after_a_short_one_and_ends_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    real = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: real(handle, min(size, 3)))
    assert disk.read_at(tmp_path / "x", 1, 8) == b"12345678"
    assert disk.read_at(tmp_path / "x", 5, 100) == b"56789"
    assert disk.read_at(tmp_path / "x", 50, 1) == b""


def test_removing_takes_whole_folders_and_no_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").write_bytes(b"x")
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "deep" / "file").write_bytes(b"x")
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "keep", target_is_directory=True)
    disk.remove(tmp_path / "gone")
    disk.remove(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert (tmp_path / "keep" / "file").exists()
