"""Nothing is sealed but what was signed: every byte of it, as the disk has it, and nothing beside."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.sync.content import journal, seal
from device_agent.sync.content.seal import RECORD, settle
from edgekit.errors import CorruptRelease, StorageFailed, UnsupportedRelease
from edgekit.release.manifest import ReleaseFile
from tests.contents import Made, contents, make, put, sha256, update, with_flips
from tests.device_agent.bundles import TINY, WARM

BUNDLE = contents(TINY)


def tiny(changes: dict[str, bytes] | None = None, *, version: str = "1") -> Made:
    return make({**BUNDLE, **(changes or {})}, name="tiny-llama", version=version)


MADE = tiny()


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    update(MADE, tmp_path / "staged")
    return tmp_path / "staged"


def test_a_sealed_release_has_its_files_and_its_manifest_and_nothing_else(staged: Path) -> None:
    seal(staged, MADE.release, MADE.manifest)
    assert contents(staged) == BUNDLE
    assert {path.name for path in staged.iterdir()} == {*BUNDLE, RECORD}
    assert (staged / RECORD).read_bytes() == MADE.manifest


def test_sealing_again_after_a_crash_is_the_same(staged: Path) -> None:
    (staged / RECORD).write_bytes(b'{"half": ')
    seal(staged, MADE.release, MADE.manifest)
    seal(staged, MADE.release, MADE.manifest)
    assert (staged / RECORD).read_bytes() == MADE.manifest


def test_an_adapter_is_sealed_too(tmp_path: Path) -> None:
    files = contents(WARM)
    made = make(files, kind="adapter", name="warm", version="1")
    update(made, tmp_path)
    seal(tmp_path, made.release, made.manifest)
    assert contents(tmp_path) == files


def flip(path: str) -> Callable[[Path], None]:
    return lambda folder: _overwrite(folder / path, with_flips(BUNDLE[path], len(BUNDLE[path]) // 2))


def _overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def replace_by_link(folder: Path) -> None:
    (folder.parent / "same").write_bytes(BUNDLE["tokenizer.json"])
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(folder.parent / "same")


def link_a_folder(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent, target_is_directory=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "b07 a bit of the weights flips": flip("model.onnx.data"),
    "b07 a bit of the graph flips": flip("model.onnx"),
    "b07 a bit of bundle.json flips": flip("bundle.json"),
    "b07 a file became a link to the same bytes": replace_by_link,
    "b07 a file is gone": lambda folder: (folder / "model.onnx.data").unlink(),
    "b07 a file is shorter": lambda folder: os.truncate(folder / "model.onnx.data", 100),
    "b07 a file is longer": lambda folder: _overwrite(folder / "tokenizer.json", BUNDLE["tokenizer.json"] + b" "),
    "b09 one file more": lambda folder: put(folder, {"extra.onnx": b"x"}),
    "b09 one hidden file more": lambda folder: put(folder, {".bashrc": b"x"}),
    "b09 one file more in a folder": lambda folder: put(folder, {"sub/extra": b"x"}),
    "b09 an empty folder": lambda folder: (folder / "sub").mkdir(),
    "b09 a folder that is a link": link_a_folder,
    "b09 a pipe": lambda folder: os.mkfifo(folder / "pipe"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_since_it_was_staged_is_refused_and_put_right_by_the_next_run(
    staged: Path, change: Callable[[Path], object]
) -> None:
    change(staged)
    with pytest.raises(CorruptRelease):
        seal(staged, MADE.release, MADE.manifest)
    update(MADE, staged)
    seal(staged, MADE.release, MADE.manifest)
    assert contents(staged) == BUNDLE


def test_a_folder_that_is_a_link_is_refused(staged: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(staged, target_is_directory=True)
    with pytest.raises(CorruptRelease):
        seal(tmp_path / "link", MADE.release, MADE.manifest)


# --- B8: what a bundle would open -------------------------------------------------------------

DATA = b"model.onnx.data"


@pytest.mark.parametrize(
    ("location", "said"),
    [(b"../../etc/passw", "outside"), (b"/etc/passwd/xyz", "outside"), (b"elsewhere.data!", "not listed")],
)
def test_b08_a_graph_with_weights_outside_is_refused_though_it_was_signed(
    tmp_path: Path, location: bytes, said: str
) -> None:
    assert len(location) == len(DATA)
    made = tiny({"model.onnx": BUNDLE["model.onnx"].replace(DATA, location)})
    made = tiny(
        {
            "model.onnx": made.contents["model.onnx"],
            "bundle.json": BUNDLE["bundle.json"].replace(
                sha256(BUNDLE["model.onnx"]).encode(), sha256(made.contents["model.onnx"]).encode()
            ),
        }
    )
    update(made, tmp_path)
    with pytest.raises(CorruptRelease, match=said):
        seal(tmp_path, made.release, made.manifest)
    assert not (tmp_path / RECORD).exists()


BUNDLES: dict[str, tuple[bytes, type[Exception]]] = {
    "no JSON": (b"{", CorruptRelease),
    "of another name": (BUNDLE["bundle.json"].replace(b'"tiny-llama"', b'"huge-llama"'), CorruptRelease),
    "of a format to come": (BUNDLE["bundle.json"].replace(b'"format": 1', b'"format": 9'), UnsupportedRelease),
    "with a path outside": (BUNDLE["bundle.json"].replace(b'"tokenizer.json"', b'"../okenizer.json"'), CorruptRelease),
    "with a file that is not there": (BUNDLE["bundle.json"].replace(b'"tokenizer.json"', b'"x.json"'), CorruptRelease),
}


@pytest.mark.parametrize(("raw", "kind"), BUNDLES.values(), ids=BUNDLES)
def test_b08_a_bundle_that_is_none_is_refused_though_it_was_signed(
    tmp_path: Path, raw: bytes, kind: type[Exception]
) -> None:
    made = tiny({"bundle.json": raw})
    update(made, tmp_path)
    with pytest.raises(CorruptRelease) as caught:
        seal(tmp_path, made.release, made.manifest)
    assert type(caught.value) is kind


# --- what is durable --------------------------------------------------------------------------


def test_every_file_and_folder_is_synced_before_it_is_called_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make({**BUNDLE, "docs/a/b.txt": b"b"}, name="tiny-llama", version="1")
    update(made, tmp_path)
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        kind = "/" if stat.S_ISDIR(status.st_mode) else ""
        (path,) = [one for one in (tmp_path, *tmp_path.rglob("*")) if one.stat().st_ino == status.st_ino]
        synced.append(path.relative_to(tmp_path).as_posix() + kind)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    seal(tmp_path, made.release, made.manifest)
    assert sorted(synced) == sorted([*made.contents, RECORD, "docs/", "docs/a/", "./"])
    assert synced[-1] == "./", "the folder last: what it names is durable then"
    assert not (tmp_path / journal.NAME).exists()


def test_files_are_read_from_the_disk_and_not_from_the_cache(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def fadvise(handle: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        assert os.lseek(handle, 0, os.SEEK_CUR) == 0, "before it is read"
        dropped.append((offset, length))
        real(handle, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    seal(staged, MADE.release, MADE.manifest)
    assert dropped == [(0, 0)] * len(BUNDLE)


def test_e02_after_a_failed_sync_the_file_begins_anew(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(BUNDLE["model.onnx.data"])
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.fstat(handle).st_size == size:
            raise OSError(5, "Input/output error")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageFailed, match=r"model\.onnx\.data"):
            seal(staged, MADE.release, MADE.manifest)
    assert not (staged / "model.onnx.data").exists()
    update(MADE, staged)
    seal(staged, MADE.release, MADE.manifest)
    assert contents(staged) == BUNDLE


# --- B6: sizes at which numbers have overflowed elsewhere -------------------------------------

SIZES = {  # the SHA-256 of so many bytes, all of them zero but the last one, which is "x"
    (2 << 30) - 1: "5fefa194f49ae30ba302f7736f39da8bdd0dcba6f3b87a78dc1e2972d7f822f1",
    2 << 30: "15245c19c2b708282945ebb830ee7cd88518983cbee255cfca5c61a5f657a3de",
    (2 << 30) + 1: "4ec7c05249cde176c7277af25f400dc66e87fabf7158179a191562d4338c42d3",
    (4 << 30) - 1: "ee691271e0b832ab16fd78f2b418390f5000d6c16528180806bd0860b77e5493",
    4 << 30: "94527c43d012312f38be111d1264e5e62e9510669cadda982cf516c81bda801e",
    (4 << 30) + 1: "07d357bda5c988a206bb478ade5af844c26eaf242e951e5ac4d4f85b417ed69f",
}
_LONG = [pytest.param(size, marks=pytest.mark.long) for size in SIZES if size != (2 << 30) + 1]


@pytest.mark.parametrize("size", [(2 << 30) + 1, *_LONG])
def test_b06_the_last_byte_of_a_large_file_counts(tmp_path: Path, size: int) -> None:
    """RAUC's signature covered the first bytes only of what was larger than 2 GiB (CVE-2026-34155)."""
    file = ReleaseFile("weights", size, SIZES[size], ())
    with (tmp_path / "weights").open("wb") as stream:
        stream.seek(size - 1)
        stream.write(b"x")
    settle(tmp_path, file)
    with (tmp_path / "weights").open("r+b") as stream:
        stream.seek(size - 1)
        stream.write(b"y")
    with pytest.raises(CorruptRelease):
        settle(tmp_path, file)
