"""Content that is not what was signed: found at the chunk, made up for where it can be, and never installed.

B4 and B5 (what a manifest says) are in tests/edgekit/release/test_manifest.py, B6 and B8 in test_seal.py.
"""

import bz2
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from device_agent.sync.content.stage import MOST_TRIES, stage
from edgekit.errors import CorruptRelease
from edgekit.release.delta import Delta, Difference
from edgekit.release.manifest import Codec, Pack
from edgekit.release.names import pack_path
from tests.contents import (
    GRID,
    FakeSource,
    Made,
    contents,
    make,
    make_delta,
    noise,
    put,
    sha256,
    source_of,
    update,
    with_flips,
)

FILES = {"weights.data": noise(25_300, seed=1), "tokenizer.json": noise(2100, seed=2)}
MADE = make(FILES, codecs=())
FULL = sum(map(len, MADE.packs.values()))
NEXT = make({**FILES, "weights.data": with_flips(FILES["weights.data"], 1, 12_345)}, version="2", codecs=())


def until_blamed(times: int, change: Callable[[bytes], bytes]) -> Callable[[bytes, int], bytes]:
    """A mirror that lies until the next one is asked."""
    return lambda data, blamed: change(data) if blamed < times else data


# --- B1: one flipped bit ----------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 999, 1000, 12_345, 25_299])
def test_b01_a_flipped_bit_costs_one_chunk_and_the_mirror_its_place(tmp_path: Path, at: int) -> None:
    path, chunk = MADE.place("weights.data", at)
    source = source_of(MADE)
    source.faults[path] = until_blamed(1, lambda data: with_flips(data, chunk.offset + at % GRID))
    update(MADE, tmp_path, source)
    assert contents(tmp_path) == MADE.contents
    assert source.blamed == 1
    assert source.sent_bytes <= FULL + GRID + source.piece


def test_b01_a_repository_with_one_bad_chunk_is_given_up_after_some_tries_and_all_else_is_kept(
    tmp_path: Path,
) -> None:
    path, chunk = MADE.place("weights.data", 12_345)
    source = source_of(MADE)
    source.faults[path] = lambda data, _: with_flips(data, chunk.offset)
    with pytest.raises(CorruptRelease, match=r"weights\.data"):
        update(MADE, tmp_path, source)
    assert source.blamed == MOST_TRIES
    good = source_of(MADE)
    update(MADE, tmp_path, good)
    assert contents(tmp_path) == MADE.contents
    assert good.sent_bytes == chunk.stored


def test_b01_a_repository_that_is_bad_everywhere_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[stage.__module__], "MOST_BAD", 10)
    source = source_of(MADE)
    for path in MADE.packs:
        source.faults[path] = lambda data, _: bytes(len(data))
    with pytest.raises(CorruptRelease):
        update(MADE, tmp_path, source)
    assert source.blamed == 11
    assert not [data for data in contents(tmp_path).values() if data]


# --- B2: what is elsewhere, or of another length ----------------------------------------------


def swap_chunks(data: bytes) -> bytes:
    return data[1000:2000] + data[:1000] + data[2000:]


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "two chunks swapped": swap_chunks,
    "shifted by a byte": lambda data: data[1:] + b"x",
    "all zeros": lambda data: bytes(len(data)),
    "empty": lambda _: b"",
    "cut in a chunk": lambda data: data[:1500],
    "cut between two chunks": lambda data: data[:2000],
}


@pytest.mark.parametrize("change", PACKS.values(), ids=PACKS)
def test_b02_a_wrong_pack_is_found_at_the_chunk(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    source = source_of(MADE)
    source.faults[next(iter(MADE.packs))] = until_blamed(2, change)
    update(MADE, tmp_path, source)
    assert contents(tmp_path) == MADE.contents
    assert source.blamed == 2


def test_b02_two_packs_under_each_others_names_are_found(tmp_path: Path) -> None:
    one, other, *_ = MADE.packs
    source = source_of(MADE)
    source.files[one], source.files[other] = source.files[other], source.files[one]
    with pytest.raises(CorruptRelease):
        update(MADE, tmp_path, source)
    found = contents(tmp_path)
    assert all(found[path] == b"" or set(_chunks(found[path])) <= _right() for path in found)


def _chunks(data: bytes) -> list[bytes]:
    return [data[at : at + GRID] for at in range(0, len(data), GRID)]


def _right() -> set[bytes]:
    return {chunk for data in MADE.contents.values() for chunk in _chunks(data)} | {bytes(GRID)}


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data[:-1]], ids=["longer", "shorter"])
def test_b02_a_pack_of_another_length_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    source = source_of(MADE)
    path = next(iter(MADE.packs))
    source.files[path] = change(source.files[path])
    with pytest.raises(CorruptRelease):
        update(MADE, tmp_path, source)


# --- B3: differences that lie -----------------------------------------------------------------


def one_difference(new: bytes, base: bytes, raw: bytes, codec: Codec) -> tuple[Delta, dict[str, bytes]]:
    """An index that says that `raw` leads from one chunk to another."""
    name = sha256(raw)
    delta = Delta(
        format=1,
        base="tiny-1",
        release="tiny-2",
        packs=(Pack(name, len(raw)),),
        differences=(Difference(sha256(new), sha256(base), 0, 0, len(raw), codec),),
    )
    return delta, {pack_path(name): raw}


OLD_CHUNK, NEW_CHUNK = (made.contents["weights.data"][:GRID] for made in (MADE, NEXT))
DIFFERENCES: dict[str, tuple[bytes, Codec]] = {
    "one that changes nothing": (zlib.compress(bytes(GRID)), "zlib"),
    "one that changes something else": (zlib.compress(b"\x01" * GRID), "zlib"),
    "one that is too short": (zlib.compress(bytes(GRID - 1)), "zlib"),
    "one that is too long": (zlib.compress(bytes(GRID + 1)), "zlib"),
    "a bomb of zlib": (zlib.compress(bytes(900_000), 9), "zlib"),
    "a bomb of bz2": (bz2.compress(bytes(16 << 20), 9), "bz2"),
    "a bomb of xz": (lzma.compress(bytes(4 << 20), preset=0), "xz"),
    "one that cannot be unpacked": (b"hello", "bz2"),
    "raw, and far too short": (b"x", "raw"),
}


@pytest.mark.parametrize(("raw", "codec"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_b03_after_a_difference_that_lies_the_chunk_is_fetched_whole(tmp_path: Path, raw: bytes, codec: Codec) -> None:
    old = MADE.install(tmp_path / "old")
    assert len(raw) < GRID
    delta, packs = one_difference(NEW_CHUNK, OLD_CHUNK, raw, codec)
    source = source_of(NEXT, more=[packs])
    update(NEXT, tmp_path / "new", source, have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents
    assert next(iter(packs)) in {path for path, _, _ in source.asked}
    assert source.sent_bytes == len(raw) + 2 * GRID
    assert source.blamed == 0, "the difference may be wrong on every mirror"


def test_b03_a_difference_from_another_base_than_it_says(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    delta, packs = make_delta(MADE, NEXT)
    (one, *others) = delta.differences
    wrong = msgspec.structs.replace(one, base=sha256(FILES["weights.data"][5000:6000]))
    delta = msgspec.structs.replace(delta, differences=(wrong, *others))
    update(NEXT, tmp_path / "new", source_of(NEXT, more=[packs]), have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents


def test_b03_a_difference_from_a_base_of_another_length_is_not_even_fetched(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    delta, packs = one_difference(NEW_CHUNK, FILES["weights.data"][25_000:], b"x", "raw")
    source = source_of(NEXT, more=[packs])
    update(NEXT, tmp_path / "new", source, have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents
    assert not set(packs) & {path for path, _, _ in source.asked}


# --- B7, B9: the staging folder is somebody else's --------------------------------------------


def link_a_file(folder: Path, outside: Path) -> None:
    (folder / "weights.data").symlink_to(outside / "secret")


def link_a_folder(folder: Path, outside: Path) -> None:
    (folder / "sub").symlink_to(outside, target_is_directory=True)


def link_the_journal(folder: Path, outside: Path) -> None:
    (folder / ".chunks").symlink_to(outside / "secret")


def share_the_journal(folder: Path, outside: Path) -> None:
    os.link(outside / "secret", folder / ".chunks")


def share_a_file(folder: Path, outside: Path) -> None:
    os.link(outside / "secret", folder / "weights.data")


def put_a_folder_there(folder: Path, _: Path) -> None:
    put(folder, {"weights.data/x/y": b"in the way"})


def put_a_file_there(folder: Path, _: Path) -> None:
    put(folder, {"sub": b"in the way"})


def put_a_pipe_there(folder: Path, _: Path) -> None:
    os.mkfifo(folder / "weights.data")


def put_more_there(folder: Path, outside: Path) -> None:
    put(folder, {"extra.onnx": b"x", "sub/extra/deep": b"y", ".hidden": b"z"})
    (folder / "link").symlink_to(outside)


STRANGERS = {
    "b07 a link to a file": link_a_file,
    "b07 a link to a folder": link_a_folder,
    "b07 a link to elsewhere as the journal": link_the_journal,
    "b07 a second name of a file": share_a_file,
    "b07 a second name of a file as the journal": share_the_journal,
    "b07 a pipe": put_a_pipe_there,
    "b09 a folder in the way": put_a_folder_there,
    "b09 a file in the way": put_a_file_there,
    "b09 more than the release has": put_more_there,
}


@pytest.mark.parametrize("meddle", STRANGERS.values(), ids=STRANGERS)
def test_whatever_is_in_the_staging_folder_nothing_outside_changes(
    tmp_path: Path, meddle: Callable[[Path, Path], None]
) -> None:
    made = make({"weights.data": noise(5000), "sub/a": noise(300), "sub/weights.data": noise(1500, seed=2)})
    outside, folder = tmp_path / "outside", tmp_path / "staging"
    put(outside, {"secret": b"do not touch", "a": b"nor this"})
    folder.mkdir()
    meddle(folder, outside)
    update(made, folder)
    assert contents(folder) == made.contents
    assert contents(outside) == {"secret": b"do not touch", "a": b"nor this"}
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["bundle.json", ".chunks", "sub", "weights.data"])


def test_b07_a_staging_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "staging").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(CorruptRelease):
        update(MADE, tmp_path / "staging")
    assert not list((tmp_path / "outside").iterdir())


class Meddling(FakeSource):
    """Changes the staging folder while bytes come."""

    def __init__(self, made: Made, meddle: Callable[[], None]) -> None:
        super().__init__(dict(made.packs))
        self._meddle = meddle

    def blame(self) -> None:
        super().blame()
        self._meddle()


@pytest.mark.parametrize("meddle", [link_a_file, share_a_file])
def test_b07_a_file_replaced_while_it_is_written_is_not_written_through(
    tmp_path: Path, meddle: Callable[[Path, Path], None]
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "staging"
    put(outside, {"secret": b"do not touch"})

    def replace() -> None:
        (folder / "weights.data").unlink()
        meddle(folder, outside)

    source = Meddling(MADE, replace)
    path, chunk = MADE.place("weights.data", 5000)
    source.faults[path] = until_blamed(1, lambda data: with_flips(data, chunk.offset))
    with pytest.raises(Exception, match=r"weights\.data"):
        update(MADE, folder, source)
    assert contents(outside) == {"secret": b"do not touch"}
    update(MADE, folder)
    assert contents(folder) == MADE.contents


# --- B10: what is installed is damaged --------------------------------------------------------


@pytest.mark.parametrize("path", ["weights.data", "tokenizer.json"])
def test_b10_a_damaged_installed_file_is_not_reused_where_it_is_damaged(tmp_path: Path, path: str) -> None:
    """weights.data changed and is copied by chunks; tokenizer.json did not and would be linked."""
    old = MADE.install(tmp_path / "old")
    (tmp_path / "old" / path).write_bytes(with_flips(FILES[path], 1500))
    source = source_of(NEXT)
    update(NEXT, tmp_path / "new", source, have=[old])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.sent_bytes == 3 * GRID
    assert source.blamed == 0
    assert (tmp_path / "old" / path).read_bytes() == with_flips(FILES[path], 1500)


def test_b10_a_damaged_base_of_a_difference_is_not_used(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    (tmp_path / "old" / "weights.data").write_bytes(with_flips(FILES["weights.data"], 500))
    delta, packs = make_delta(MADE, NEXT)
    source = source_of(NEXT, more=[packs])
    update(NEXT, tmp_path / "new", source, have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.sent_bytes == len(next(iter(packs.values()))) + GRID
    assert source.blamed == 0


def test_b10_installed_files_that_are_gone_are_fetched(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    for path in FILES:
        (tmp_path / "old" / path).unlink()
    update(NEXT, tmp_path / "new", have=[old])
    assert contents(tmp_path / "new") == NEXT.contents


def test_b10_an_installed_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    for path, data in FILES.items():
        (tmp_path / "old" / path).unlink()
        (tmp_path / path).write_bytes(data)
        (tmp_path / "old" / path).symlink_to(tmp_path / path)
    source = source_of(NEXT)
    update(NEXT, tmp_path / "new", source, have=[old])
    assert contents(tmp_path / "new") == NEXT.contents
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_symlink()]
    assert source.sent_bytes >= FULL - GRID
