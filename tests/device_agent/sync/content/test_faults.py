"""Every call to the disk fails once, in every way a disk can fail; the next run ends well all the same."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.releases.records import Installed
from device_agent.sync.content import repair, seal
from edgekit.errors import NoSpace, StorageFailed, SyncError
from tests.contents import Never, contents, make, make_delta, noise, source_of, update, with_flips
from tests.device_agent.bundles import TINY

BUNDLE = contents(TINY)
GRID = 16_384
OLD = make(BUNDLE, name="tiny-llama", grid=GRID, pack_bytes=1 << 16)
NEW = make(
    {**BUNDLE, "docs/readme.txt": noise(20_000), "model.onnx.data": BUNDLE["model.onnx.data"]},
    name="tiny-llama",
    grid=GRID,
    pack_bytes=1 << 16,
)
WRITES = ("open", "write", "mkdir", "unlink", "fsync", "rmdir")
READS = ("read", "scandir")


class Nth:
    """Makes the n-th of some calls of `os` fail, and counts them. Reading alone may go on (`opens` are told apart)."""

    def __init__(self, patch: pytest.MonkeyPatch, names: tuple[str, ...], n: int, code: int) -> None:
        self.calls = 0
        self._n = n
        self._code = code
        for name in names:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*arguments, **more)
            self.calls += 1
            if self.calls == self._n:
                raise OSError(self._code, os.strerror(self._code), "a file")
            return real(*arguments, **more)

        return call


def install(folder: Path, old: list[Installed]) -> None:
    update(NEW, folder, have=old)
    seal(folder, NEW.release, NEW.manifest)


def every_failure(
    tmp_path: Path, names: tuple[str, ...], code: int, old: list[Installed], *, most: int = 400
) -> Iterator[tuple[int, SyncError | StorageFailed | None]]:
    """Install once for each call that can fail; then again without a fault, which must end well."""
    for n in range(1, most):
        folder = tmp_path / f"new-{n}"
        found: SyncError | StorageFailed | None = None
        with pytest.MonkeyPatch.context() as patch:
            calls = Nth(patch, names, n, code)
            try:
                install(folder, old)
            except (SyncError, StorageFailed) as error:
                found = error
        if calls.calls < n:
            assert found is None
            assert n > 20, "nothing failed at all"
            return
        yield n, found
        install(folder, old)
        assert contents(folder) == NEW.contents, n
        shutil.rmtree(folder)
    raise AssertionError("it never ended")


@pytest.fixture
def old(tmp_path: Path) -> list[Installed]:
    """A release that has most of it: one file is linked, the rest is copied or fetched."""
    files = {**BUNDLE, "tokenizer.json": with_flips(BUNDLE["tokenizer.json"], 10)}
    return [make(files, name="tiny-llama", version="0", grid=GRID).install(tmp_path / "old")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
def test_e01_a_full_disk_at_every_write_keeps_what_is_there(tmp_path: Path, old: list[Installed], code: int) -> None:
    before = contents(old[0].folder)
    for _, error in every_failure(tmp_path, WRITES, code, old):
        assert error is None or type(error) is NoSpace
        assert contents(old[0].folder) == before


def test_e01_what_was_fetched_before_the_disk_was_full_is_not_fetched_again(tmp_path: Path) -> None:
    source = source_of(NEW)
    with pytest.MonkeyPatch.context() as patch:
        Nth(patch, ("write",), 30, errno.ENOSPC)
        with pytest.raises(NoSpace):
            update(NEW, tmp_path, source)
    update(NEW, tmp_path, source)
    assert contents(tmp_path) == NEW.contents
    assert source.sent_bytes <= sum(map(len, NEW.packs.values())) + GRID + source.piece


def test_e02_an_error_of_the_disk_at_every_write_and_sync(tmp_path: Path, old: list[Installed]) -> None:
    for _, error in every_failure(tmp_path, WRITES, errno.EIO, old):
        assert error is None or type(error) is StorageFailed


def test_e02_an_error_of_the_disk_at_every_read(tmp_path: Path, old: list[Installed]) -> None:
    """Reading an installed release fails too: its bytes are fetched then."""
    for _, error in every_failure(tmp_path, READS, errno.EIO, old):
        assert error is None or type(error) is StorageFailed


def test_e02_a_staged_file_that_cannot_be_read_begins_anew_at_once(tmp_path: Path) -> None:
    update(NEW, tmp_path)
    handle_of_weights: list[int] = []
    real_open, real_read = os.open, os.read

    def opened(path: Any, *arguments: Any) -> int:
        handle = real_open(path, *arguments)
        if str(path).endswith("model.onnx.data"):
            handle_of_weights.append(handle)
        return handle

    def read(handle: int, size: int) -> bytes:
        if handle in handle_of_weights:
            handle_of_weights.clear()  # once: a file written anew is on another part of the disk
            raise OSError(errno.EIO, "Input/output error")
        return real_read(handle, size)

    source = source_of(NEW)
    with (tmp_path / "model.onnx.data").open("rb") as before, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "read", read)
        update(NEW, tmp_path, source)
        assert os.fstat(before.fileno()).st_ino != (tmp_path / "model.onnx.data").stat().st_ino
    assert contents(tmp_path) == NEW.contents
    assert source.sent_bytes > 0


def test_e03_a_disk_that_may_only_be_read_is_said_and_changes_nothing(tmp_path: Path, old: list[Installed]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "a file")

    source = source_of(NEW)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "write", "unlink", "link", "replace", "rename"):
            patch.setattr(os, name, refuse)
        with pytest.raises(StorageFailed, match="Read-only file system"):
            update(NEW, tmp_path / "new", source, have=old)
    assert source.asked == []
    assert not (tmp_path / "new").exists()


def test_e07_nothing_needs_the_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise AssertionError("/tmp has no room")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    installed = OLD.install(tmp_path / "old")
    (tmp_path / "old" / "model.onnx.data").write_bytes(with_flips(BUNDLE["model.onnx.data"], 5))
    delta, packs = make_delta(OLD, NEW, grid=GRID)
    update(NEW, tmp_path / "new", source_of(NEW, more=[packs]), have=[installed], deltas=[delta])
    seal(tmp_path / "new", NEW.release, NEW.manifest)
    repair(
        installed,
        source_of(OLD),
        paths=["model.onnx.data"],
        bench=tmp_path / "bench",
        tell=lambda _: None,
        stop=Never(),
    )
    assert contents(tmp_path / "old") == BUNDLE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
