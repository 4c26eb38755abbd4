"""Repositories in folders: whole reads, parts, sticks that vanish, and links that lead out."""

import errno
import os
from pathlib import Path

import pytest

from device_agent.sync.records import Source
from device_agent.sync.transport.folder import FolderSource
from edgekit.errors import CorruptRelease, NotInRepository, Unreachable
from tests.device_agent.sync.transport.opening import fetched, opened

DATA = bytes(range(256)) * 4_000
PACK = "packs/ab/x.pack"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "stick"
    (root / "packs/ab").mkdir(parents=True)
    (root / PACK).write_bytes(DATA)
    (tmp_path / "secret").write_bytes(DATA)
    return root


@pytest.mark.parametrize("way", ["path", "url", "localhost"])
def test_c16_a_folder_is_read_by_its_path_and_by_its_url(folder: Path, way: str) -> None:
    url = folder.as_uri()
    source = opened({"path": str(folder), "url": url, "localhost": url.replace("///", "//localhost/")}[way])
    assert source.holds == "packs"
    assert source.read(PACK, limit=len(DATA)) == DATA
    for start, length in ((0, len(DATA)), (1, 1), (300_000, 700_000), (len(DATA) - 1, 1)):
        assert fetched(source, PACK, DATA, start=start, length=length) == DATA[start : start + length]
    assert source.name == str(folder)
    source.close()


def test_what_is_not_there_and_a_stick_that_is_not_there_are_two_things(folder: Path) -> None:
    with pytest.raises(NotInRepository, match="packs/ab/y"):
        opened(str(folder)).read("packs/ab/y", limit=9)
    with pytest.raises(NotInRepository):
        opened(str(folder)).read(f"{PACK}/y", limit=9)
    with pytest.raises(Unreachable, match="is not there") as caught:
        opened(str(folder / "gone")).read(PACK, limit=9)
    assert not isinstance(caught.value, NotInRepository)


def test_limits_and_sizes_are_checked_before_anything_is_read(folder: Path) -> None:
    source = FolderSource(folder)
    with pytest.raises(CorruptRelease, match="may have 9"):
        source.read(PACK, limit=9)
    with pytest.raises(CorruptRelease, match="should have 9"):
        list(source.stream(PACK, start=0, length=9, size=9))


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "packs/../../secret", "packs//x", "C:/x", "packs\\ab", ""]
)
def test_no_path_leads_out(folder: Path, path: str) -> None:
    with pytest.raises(CorruptRelease):
        FolderSource(folder).read(path, limit=1 << 20)


@pytest.mark.parametrize("by_handle", [True, False], ids=["by handle", "by path"])
@pytest.mark.parametrize("at", ["packs/ab/link", "packs/cd/secret", "packs/cd"])
def test_no_link_is_followed(folder: Path, at: str, by_handle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.sync.transport.folder._BY_HANDLE", by_handle)
    (folder / "packs/ab/link").symlink_to(folder.parent / "secret")
    (folder / "packs/cd").symlink_to(folder.parent)
    source = FolderSource(folder)
    with pytest.raises(CorruptRelease, match="symbolic link"):
        source.read(at, limit=1 << 20)
    assert source.read(PACK, limit=1 << 20) == DATA


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "media"
    link.symlink_to(folder)
    assert FolderSource(link).read(PACK, limit=1 << 20) == DATA


def test_pipes_and_folders_are_no_files_and_nobody_waits_for_them(folder: Path) -> None:
    os.mkfifo(folder / "packs/pipe")
    for path in ("packs/pipe", "packs/ab"):
        with pytest.raises(NotInRepository, match="no file"):
            FolderSource(folder).read(path, limit=9)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ESTALE, errno.EACCES, errno.ENOMEDIUM])
@pytest.mark.parametrize("after", [0, 2])
def test_a_disk_that_fails_is_out_of_reach(
    folder: Path, number: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads = os.read, []

    def failing(handle: int, count: int) -> bytes:
        reads.append(count)
        if len(reads) > after:
            raise OSError(number, os.strerror(number))
        return real(handle, count)

    monkeypatch.setattr("device_agent.sync.transport.folder.os.read", failing)
    source: Source = FolderSource(folder)
    got = bytearray()
    with pytest.raises(Unreachable, match=os.strerror(number)):
        for piece in source.stream(PACK, start=0, length=len(DATA), size=len(DATA)):
            got += piece
    assert got == DATA[: len(got)]
    assert (len(got) > 0) == (after > 0)


def test_g01_a_stick_that_is_pulled_in_the_middle_is_out_of_reach_and_goes_on_when_it_is_back(folder: Path) -> None:
    away = folder.with_name("pocket")
    source = FolderSource(folder)
    stream = source.stream(PACK, start=0, length=len(DATA), size=len(DATA))
    got = next(stream)
    del stream
    folder.rename(away)
    with pytest.raises(Unreachable, match="is not there"):
        list(source.stream(PACK, start=len(got), length=1, size=len(DATA)))
    away.rename(folder)
    assert got + b"".join(source.stream(PACK, start=len(got), length=len(DATA) - len(got), size=len(DATA))) == DATA


def test_a_file_that_shrinks_while_it_is_read_is_said(folder: Path) -> None:
    stream = FolderSource(folder).stream(PACK, start=0, length=len(DATA), size=len(DATA))
    next(stream)
    os.truncate(folder / PACK, 10)
    with pytest.raises(Unreachable, match="became shorter"):
        list(stream)
