"""A bundle on its way onto a stick, which may be pulled, full, or damaged."""

import errno
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit.errors import NoSpace, PublishError
from export.publish import copying
from export.publish.bundles import Group, Selection, select, shelf_of
from export.publish.copying import Copied, clean, write_folder, write_tar
from export.publish.repository import Repository as Published
from tests.export.publish.test_bundles import content
from tests.repositories import NOW, Repository


def quiet(_done: int, _total: int) -> None:
    """No bar."""


@pytest.fixture(scope="module")
def made() -> Repository:
    repository = Repository()
    one, two = (repository.add_release("tiny", f"{i}.0", content(i)) for i in (1, 2))
    repository.add_delta(one, two)
    repository.set_channel("stable", two.id)
    repository.publish()
    return repository


@pytest.fixture
def repo(made: Repository, tmp_path: Path) -> Path:
    return made.write(tmp_path / "repo")


def selection(repo: Path, *have: str) -> Selection:
    groups = [Group("d", frozenset(have))] if have else []
    return select(shelf_of(Published.open(repo)), groups, now=NOW)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_those_of_the_repository(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    assert write_folder(wanted, repo, tmp_path / "usb", quiet) == Copied(wanted.bytes, 0)
    found, before = files(tmp_path / "usb"), files(repo)
    assert set(found) == {piece.path for piece in wanted.pieces}
    assert all(before[path] == raw for path, raw in found.items())
    assert (tmp_path / "usb" / "returns").is_dir()


def test_again_nothing_is_copied_but_the_timestamp(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    write_folder(wanted, repo, tmp_path / "usb", quiet)
    assert write_folder(wanted, repo, tmp_path / "usb", quiet).copied_bytes == wanted.pieces[-1].size


def test_progress_rises_and_ends_at_the_whole(repo: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_folder(selection(repo), repo, tmp_path / "usb", lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert [done == total for done, total in told] == [False] * (len(told) - 1) + [True]


def test_what_a_stick_lost_is_copied_anew_though_its_size_is_right(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    write_folder(wanted, repo, tmp_path / "usb", quiet)
    pack = next(piece for piece in wanted.pieces if piece.path.endswith(".pack"))
    path = tmp_path / "usb" / pack.path
    path.write_bytes(bytes(pack.size))
    write_folder(wanted, repo, tmp_path / "usb", quiet)
    assert path.read_bytes() == (repo / pack.path).read_bytes()


def test_a_stick_that_gives_back_other_bytes_is_said(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_is_whole", lambda *_: False)
    with pytest.raises(PublishError, match="the disk is damaged"):
        write_folder(selection(repo), repo, tmp_path / "usb", quiet)
    assert not (tmp_path / "usb" / "metadata" / "timestamp.json").exists()


def test_a_damaged_pack_of_the_repository_is_not_carried_out(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    pack = next(piece for piece in wanted.pieces if piece.path.endswith(".pack"))
    raw = (repo / pack.path).read_bytes()
    (repo / pack.path).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(PublishError, match="not what was published"):
        write_folder(wanted, repo, tmp_path / "usb", quiet)
    assert pack.path not in files(tmp_path / "usb")


# --- G1, on the way out ---


class PulledError(Exception):
    """The stick is gone."""


def pulled_after(writes: int) -> Iterator[None]:
    for _ in range(writes):
        yield
    raise PulledError


@pytest.mark.parametrize("writes", range(12))
def test_g01_a_stick_that_is_pulled_has_what_it_had_and_is_finished_by_the_next_try(
    repo: Path, made: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    usb = tmp_path / "usb"
    write_folder(selection(repo, "tiny-2.0"), repo, usb, quiet)
    before = (usb / "metadata" / "timestamp.json").read_bytes()
    newer = made.copy()
    newer.set_channel("stable", "tiny-1.0", version=2)
    newer.publish()
    repo2 = newer.write(tmp_path / "repo2")
    wanted = selection(repo2)
    fsync, pull = os.fsync, pulled_after(writes)
    with monkeypatch.context() as patch, pytest.raises(PulledError):
        patch.setattr(os, "fsync", lambda handle: (next(pull), fsync(handle)))
        write_folder(wanted, repo2, usb, quiet)
    assert (usb / "metadata" / "timestamp.json").read_bytes() == before
    whole = {path for path in files(usb) if not path.endswith(copying.PARTIAL)}
    assert all(files(usb)[path] == files(repo2).get(path) for path in whole if path != "metadata/timestamp.json")
    write_folder(wanted, repo2, usb, quiet)
    assert {piece.path for piece in wanted.pieces} <= set(files(usb))
    assert not any(path.endswith(copying.PARTIAL) for path in files(usb))


# --- what is refused ---


def test_a_stick_of_another_repository_is_left_alone(repo: Path, tmp_path: Path) -> None:
    other = Repository(prefix="other-").write(tmp_path / "usb")
    before = files(other)
    with pytest.raises(PublishError, match="another repository"):
        write_folder(selection(repo), repo, other, quiet)
    assert files(other) == before


def test_a_stick_that_is_newer_is_left_alone(repo: Path, made: Repository, tmp_path: Path) -> None:
    newer = made.copy()
    newer.refresh()
    usb = newer.write(tmp_path / "usb")
    with pytest.raises(PublishError, match="newer bundle"):
        write_folder(selection(repo), repo, usb, quiet)
    assert files(usb) == newer.files


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"signed": 3}', b"\xff"])
def test_a_damaged_timestamp_on_a_stick_is_replaced(repo: Path, tmp_path: Path, raw: bytes) -> None:
    wanted = selection(repo)
    write_folder(wanted, repo, tmp_path / "usb", quiet)
    (tmp_path / "usb" / "metadata" / "timestamp.json").write_bytes(raw)
    write_folder(wanted, repo, tmp_path / "usb", quiet)
    assert (tmp_path / "usb" / "metadata" / "timestamp.json").read_bytes() == wanted.pieces[-1].raw


@pytest.mark.parametrize("inside", [".", "usb", "packs"])
def test_a_bundle_is_never_inside_the_repository(repo: Path, inside: str) -> None:
    with pytest.raises(PublishError, match="one another"):
        write_folder(selection(repo), repo, repo / inside, quiet)


def test_a_repository_inside_the_bundle_is_refused_too(repo: Path) -> None:
    with pytest.raises(PublishError, match="one another"):
        write_folder(selection(repo), repo, repo.parent, quiet)


def test_space_is_looked_at_before_the_first_byte(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    wanted = selection(repo)
    for write, where in ((write_folder, tmp_path / "usb"), (write_tar, tmp_path / "x.tar")):
        with pytest.raises(NoSpace) as caught:
            write(wanted, repo, where, quiet)
        assert caught.value.needed_bytes >= wanted.bytes
        assert caught.value.free_bytes == 10_000
    assert files(tmp_path / "usb") == {}
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [(errno.ENOSPC, NoSpace, "space"), (errno.EFBIG, PublishError, "FAT"), (errno.EIO, PublishError, "Input/output")],
)
def test_a_disk_that_fails_on_the_way_is_one_clear_error(
    repo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    said: str,
) -> None:
    def broken(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    for write, where in ((write_folder, tmp_path / "usb"), (write_tar, tmp_path / "x.tar")):
        with pytest.raises(kind, match=said):
            write(selection(repo), repo, where, quiet)
    assert not any("part" in path.name for path in tmp_path.rglob("*"))


# --- tar ---


def test_a_tar_has_the_same_files_and_is_the_same_each_time(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo, "tiny-1.0")
    for name in ("a.tar", "b.tar"):
        write_tar(wanted, repo, tmp_path / name, quiet)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar", "r:") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [piece.path for piece in wanted.pieces]
    assert all(member.isreg() and member.uid == member.mtime == 0 for member in members)
    assert any(len(member.name) > 100 for member in members)  # names that the oldest tars could not hold


def test_a_tar_takes_its_name_when_it_is_whole(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").write_bytes(b"the one before")

    def damaged(*_: object) -> None:
        raise PublishError("the disk is damaged")

    monkeypatch.setattr(copying, "_check_tar", damaged)
    with pytest.raises(PublishError):
        write_tar(selection(repo), repo, tmp_path / "x.tar", quiet)
    assert (tmp_path / "x.tar").read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.tar"]


def test_a_tar_that_reads_otherwise_is_found(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    write_tar(wanted, repo, tmp_path / "x.tar", quiet)
    raw = bytearray((tmp_path / "x.tar").read_bytes())
    raw[5000] ^= 1
    (tmp_path / "x.tar").write_bytes(raw)
    with pytest.raises(PublishError, match="reads otherwise"):
        copying._check_tar(tmp_path / "x.tar", wanted.pieces, copying._Progress(1, quiet))


def test_a_damaged_pack_is_not_put_into_a_tar(repo: Path, tmp_path: Path) -> None:
    wanted = selection(repo)
    pack = next(piece for piece in wanted.pieces if piece.path.endswith(".pack"))
    raw = (repo / pack.path).read_bytes()
    for bad in (raw[:-1] + bytes([raw[-1] ^ 1]), raw[:-1], raw + b"x"):
        (repo / pack.path).write_bytes(bad)
        with pytest.raises(PublishError, match="not what was published"):
            write_tar(wanted, repo, tmp_path / "x.tar", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


# --- what is left over ---


def test_clean_takes_what_this_bundle_does_not_need_and_nothing_else(repo: Path, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    write_folder(selection(repo), repo, usb, quiet)
    mine = {"holiday.jpg": b"x", "returns/d.json": b"{}", "packs/readme.txt": b"y", "metadata/notes.txt": b"z"}
    for name, raw in mine.items():
        (usb / name).write_bytes(raw)
    (usb / "packs" / "ab").mkdir(exist_ok=True)
    (usb / "packs" / "ab" / f".x.pack{copying.PARTIAL}").write_bytes(b"half")
    small = selection(repo, "tiny-2.0")
    write_folder(small, repo, usb, quiet)
    freed = clean(small, usb)
    assert freed > 3_000_000
    assert set(files(usb)) == {piece.path for piece in small.pieces} | set(mine)
