"""A twin on disk is whole or not there, and never takes more than its share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from device_agent.engine.twin import cachefile
from device_agent.engine.twin.cachefile import TwinCache
from edgekit import contract
from edgekit.bundle import Bundle, open_bundle
from edgekit.files import sha256_of
from edgekit.twin.expand import read_layout
from tests.device_agent.bundles import TWIN, copy_to, set_fields


class Usage(NamedTuple):
    """What shutil.disk_usage returns."""

    total: int
    used: int
    free: int


def quietly() -> None:
    """A step that goes on."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(copy_to(tmp_path, TWIN))


@pytest.fixture
def cache(tmp_path: Path) -> TwinCache:
    return TwinCache(tmp_path / "home" / "prefill")


def test_a_twin_is_made_once_and_found_again(bundle: Bundle, cache: TwinCache) -> None:
    assert cache.opened(bundle, 64) is None
    folder = cache.made(bundle, 64, quietly)
    assert folder is not None
    assert cache.opened(bundle, 64) == folder
    assert {path.name for path in folder.iterdir()} == {"prefill.onnx", "prefill.onnx.data", "stamp.json"}
    assert (folder / contract.PREFILL_FILE).read_bytes() == (TWIN / contract.PREFILL_FILE).read_bytes()
    assert cache.opened(bundle, 127) is None  # other codes are another file
    if os.name != "nt":
        assert cache.root.stat().st_mode & 0o077 == 0


def test_another_version_of_the_bundle_has_a_twin_of_its_own(bundle: Bundle, cache: TwinCache) -> None:
    folder = cache.made(bundle, 64, quietly)
    set_fields(version="2")(bundle.folder)
    other = open_bundle(bundle.folder)
    assert cache.opened(other, 64) is None
    assert cache.made(other, 64, quietly) != folder


def flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)

    return damage


def shorten(folder: Path) -> None:
    path = folder / contract.PREFILL_DATA
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of the data": flip(contract.PREFILL_DATA),
    "a bit of the graph": flip(contract.PREFILL_FILE),
    "a byte too few": shorten,
    "no data": lambda folder: (folder / contract.PREFILL_DATA).unlink(),
    "no graph": lambda folder: (folder / contract.PREFILL_FILE).unlink(),
    "no stamp": lambda folder: (folder / "stamp.json").unlink(),
    "another stamp": lambda folder: write(folder / "stamp.json", b'{"size": 1, "sha256": ""}'),
    "rubbish for a stamp": lambda folder: write(folder / "stamp.json", b"\xff"),
    "a huge stamp": lambda folder: write(folder / "stamp.json", b" " * 5000 + (folder / "stamp.json").read_bytes()),
}


def write(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_twin_is_removed_and_made_again(
    damage: str, bundle: Bundle, cache: TwinCache, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache.made(bundle, 64, quietly)
    assert folder is not None
    right = sha256_of(folder / contract.PREFILL_DATA)
    DAMAGES[damage](folder)
    assert cache.opened(bundle, 64) is None
    assert "made again" in caplog.text
    assert cache.made(bundle, 64, quietly) == folder
    assert sha256_of(folder / contract.PREFILL_DATA) == right


def test_a_link_in_place_of_the_data_is_not_followed(bundle: Bundle, cache: TwinCache, tmp_path: Path) -> None:
    folder = cache.made(bundle, 64, quietly)
    assert folder is not None
    data = folder / contract.PREFILL_DATA
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    assert cache.opened(bundle, 64) is None
    assert (tmp_path / "elsewhere").exists()


def test_work_that_is_stopped_leaves_nothing(bundle: Bundle, cache: TwinCache) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.made(bundle, 64, stop)
    assert list(cache.root.iterdir()) == []


def test_of_two_processes_the_slower_one_takes_the_other_s(bundle: Bundle, cache: TwinCache) -> None:
    won: list[Path | None] = []

    def overtake() -> None:
        if not won:
            won.append(None)
            won[0] = cache.made(bundle, 64, quietly)

    assert cache.made(bundle, 64, overtake) == won[0] == cache.folder(bundle, 64)
    assert list(cache.root.iterdir()) == [won[0]]


def test_a_bundle_that_lies_about_its_weights_is_an_error(bundle: Bundle, cache: TwinCache) -> None:
    set_fields(quant__weights={})(bundle.folder)
    with pytest.raises(ValueError, match="no matrix of this model"):
        cache.made(open_bundle(bundle.folder), 64, quietly)


def others(cache: TwinCache, count: int, size: int) -> list[Path]:
    """Twins of other bundles, the first one not used for longest."""
    folders = []
    for number in range(count):
        folder = cache.root / f"other{number}"
        folder.mkdir(parents=True)
        (folder / "prefill.onnx.data").write_bytes(bytes(size))
        (folder / "stamp.json").write_bytes(b"")
        os.utime(folder / "stamp.json", (1000 + number, 1000 + number))
        folders.append(folder)
    return folders


def test_the_ones_not_used_for_longest_make_room(bundle: Bundle, tmp_path: Path) -> None:
    size = read_layout(bundle.folder, bundle.manifest.quant.weights).size_bytes
    cache = TwinCache(tmp_path / "cache", most_bytes=size + 2500)
    folders = others(cache, 4, 1000)
    made = cache.made(bundle, 64, quietly)
    assert made is not None
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_twins_of_bundles_that_were_replaced_go_when_the_next_one_is_made(bundle: Bundle, cache: TwinCache) -> None:
    first = cache.made(bundle, 64, quietly)
    kept = others(cache, 1, 1000)[0]  # it does not say whose it is
    second = open_bundle(bundle.folder.rename(bundle.folder.with_name("second")))
    set_fields(version="2")(second.folder)
    second = open_bundle(second.folder)
    made = cache.made(second, 64, quietly)
    assert made is not None
    assert made != first
    assert sorted(cache.root.iterdir()) == sorted([made, kept])


def test_a_twin_that_is_opened_is_young_again(bundle: Bundle, tmp_path: Path) -> None:
    cache = TwinCache(tmp_path / "cache")
    made = cache.made(bundle, 64, quietly)
    assert made is not None
    os.utime(made / "stamp.json", (1, 1))
    cache.opened(bundle, 64)
    assert (made / "stamp.json").stat().st_mtime > 1


@pytest.mark.parametrize(("most", "free"), [(100, 1 << 40), (1 << 40, 100), (1 << 40, 400_000)])
def test_without_room_there_is_no_twin(
    most: int,
    free: int,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = TwinCache(tmp_path / "cache", most_bytes=most)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1 << 40, 0, free))
    assert cache.made(bundle, 64, quietly) is None
    assert "INT4" in caplog.text
    assert list(cache.root.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_means_no_twin(
    bundle: Bundle, cache: TwinCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cachefile, "expand", full)
    assert cache.made(bundle, 64, quietly) is None
    assert "Not enough space" in caplog.text
    assert list(cache.root.iterdir()) == []


def test_what_a_dead_process_left_is_removed_after_a_day(bundle: Bundle, cache: TwinCache) -> None:
    old, new = (cache.root / f".key.partial-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    cache.made(bundle, 64, quietly)
    assert (old.exists(), new.exists()) == (False, True)
