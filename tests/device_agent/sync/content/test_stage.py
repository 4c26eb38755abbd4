"""A release is put together from whatever is there, may be cut anywhere, and wastes at most one chunk per cut."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.sync.content import Have, journal, plan
from edgekit.errors import NoSpace, NotInRepository, SyncError, Unreachable
from tests.contents import (
    GRID,
    PACK_BYTES,
    After,
    FakeSource,
    contents,
    make,
    make_delta,
    noise,
    put,
    source_of,
    update,
    with_flips,
)

FILES = {
    "model.onnx": noise(2500),
    "weights.data": noise(25_300, seed=1) + bytes(3000) + b"x" * 3000,
    "sub/folder/tokenizer.json": b'{"a": 1}' * 300,
    "sub/same": noise(2500),
    "empty": b"",
}
MADE = make(FILES)
FULL = sum(map(len, MADE.packs.values()))
CHANGED = {**FILES, "weights.data": with_flips(FILES["weights.data"], 1, 12_345)}
NEXT = make(CHANGED, version="2")


def test_a_fresh_device_fetches_every_byte_once(tmp_path: Path) -> None:
    source = source_of(MADE)
    told = update(MADE, tmp_path / "new", source)
    assert contents(tmp_path / "new") == MADE.contents
    assert source.sent_bytes == FULL == told[-1]
    assert told == sorted(told)
    assert source.blamed == 0


def test_packs_are_read_in_single_ranges(tmp_path: Path) -> None:
    source = source_of(MADE)
    update(MADE, tmp_path, source)
    assert sorted(path for path, _, _ in source.asked) == sorted(MADE.packs)


def test_a_repository_of_files_will_do(tmp_path: Path) -> None:
    source = FakeSource(MADE.as_files, holds="files")
    update(MADE, tmp_path, source)
    assert contents(tmp_path) == MADE.contents


def test_bytes_between_pieces_are_skipped(tmp_path: Path) -> None:
    made = make(FILES, gap=333)
    source = source_of(made)
    update(made, tmp_path, source)
    assert contents(tmp_path) == made.contents


def test_an_update_fetches_what_changed_and_links_what_did_not(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    source = source_of(NEXT)
    told = update(NEXT, tmp_path / "new", source, have=[old])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.sent_bytes == 2 * GRID == told[-1]
    assert (tmp_path / "new" / "model.onnx").samefile(tmp_path / "old" / "model.onnx")
    assert not (tmp_path / "new" / "weights.data").samefile(tmp_path / "old" / "weights.data")
    assert contents(tmp_path / "old") == MADE.contents


def test_an_update_by_differences_fetches_little(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    delta, packs = make_delta(MADE, NEXT)
    source = source_of(NEXT, more=[packs])
    told = update(NEXT, tmp_path / "new", source, have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.sent_bytes == told[-1] < 100


def test_e06_where_there_are_no_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links on this disk")

    old = MADE.install(tmp_path / "old")
    monkeypatch.setattr(os, "link", refuse)
    source = source_of(NEXT)
    update(NEXT, tmp_path / "new", source, have=[old])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.sent_bytes == 2 * GRID


def test_a_release_that_is_all_here_needs_no_source(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    source = FakeSource({})
    assert update(MADE, tmp_path / "new", source, have=[old]) == [0]
    assert contents(tmp_path / "new") == MADE.contents
    assert source.asked == []


# --- going on ---------------------------------------------------------------------------------


def test_a_second_run_finds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    update(MADE, tmp_path)
    source = source_of(MADE)
    assert update(MADE, tmp_path, source) == [FULL]
    assert source.asked == []


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 9000), max_size=6), piece=st.integers(1, 3000), have_old=st.booleans())
def test_c01_each_cut_wastes_at_most_one_chunk(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], piece: int, have_old: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    have = [MADE.install(folder / "old")] if have_old else []
    needed = plan(NEXT.release, Have.of(have), holds="packs").cost.fetch_bytes
    source = source_of(NEXT)
    source.piece = piece
    cut_count = 0
    for cut in cuts:
        source.break_after, source.gone = cut, Unreachable("gone")
        try:
            told = update(NEXT, folder / "new", source, have=have)
        except Unreachable:
            cut_count += 1
        else:
            assert told[-1] == needed
    source.break_after = None
    told = update(NEXT, folder / "new", source, have=have)
    assert told[-1] == needed
    assert contents(folder / "new") == NEXT.contents
    assert source.sent_bytes <= needed + cut_count * GRID


def test_progress_goes_on_where_it_was(tmp_path: Path) -> None:
    source = source_of(MADE)
    source.break_after, source.gone = 5500, Unreachable("gone")
    with pytest.raises(Unreachable):
        update(MADE, tmp_path, source)
    source.break_after = None
    told = update(MADE, tmp_path, source)
    assert 0 < told[0] <= 5500
    assert told[-1] == FULL


def test_f07_it_stops_when_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    source = source_of(MADE)
    for times in range(0, 91, 9):
        with pytest.raises(SyncError, match="told to stop"):
            update(MADE, tmp_path / str(times), source, stop=After(times))
    source.sent_bytes = 0
    update(MADE, tmp_path / "90", source)
    assert contents(tmp_path / "90") == MADE.contents
    assert source.sent_bytes < FULL


def test_what_the_journal_claims_counts_only_if_it_is_there(tmp_path: Path) -> None:
    update(MADE, tmp_path)
    damaged = with_flips(FILES["weights.data"], 20_000)
    (tmp_path / "weights.data").write_bytes(damaged)
    (tmp_path / "sub/same").write_bytes(b"short")
    source = source_of(MADE)
    update(MADE, tmp_path, source)
    assert contents(tmp_path) == MADE.contents
    assert source.sent_bytes < 6 * GRID


JOURNALS = {
    "lost": None,
    "empty": b"",
    "torn": b"ab" * 20,
    "garbage": bytes(range(256)) * 40,
    "endless": b"0" * 64 * 1000,
    "one that says all is there": b"".join(f"{chunk.sha256}\n".encode() for _, _, chunk in MADE.release.chunks()),
}


@pytest.mark.parametrize("raw", JOURNALS.values(), ids=JOURNALS)
@pytest.mark.parametrize("is_half_there", [False, True])
def test_any_journal_leads_to_the_release(tmp_path: Path, raw: bytes | None, is_half_there: bool) -> None:
    if is_half_there:
        put(tmp_path, {path: data[: len(data) // 2] for path, data in FILES.items()})
    if raw is not None:
        put(tmp_path, {journal.NAME: raw})
    update(MADE, tmp_path)
    assert contents(tmp_path) == MADE.contents
    named = sorted((tmp_path / journal.NAME).read_bytes().split())
    assert named == sorted({chunk.sha256.encode() for _, _, chunk in MADE.release.chunks()})


def test_a_journal_beyond_all_reason_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(MADE, tmp_path)
    monkeypatch.setattr(journal, "_MOST_BYTES", (tmp_path / journal.NAME).stat().st_size)
    assert journal.claimed(tmp_path)
    monkeypatch.setattr(journal, "_MOST_BYTES", (tmp_path / journal.NAME).stat().st_size - 1)
    assert journal.claimed(tmp_path) is None


def test_without_a_journal_everything_is_looked_at(tmp_path: Path) -> None:
    """As after a seal that was followed by a power cut: the journal is gone, and all the files are there."""
    update(MADE, tmp_path)
    (tmp_path / journal.NAME).unlink()
    source = source_of(MADE)
    assert update(MADE, tmp_path, source) == [FULL]
    assert source.asked == []


def test_a_folder_that_was_made_read_only_is_gone_on_with(tmp_path: Path) -> None:
    """As a power cut leaves it just before a release gets its place. Root may write anywhere: modes are looked at."""
    update(MADE, tmp_path)
    (tmp_path / "sub/folder/stranger").write_bytes(b"")
    (tmp_path / "weights.data").write_bytes(with_flips(FILES["weights.data"], 5))
    for path in (*tmp_path.rglob("*"), tmp_path / "sub" / "folder"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    update(MADE, tmp_path)
    assert contents(tmp_path) == MADE.contents
    for written in ("sub", "sub/folder", "weights.data"):
        assert (tmp_path / written).stat().st_mode & 0o200, written
    assert not (tmp_path / "sub/same").stat().st_mode & 0o200, "nothing is written to it"


def test_a_journal_does_not_grow_from_run_to_run(tmp_path: Path) -> None:
    update(MADE, tmp_path)
    size = (tmp_path / journal.NAME).stat().st_size
    for _ in range(3):
        update(MADE, tmp_path)
    assert (tmp_path / journal.NAME).stat().st_size == size


def test_a_longer_file_of_an_earlier_try_begins_anew(tmp_path: Path) -> None:
    put(tmp_path, {path: data + b"more" for path, data in FILES.items()})
    update(MADE, tmp_path)
    assert contents(tmp_path) == MADE.contents


def test_a_file_that_was_linked_is_never_written_to(tmp_path: Path) -> None:
    """The old release is put away before the second run, so that its file is nowhere whole any more."""
    old = MADE.install(tmp_path / "old")
    update(MADE, tmp_path / "new", have=[old])
    damaged = with_flips(FILES["weights.data"], 5)
    (tmp_path / "old" / "weights.data").write_bytes(damaged)
    source = source_of(MADE)
    update(MADE, tmp_path / "new", source)
    assert contents(tmp_path / "new") == MADE.contents
    assert (tmp_path / "old" / "weights.data").read_bytes() == damaged


# --- space ------------------------------------------------------------------------------------


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free


def test_too_little_space_is_said_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(MADE.release.file_bytes + 99))
    source = source_of(MADE)
    with pytest.raises(NoSpace) as caught:
        update(MADE, tmp_path, source, reserve_bytes=100)
    assert (caught.value.needed_bytes, caught.value.free_bytes) == (
        MADE.release.file_bytes + 100,
        MADE.release.file_bytes + 99,
    )
    assert source.asked == []
    update(MADE, tmp_path, source, reserve_bytes=99)


def test_what_is_there_already_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(MADE, tmp_path)
    (tmp_path / "sub/same").unlink()
    needed = 2 * len(FILES["sub/same"])  # its chunks are those of model.onnx, and are written to both
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(needed - 1))
    with pytest.raises(NoSpace):
        update(MADE, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(needed))
    update(MADE, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(0))
    update(MADE, tmp_path, reserve_bytes=1 << 40)


# --- what is missing --------------------------------------------------------------------------


def test_a_missing_pack_of_differences_is_made_up_for(tmp_path: Path) -> None:
    old = MADE.install(tmp_path / "old")
    delta, _ = make_delta(MADE, NEXT)
    source = source_of(NEXT)
    update(NEXT, tmp_path / "new", source, have=[old], deltas=[delta])
    assert contents(tmp_path / "new") == NEXT.contents
    assert source.blamed == 0


def test_a_missing_pack_is_said_and_the_rest_kept(tmp_path: Path) -> None:
    source = source_of(MADE)
    missing = list(MADE.packs)[-1]
    kept = source.files.pop(missing)
    with pytest.raises(NotInRepository):
        update(MADE, tmp_path, source)
    source.files[missing] = kept
    source.sent_bytes = 0
    update(MADE, tmp_path, source)
    assert source.sent_bytes <= PACK_BYTES
