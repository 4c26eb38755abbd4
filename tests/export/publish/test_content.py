import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgekit import contract
from edgekit.errors import CorruptBundle, NotABundle, PublishError
from edgekit.release import codec
from edgekit.release.manifest import Codec, HealthFloor, Release, Requires, parse
from export.publish import content
from export.publish.chunking import Cut
from export.publish.content import add_release
from export.publish.packing import place_of, read_chunk
from tests.device_agent.bundles import ADAPTABLE, TINY, WARM, copy_to, edit, seal

HEALTH, REQUIRES = HealthFloor(agreement=0.9, soak_s=5), Requires(edgekit="0.1", memory_bytes=1 << 20)


def add(
    folder: Path, repository: Path, earlier: Sequence[Release] = (), codecs: tuple[Codec, ...] = codec.EVERY
) -> Release:
    return add_release(
        folder,
        repository,
        sequence=len(earlier) + 1,
        earlier=earlier,
        health=HEALTH,
        requires=REQUIRES,
        codecs=codecs,
    )


def restored(release: Release, repository: Path) -> dict[str, bytes]:
    """The files, from packs alone."""
    found: dict[str, bytes] = {file.path: b"" for file in release.files}
    for file, offset, chunk in release.chunks():
        assert offset == len(found[file.path])
        found[file.path] += read_chunk(repository, place_of(chunk, release.packs), chunk.size, chunk.sha256)
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("folder", "kind", "base"), [(ADAPTABLE, "model", None), (WARM, "adapter", "tiny-llama")])
def test_a_release_is_restored_from_packs(folder: Path, kind: str, base: str | None, tmp_path: Path) -> None:
    release = add(folder, tmp_path)
    assert (release.kind, release.base, release.sequence) == (kind, base, 1)
    assert (release.health, release.requires) == (HEALTH, REQUIRES)
    assert restored(release, tmp_path) == files_of(folder)
    for file in release.files:
        assert file.sha256 == hashlib.sha256((folder / file.path).read_bytes()).hexdigest()
    assert parse(release.to_bytes()) == release


def test_it_is_called_as_the_folder_says(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    edit(folder, set_named("mine", "2026.1"))
    assert add(folder, tmp_path / "repository").id == "mine-2026.1"


def set_named(name: str, version: str) -> Any:
    def change(manifest: dict[str, Any]) -> None:
        manifest.update(name=name, version=version)

    return change


def test_what_earlier_releases_brought_is_named_and_not_stored_again(tmp_path: Path) -> None:
    first = add(TINY, tmp_path)
    packs = {path: path.read_bytes() for path in tmp_path.rglob("*.pack")}
    again = add(TINY, tmp_path, [first])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pack")} == packs
    assert (again.files, again.packs, again.sequence) == (first.files, first.packs, 2)
    folder = copy_to(tmp_path / "other")
    (folder / contract.CARD_FILE).write_bytes(b"# another card")
    seal(folder)
    third = add(folder, tmp_path, [first, again])
    new = {pack.sha256 for pack in third.packs} - {pack.sha256 for pack in first.packs}
    assert len(new) == 1, "the card and bundle.json"
    assert restored(third, tmp_path) == files_of(folder)


def test_the_same_folder_gives_the_same_release_and_the_same_packs(tmp_path: Path) -> None:
    one, two = (add(ADAPTABLE, tmp_path / name) for name in "ab")
    assert one.to_bytes() == two.to_bytes()
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_slow_devices_get_codecs_that_unpack_fast(tmp_path: Path) -> None:
    release = add(ADAPTABLE, tmp_path, codecs=codec.SLOW)
    assert {chunk.codec for _, _, chunk in release.chunks()} <= {"raw", "zlib"}
    assert {chunk.codec for _, _, chunk in add(ADAPTABLE, tmp_path / "any").chunks()} & {"bz2", "xz"}


def test_progress_counts_bytes_that_are_stored(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    release = add_release(
        TINY,
        tmp_path,
        sequence=1,
        earlier=(),
        health=HEALTH,
        requires=REQUIRES,
        tell=lambda done, total: told.append((done, total)),
    )
    once = {chunk.sha256: chunk.size for _, _, chunk in release.chunks()}
    assert told[-1] == (sum(once.values()),) * 2
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_damaged_bundle_is_not_published(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    raw = bytearray((folder / contract.DATA_FILE).read_bytes())
    raw[-1] ^= 1
    (folder / contract.DATA_FILE).write_bytes(raw)
    with pytest.raises(CorruptBundle, match=r"model\.onnx\.data has changed"):
        add(folder, tmp_path / "repository")
    assert not (tmp_path / "repository").exists(), "nothing was stored"


def test_a_name_that_is_no_file_on_every_device_is_not_published(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "nul.txt").write_bytes(b"x")
    entry = {"path": "nul.txt", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    edit(folder, lambda manifest: manifest["files"].append(entry))
    with pytest.raises(PublishError, match=r"nul\.txt"):
        add(folder, tmp_path / "repository")


def test_what_is_neither_a_bundle_nor_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotABundle, match="neither"):
        add(tmp_path, tmp_path / "repository")


def test_a_file_that_changes_between_hashing_and_storing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"new")
    cut = Cut(0, 3, hashlib.sha256(b"old").hexdigest())
    with pytest.raises(PublishError, match="file changed"):
        list(content._read(tmp_path, [("file", cut)]))
