import hashlib
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import contract
from edgekit.errors import NotABundle, PublishError, UnsafePath
from edgekit.onnxfile import external_tensors
from edgekit.release.manifest import MAX_CHUNK_BYTES, Kind
from export.publish import chunking
from export.publish.chunking import (
    GATHERED_BYTES,
    LARGE_TENSOR_BYTES,
    LEAST_BYTES,
    MOST_BYTES,
    Cut,
    CutFile,
    content_defined,
    cut,
    grid,
)
from tests.device_agent.bundles import ADAPTABLE, FOLDERS, WARM, copy_to

KIB, MIB = 1 << 10, 1 << 20


def starts(sizes: list[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def by_path(files: tuple[CutFile, ...]) -> dict[str, CutFile]:
    return {file.path: file for file in files}


# --- weights --------------------------------------------------------------------------------

tensors_of_files = st.lists(
    st.tuples(st.integers(0, 6 * MIB), st.integers(0, 3 * MIB)), max_size=12
)  # as untidy as a graph may say: overlapping, touching, beyond the end


@given(size=st.integers(0, 6 * MIB), tensors=tensors_of_files)
def test_chunks_of_weights_cover_every_byte_and_are_never_too_long(size: int, tensors: list[tuple[int, int]]) -> None:
    sizes = grid(size, tensors)
    assert sum(sizes) == size
    assert all(0 < each <= MAX_CHUNK_BYTES for each in sizes)
    assert grid(size, tensors[::-1]) == sizes, "the order in which a graph names tensors does not count"


@st.composite
def packed_tensors(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A data file as exports write them: one tensor behind the other, each at a multiple of 64."""
    found, at = [], 0
    for length in draw(st.lists(st.integers(1, 3 * MIB) | st.integers(1, 2 * LARGE_TENSOR_BYTES), max_size=12)):
        found.append((at, length))
        at += -(-length // 64) * 64
    return at, found


@given(packed_tensors())
def test_the_grid_begins_anew_at_each_large_tensor(case: tuple[int, list[tuple[int, int]]]) -> None:
    size, tensors = case
    begins = set(starts(grid(size, tensors)))
    for offset, length in tensors:
        if length >= LARGE_TENSOR_BYTES:
            inside = {each - offset for each in begins if offset <= each < offset + length}
            assert inside == set(range(0, length, MAX_CHUNK_BYTES))


@given(packed_tensors())
def test_small_tensors_are_gathered_and_stay_whole(case: tuple[int, list[tuple[int, int]]]) -> None:
    size, tensors = case
    sizes = grid(size, tensors)
    ends = set(accumulate(sizes))
    for offset, length in tensors:
        if length < LARGE_TENSOR_BYTES:
            assert not ends & set(range(offset + 1, offset + length)), "no chunk ends inside of one"
    large = sum(-(-length // MAX_CHUNK_BYTES) + 1 for _, length in tensors if length >= LARGE_TENSOR_BYTES)
    assert len(sizes) <= 1 + 2 * large + 2 * size // GATHERED_BYTES


def test_a_tensor_that_moved_has_the_same_chunks(tmp_path: Path) -> None:
    tensor = noise(3 * MIB + 5)
    hashes = []
    for before in (b"", noise(70 * KIB, 1), noise(MIB + 64, 2)):
        file = tmp_path / "data"
        file.write_bytes(before + tensor)
        found = chunking._cut_file(file, "data", [(0, len(before)), (len(before), len(tensor))])
        hashes.append([each.sha256 for each in found.chunks if each.offset >= len(before)])
    assert len(hashes[0]) == 4
    assert hashes[0] == hashes[1] == hashes[2]


def test_the_filling_behind_a_tensor_makes_no_chunk_of_its_own() -> None:
    assert grid(200 * KIB + 64, [(0, 100 * KIB - 8), (100 * KIB, 100 * KIB)]) == [100 * KIB, 100 * KIB + 64]


def test_a_model_of_4_gb_has_a_manifest_below_a_megabyte() -> None:
    layer = [13_107_200, 1_638_400, 6_553_600, 819_200, 52_428_800, 6_553_600, 26_214_400, 3_276_800, 10_240]
    lengths = [164_000_000, *layer * 36]
    tensors = list(zip(starts(lengths), lengths, strict=True))
    assert sum(lengths) > 4e9
    assert len(grid(sum(lengths), tensors)) * 110 < 1e6


# --- other files ----------------------------------------------------------------------------


@given(data=st.binary(max_size=300) | st.integers(0, 3 * MIB).map(noise))
def test_content_cuts_cover_every_byte(data: bytes) -> None:
    sizes = content_defined(data)
    assert sum(sizes) == len(data)
    assert all(LEAST_BYTES <= each <= MOST_BYTES for each in sizes[:-1])
    assert all(0 < each <= MOST_BYTES for each in sizes)


def test_cuts_come_about_every_64_kib() -> None:
    sizes = content_defined(noise(16 * MIB))
    assert 48 * KIB < 16 * MIB / len(sizes) < 112 * KIB


def test_the_same_byte_over_and_over_is_cut_too() -> None:
    for byte in range(256):
        assert max(content_defined(bytes([byte]) * 600_000)) <= MOST_BYTES


@pytest.mark.parametrize("at", [0, 1, 300_000, MIB - 1, MIB, MIB + 17])
def test_what_is_added_in_front_moves_no_cut_behind(at: int) -> None:
    before = noise(3 * MIB)
    after = before[:at] + b"a new line\n" + before[at:]

    def chunks(data: bytes) -> set[bytes]:
        sizes = content_defined(data)
        return {data[start : start + size] for start, size in zip(starts(sizes), sizes, strict=True)}

    assert len(chunks(after) - chunks(before)) <= 2


def test_cuts_are_the_same_for_ever() -> None:
    """Another hash would make every device fetch every tokenizer again."""
    data = b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(20_000))
    assert content_defined(data) == [191_475, 57_101, 83_206, 105_697, 202_521]


# --- folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [*FOLDERS, WARM], ids=lambda folder: folder.name)
def test_every_listed_file_is_cut_and_hashed_whole(folder: Path) -> None:
    kind: Kind = "adapter" if folder == WARM else "model"
    files = cut(folder, kind)
    assert {file.path for file in files} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    for file in files:
        raw = (folder / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
        assert b"".join(raw[each.offset : each.offset + each.size] for each in file.chunks) == raw
        for each in file.chunks:
            assert each.sha256 == hashlib.sha256(raw[each.offset : each.offset + each.size]).hexdigest()
    assert cut(folder, kind) == files


def test_the_grid_follows_the_tensors_of_the_graph() -> None:
    found = by_path(cut(ADAPTABLE, "model"))[contract.DATA_FILE]
    graph = (ADAPTABLE / contract.MODEL_FILE).read_bytes()
    large = {each.offset for each in external_tensors(graph) if (each.length or 0) >= LARGE_TENSOR_BYTES}
    assert large <= {each.offset for each in found.chunks}


def test_what_the_manifest_does_not_list_is_not_published(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    expected = cut(folder, "model")
    (folder / "notes.txt").write_text("mine")
    assert cut(folder, "model") == expected


def test_b08_a_graph_that_reads_beyond_the_bundle_is_not_published(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    graph = folder / contract.MODEL_FILE
    raw = graph.read_bytes()
    name = contract.DATA_FILE.encode()
    graph.write_bytes(raw.replace(name, b"../../etc/passw"))  # as long, so that the file is as long too
    with pytest.raises(UnsafePath, match="passw"):
        cut(folder, "model")


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_folder_that_is_neither_is_refused(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(NotABundle):
        cut(tmp_path, kind)


def test_a_file_that_shrinks_or_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(100))
    with file.open("rb") as stream, pytest.raises(PublishError, match="data shrank"):
        chunking._hashed(stream, "data", [60, 60])
    with file.open("rb") as stream, pytest.raises(PublishError, match="data grew"):
        chunking._hashed(stream, "data", [60, 39])


# --- B6: files around 2 and 4 GiB -------------------------------------------------------------


@pytest.mark.parametrize("size", [(2 << 30) - 1, (2 << 30) + 1, (4 << 30) - 1, (4 << 30) + 1])
def test_b06_the_grid_of_a_large_file_reaches_its_last_byte(size: int) -> None:
    tensors = [(0, 1 << 20), (1 << 20, size - (1 << 20))]
    sizes = grid(size, tensors)
    assert sum(sizes) == size
    assert len(sizes) == -(-size // MIB)


def test_b06_a_bit_in_the_last_byte_of_a_file_beyond_2_gib_is_seen(tmp_path: Path) -> None:
    """The RAUC hole (CVE-2026-34155): a signature that covered the first bytes only."""
    file = tmp_path / "data"
    size = (2 << 30) + 1
    with file.open("wb") as stream:  # sparse: nothing of it is on the disk but the last byte
        stream.seek(size - 1)
        stream.write(b"\1")
    found = chunking._cut_file(file, "data", [(0, size)])
    assert found.size == size
    assert found.sha256 == "60f8b76720e075ea4e7151a3b56c5ebc97934e47f08ee20f9fffc891c35882fc"
    assert found.chunks[-1] == Cut(2 << 30, 1, hashlib.sha256(b"\1").hexdigest())
