"""A write is whole or has not happened; a path stays inside its folder."""

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from edgekit import files
from edgekit.errors import DiskFull, ExportError, OutputExists, UnsafePath


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Broken(Exception):
    """Stands for anything that goes wrong in the middle."""


# --- write_durably --------------------------------------------------------------------------


def test_a_write_replaces_the_old_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(b"old")
    files.write_durably(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert entries(tmp_path) == {"facts.json"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_bytes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full") as caught:
        files.write_durably(path, b"new")
    assert caught.value.filename == str(path), "a person wants to know where"
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == {"facts.json"}


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    files.write_durably(tmp_path / "facts.json", b"new")
    assert events == ["file", "rename", "folder"]


# --- create_durably and locked --------------------------------------------------------------


def test_a_new_file_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    files.create_durably(path, b"secret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert entries(tmp_path) == {"token"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "token"
    files.create_durably(path, b"first")
    with pytest.raises(FileExistsError):
        files.create_durably(path, b"second")
    assert path.read_bytes() == b"first"
    assert entries(tmp_path) == {"token"}


def test_a_creation_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full"):
        files.create_durably(tmp_path / "token", b"secret")
    assert not entries(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_one_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    inside = threading.Lock()
    waiting = threading.Event()
    turns: list[bool] = []

    def enter() -> None:
        waiting.set()
        with files.locked(tmp_path / "lock"):
            turns.append(inside.acquire(blocking=False))
            inside.release()

    with files.locked(tmp_path / "lock"), inside:
        other = threading.Thread(target=enter)
        other.start()
        assert waiting.wait(20)
        assert not turns
    other.join()
    assert turns == [True]


# --- staging --------------------------------------------------------------------------------


def test_a_staged_folder_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with files.staging(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"x")
        assert not target.exists()
        assert folder.parent == tmp_path
    assert (target / "deep" / "file").read_bytes() == b"x"
    assert entries(tmp_path) == {"bundle"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")], ids=repr)
def test_a_failed_block_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), files.staging(tmp_path / "bundle") as folder:
        (folder / "file").write_bytes(b"x")
        raise error
    assert entries(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_an_error_of_its_own_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull), files.staging(tmp_path / "bundle", needed_bytes=5) as folder:
        (folder / "file").write_bytes(b"x")
        raise OSError(number, "full")
    assert entries(tmp_path) == set()


def test_too_little_space_is_known_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught, files.staging(tmp_path / "bundle", needed_bytes=1 << 60):
        pytest.fail("the block must not run")
    assert caught.value.needed_bytes == 1 << 60
    assert entries(tmp_path) == set()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_output_that_exists_is_never_touched(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "bundle"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_bytes(b"precious")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists), files.staging(target):
        pytest.fail("the block must not run")
    assert entries(tmp_path) == {"bundle"}


def test_an_output_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(OutputExists), files.staging(target) as folder:
        (folder / "file").write_bytes(b"ours")
        target.mkdir()
        (target / "theirs").write_bytes(b"x")
    assert entries(target) == {"theirs"}
    assert entries(tmp_path) == {"bundle"}


def test_a_parent_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="missing"), files.staging(tmp_path / "missing" / "bundle"):
        pytest.fail("the block must not run")


# --- hashing and paths ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_hash_covers_every_byte(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert files.sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("path", ["model.onnx", "deep/er/file", "..name", "a.b", "...", "sp ace"])
def test_a_plain_path_is_joined(tmp_path: Path, path: str) -> None:
    assert files.safe_join(tmp_path, path) == tmp_path / path


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/etc/passwd", "../x", "a/../x", "a/..", "a//b", "a/", "./a", "a\\b", "C:x", "a\x00b"]
)
def test_a_path_that_could_leave_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnsafePath):
        files.safe_join(tmp_path, path)


@pytest.mark.parametrize("path", ["link", "link/file"])
def test_a_symbolic_link_on_the_way_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafePath, match="symbolic link"):
        files.safe_join(tmp_path, path)
