import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CorruptRelease, PublishError
from edgekit.release.codec import THOROUGH
from edgekit.release.manifest import MAX_PACK_BYTES
from edgekit.release.names import pack_path
from export.publish import packing
from export.publish.packing import Packed, Packer, Stored, packed, read_chunk, side_by_side, sweep

MIB = 1 << 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def raw(data: bytes) -> Packed:
    return Packed("raw", data)


def packs(repository: Path) -> list[Path]:
    return sorted(path for path in repository.rglob("*") if path.is_file())


def store(repository: Path, *chunks: bytes) -> dict[str, Stored]:
    packer = Packer(repository, {})
    for chunk in chunks:
        packer.add(sha256(chunk), packed(chunk, THOROUGH))
    return dict(packer.close())


# --- packs ----------------------------------------------------------------------------------


@given(chunks=st.lists(st.binary(min_size=1, max_size=2000), max_size=12))
def test_every_chunk_is_found_again_and_a_pack_is_named_by_its_digest(
    chunks: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = tmp_path_factory.mktemp("repository")
    places = store(repository, *chunks)
    assert set(places) == {sha256(chunk) for chunk in chunks}
    for chunk in chunks:
        assert read_chunk(repository, places[sha256(chunk)], len(chunk), sha256(chunk)) == chunk
    for path in packs(repository):
        assert path == repository / pack_path(sha256(path.read_bytes()))
    sizes = {repository / pack_path(place.pack): place.pack_size for place in places.values()}
    assert sizes == {path: path.stat().st_size for path in packs(repository)}


def test_packs_are_at_most_32_mib_and_keep_the_order_of_chunks(tmp_path: Path) -> None:
    chunks = [noise(MIB - 1, seed) for seed in range(34)]
    packer = Packer(tmp_path, {})
    for number, chunk in enumerate(chunks):
        packer.add(sha256(chunk), raw(chunk))
        assert len(packs(tmp_path)) == (number > 31), "a pack is written as soon as it is full"
    places = packer.close()
    assert sorted(path.stat().st_size for path in packs(tmp_path)) == [2 * (MIB - 1), 32 * (MIB - 1)]
    assert all(place.pack_size <= MAX_PACK_BYTES for place in places.values())
    assert [places[sha256(chunk)].offset for chunk in chunks[:32]] == [(MIB - 1) * number for number in range(32)]


def test_a_pack_may_be_full_to_the_last_byte(tmp_path: Path) -> None:
    packer = Packer(tmp_path, {})
    for seed in range(32):
        packer.add(str(seed), raw(noise(MIB, seed)))
    assert {place.pack_size for place in packer.close().values()} == {MAX_PACK_BYTES}


def test_what_the_repository_has_is_not_stored_again(tmp_path: Path) -> None:
    known = store(tmp_path, b"a" * 500, noise(500))
    before = packs(tmp_path)
    packer = Packer(tmp_path, known)
    for chunk in (b"a" * 500, noise(500)):
        assert packer.has(sha256(chunk))
        packer.add(sha256(chunk), packed(chunk, THOROUGH))
    assert packer.close() == known
    assert packs(tmp_path) == before


def test_a_chunk_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    places = store(tmp_path, noise(500), noise(500, 1), noise(500))
    assert [place.pack_size for place in places.values()] == [1000, 1000]


def test_without_chunks_nothing_is_written(tmp_path: Path) -> None:
    assert store(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_pack_is_never_written_again_unless_it_is_damaged(tmp_path: Path) -> None:
    places = store(tmp_path, noise(500))
    (path,) = packs(tmp_path)
    first = path.stat()
    assert store(tmp_path, noise(500)) == places
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    path.write_bytes(bytes(500))
    assert store(tmp_path, noise(500)) == places
    assert path.read_bytes() == noise(500)


@pytest.mark.parametrize("found_already", [False, True])
def test_names_of_packs_are_made_durable(found_already: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that was killed may have left a pack whose name a power cut would still take away."""
    if found_already:
        store(tmp_path, noise(500))
    synced: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    store(tmp_path, noise(500))
    (path,) = packs(tmp_path)
    folders = [path.parent.stat().st_ino, path.parent.parent.stat().st_ino, tmp_path.stat().st_ino]
    assert [each for each in synced if each in folders] == folders, "each before the folder that names it"
    assert (path.stat().st_ino in synced) == (not found_already)


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    store(tmp_path, noise(500))
    (path,) = packs(tmp_path)
    path.with_name(f".{path.name}.abc123").write_bytes(bytes(77))
    assert sweep(tmp_path) == 77
    assert packs(tmp_path) == [path]
    assert sweep(tmp_path / "missing") == 0


# --- reading --------------------------------------------------------------------------------


def test_a_pack_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    data = b"text " * 1000
    ((digest, place),) = store(tmp_path, data).items()
    (path,) = packs(tmp_path)
    content = path.read_bytes()
    path.write_bytes(zlib.compress(b"other" * 1000).ljust(len(content)))
    with pytest.raises((PublishError, CorruptRelease)):
        read_chunk(tmp_path, place, len(data), digest)
    path.write_bytes(noise(5000))
    with pytest.raises(PublishError, match="damaged"):
        read_chunk(tmp_path, Stored(place.pack, 5000, 0, 5000, "raw"), 5000, digest)
    path.unlink()
    with pytest.raises(PublishError, match=place.pack):
        read_chunk(tmp_path, place, len(data), digest)


def test_work_side_by_side_keeps_its_order_and_takes_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "usable_cores", lambda: 2)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(50):
            taken.append(item)
            yield item

    results = side_by_side(lambda item: item * item, items())
    for item in range(50):
        assert next(results) == item * item
        assert len(taken) <= item + 6
    assert list(results) == []
