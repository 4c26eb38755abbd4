"""Stamps: a bundle that was whole is not hashed again, until anything about its files is not as it was."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_agent import Model, stamps
from edgekit import contract
from edgekit.bundle import Bundle, changed_files, open_bundle
from edgekit.errors import CorruptBundle
from edgekit.manifest import FileEntry
from tests.device_agent.bundles import copy_to, set_fields

LATER_S = 10
"""Seconds after the copy was made: no file of it was touched just now."""
MONTH_S = 31 * 86400


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(copy_to(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "checked"


def now_of(bundle: Bundle) -> float:
    newest = max(path.stat().st_ctime_ns for path in bundle.folder.iterdir())
    return newest / 1e9 + LATER_S


def stamp(bundle: Bundle, folder: Path) -> bool:
    now = now_of(bundle)
    return stamps.note_checked(folder, bundle, stamps.state_of(bundle, now_s=now), now_s=now)


def test_a_checked_bundle_is_known(bundle: Bundle, folder: Path) -> None:
    assert not stamps.is_checked(folder, bundle, now_s=now_of(bundle))
    assert stamp(bundle, folder)
    assert stamps.is_checked(folder, bundle, now_s=now_of(bundle))


def rewrite(folder: Path) -> None:
    """The same size, another byte, and the old modification time: what somebody does who hides a change."""
    path = folder / contract.DATA_FILE
    before = path.stat()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(folder: Path) -> None:
    path = folder / contract.DATA_FILE
    shutil.copy2(path, folder / "copy")
    (folder / "copy").replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte, with the old time": rewrite,
    "a copy in its place": replace,
    "another time": lambda folder: os.utime(folder / contract.TOKENIZER_FILE, (1, 1)),
    "one byte more": lambda folder: (folder / contract.CARD_FILE).write_bytes(
        (folder / contract.CARD_FILE).read_bytes() + b"x"
    ),
    "a file gone": lambda folder: (folder / contract.CARD_FILE).unlink(),
    "another manifest": set_fields(version="2"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_of_a_file_ends_it(change: Callable[[Path], object], bundle: Bundle, folder: Path) -> None:
    assert stamp(bundle, folder)
    change(bundle.folder)
    assert not stamps.is_checked(folder, bundle, now_s=now_of(bundle))


@pytest.mark.parametrize(("after_s", "known"), [(0, True), (86400, True), (MONTH_S, False), (-60, False)])
def test_a_stamp_is_good_for_a_month_and_never_from_the_future(
    after_s: int, bundle: Bundle, folder: Path, *, known: bool
) -> None:
    assert stamp(bundle, folder)
    assert stamps.is_checked(folder, bundle, now_s=now_of(bundle) + after_s) is known


def test_files_that_were_touched_just_now_earn_no_stamp(bundle: Bundle, folder: Path) -> None:
    now = now_of(bundle) - LATER_S + 1
    assert not stamps.note_checked(folder, bundle, stamps.state_of(bundle, now_s=now), now_s=now)
    assert not folder.exists()


def test_a_file_that_changes_while_it_is_hashed_earns_no_stamp(bundle: Bundle, folder: Path) -> None:
    now = now_of(bundle)
    before = stamps.state_of(bundle, now_s=now)
    rewrite(bundle.folder)
    assert not stamps.note_checked(folder, bundle, before, now_s=now)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff", b"[" * 100_000, b'{"manifest": 1}'], ids=repr)
def test_a_damaged_stamp_is_none(content: bytes, bundle: Bundle, folder: Path) -> None:
    assert stamp(bundle, folder)
    (path,) = folder.iterdir()
    path.write_bytes(content)
    path.chmod(0o600)
    assert not stamps.is_checked(folder, bundle, now_s=now_of(bundle))
    assert stamp(bundle, folder)
    assert stamps.is_checked(folder, bundle, now_s=now_of(bundle))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are POSIX's")
@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_a_stamp_that_others_could_have_written_is_none(what: str, mode: int, bundle: Bundle, folder: Path) -> None:
    assert stamp(bundle, folder)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    target = path if what == "file" else folder
    target.chmod(target.stat().st_mode | mode)
    assert not stamps.is_checked(folder, bundle, now_s=now_of(bundle))


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are POSIX's")
def test_a_stamp_is_not_read_through_a_link(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    assert stamp(bundle, folder)
    (path,) = folder.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not stamps.is_checked(folder, bundle, now_s=now_of(bundle))


def test_where_nothing_can_be_written_the_bundle_loads_all_the_same(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert not stamp(bundle, tmp_path / "file" / "checked")
    assert "not remembered" in caplog.text


def test_a_full_disk_is_one_line_in_the_log(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, mode: int) -> None:
        raise OSError(28, f"No space left on device for a file of mode {mode:o}")

    monkeypatch.setattr(stamps, "write_durably", full)
    assert not stamp(bundle, folder)
    assert len(caplog.records) == 1


def test_stamps_do_not_pile_up(bundle: Bundle, folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)
    for number in range(100):
        (folder / f"{number}.json").write_bytes(b"")
        os.utime(folder / f"{number}.json", (number, number))
    assert stamp(bundle, folder)
    left = {path.name for path in folder.iterdir()}
    assert len(left) == 64
    assert "99.json" in left
    assert "0.json" not in left
    assert stamps.is_checked(folder, bundle, now_s=now_of(bundle))


def test_two_at_once_leave_a_whole_stamp(bundle: Bundle, folder: Path) -> None:
    threads = [threading.Thread(target=stamp, args=(bundle, folder)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(folder.iterdir())) == 1
    assert stamps.is_checked(folder, bundle, now_s=now_of(bundle))


# --- loading --------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> list[str]:
    """Names of the files that were hashed; the clock shows a time when the bundle is no longer new."""
    names: list[str] = []

    def recorded(given: Bundle, entries: Sequence[FileEntry]) -> list[str]:
        names.extend(entry.path for entry in entries)
        return changed_files(given, entries)

    monkeypatch.setattr("device_agent.checked.changed_files", recorded)
    now = now_of(bundle)
    monkeypatch.setattr("device_agent.checked.time", SimpleNamespace(time=lambda: now))
    return names


def test_a_second_start_hashes_nothing(bundle: Bundle, folder: Path, hashed: list[str]) -> None:
    Model.open(bundle.folder, threads=1, state=folder.parent).close()
    assert sorted(hashed) == sorted(entry.path for entry in bundle.manifest.files)
    hashed.clear()
    Model.open(bundle.folder, threads=1, state=folder.parent).close()
    assert hashed == []


def test_without_a_folder_every_start_hashes_everything(bundle: Bundle, hashed: list[str]) -> None:
    for _ in range(2):
        Model.open(bundle.folder, threads=1).close()
    assert len(hashed) == 2 * len(bundle.manifest.files)


def test_a_changed_file_is_refused_in_spite_of_a_stamp(bundle: Bundle, folder: Path, hashed: list[str]) -> None:
    Model.open(bundle.folder, threads=1, state=folder.parent).close()
    rewrite(bundle.folder)
    with pytest.raises(CorruptBundle, match="SHA-256"):
        Model.open(bundle.folder, threads=1, state=folder.parent)
    assert hashed


def test_a_damaged_bundle_earns_no_stamp(bundle: Bundle, folder: Path, hashed: list[str]) -> None:
    rewrite(bundle.folder)
    with pytest.raises(CorruptBundle):
        Model.open(bundle.folder, threads=1, state=folder.parent)
    assert hashed
    assert not folder.exists()
