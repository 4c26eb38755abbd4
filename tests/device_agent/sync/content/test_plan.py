"""The plan takes the cheapest way to each chunk, and never asks for more than it has to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.sync.content import Have, Plan, plan
from device_agent.sync.content.plan import MOST_GAP_BYTES, Piece, Place, Stored, Target, elsewhere, first_way, merged
from device_agent.sync.records import file_path
from tests.contents import BUNDLE, GRID, Made, make, make_delta, noise, sha256, with_flips

HERE = Path("installed")
NOTHING = Have.of(())
OLD = make({"w": noise(5000), "same": noise(3000, seed=1)})
NEW = make({"w": with_flips(noise(5000), 1500), "same": noise(3000, seed=1)}, version="2")


def have(*made: Made) -> Have:
    return Have.of([one.install_record(HERE / one.release.id) for one in made])


def fetched(found: Plan) -> list[str]:
    """Digests of the chunks that are fetched."""
    needed = elsewhere(found.targets, frozenset(found.links))
    return [target.sha256 for target in needed if target.local is None]


def test_a_device_that_has_nothing_fetches_everything_once() -> None:
    found = plan(NEW.release, NOTHING, holds="packs")
    assert found.links == {}
    assert len(fetched(found)) == 9
    assert found.cost.fetch_bytes == found.cost.full_bytes == sum(map(len, NEW.packs.values()))
    assert (found.cost.reused_bytes, found.cost.delta_bytes) == (0, 0)
    assert found.needed_bytes_on_disk == NEW.release.file_bytes


def test_whole_files_are_linked_and_chunks_copied() -> None:
    found = plan(NEW.release, have(OLD), holds="packs")
    assert found.links == {path: HERE / "tiny-1" / path for path in ("same", "bundle.json")}
    assert fetched(found) == [sha256(NEW.contents["w"][1000:2000])]
    assert found.cost.fetch_bytes == GRID
    assert found.cost.reused_bytes == NEW.release.file_bytes - GRID
    assert found.needed_bytes_on_disk == 5000


def test_what_is_all_here_costs_nothing() -> None:
    found = plan(NEW.release, have(NEW), holds="packs")
    assert (found.cost.fetch_bytes, found.cost.disk_bytes) == (0, 0)
    assert found.cost.reused_bytes == NEW.release.file_bytes


def test_a_difference_is_taken_where_it_is_smaller_and_its_base_is_here() -> None:
    delta, _ = make_delta(OLD, NEW)
    found = plan(NEW.release, have(OLD), [delta], holds="packs")
    assert found.cost.fetch_bytes == found.cost.delta_bytes == delta.differences[0].stored < GRID
    (target,) = [one for one in found.targets if one.local is None]
    piece = first_way(target)
    assert piece.base is not None
    assert piece.base.local.path == HERE / "tiny-1" / "w"
    assert piece.base.local.offset == 1000


def test_a_difference_that_is_no_smaller_is_not_taken() -> None:
    other = make({"w": noise(5000, seed=7), "same": noise(3000, seed=1)}, version="2")
    delta, _ = make_delta(OLD, other)
    found = plan(other.release, have(OLD), [delta], holds="packs")
    assert found.cost.delta_bytes == 0


def test_a_difference_from_what_is_not_here_is_not_taken() -> None:
    delta, _ = make_delta(OLD, NEW)
    found = plan(NEW.release, NOTHING, [delta], holds="packs")
    assert found.cost.delta_bytes == 0


def test_the_smallest_of_several_differences_is_taken() -> None:
    near = make({"w": with_flips(noise(5000), 1500, 1501)}, version="near")
    far = make({"w": with_flips(noise(5000), *range(1000, 1900, 3))}, version="far")
    deltas = [make_delta(base, NEW)[0] for base in (far, near)]
    sizes = [next(one.stored for one in delta.differences if one.chunk == fetched_chunk()) for delta in deltas]
    assert sizes[0] > sizes[1]
    for order in (deltas, deltas[::-1]):
        assert plan(NEW.release, have(near, far), order, holds="packs").cost.delta_bytes == sizes[1]


def fetched_chunk() -> str:
    return sha256(NEW.contents["w"][1000:2000])


def test_a_chunk_that_is_there_several_times_comes_once() -> None:
    made = make({"a": b"x" * 3500, "b": b"x" * 2000})
    found = plan(made.release, NOTHING, holds="packs")
    assert [len(target.places) for target in found.targets] == [5, 1, 1]
    assert found.targets[0].places[0] == Place("a", 0)
    assert found.targets[0].places[-1] == Place("b", 1000)


def test_the_same_digest_with_two_lengths_is_two_chunks() -> None:
    """Only a wrong manifest says so. One of them will not hash to it, and is refused; neither hides the other."""
    made = make({"w": noise(1500)})
    file = made.release.files[0]
    one, other = file.chunks
    twisted = (one, type(other)(500, one.sha256, one.pack, one.offset, 500, "raw"))
    release = made.release.__class__(
        **{
            **{name: getattr(made.release, name) for name in made.release.__struct_fields__},
            "files": (file.__class__(file.path, file.size, file.sha256, twisted), *made.release.files[1:]),
        }
    )
    assert [target.size for target in plan(release, NOTHING, holds="packs").targets] == [1000, 500, len(BUNDLE)]


def test_differences_count_as_much_where_whole_files_are_held() -> None:
    delta, _ = make_delta(OLD, NEW)
    found = plan(NEW.release, have(OLD), [delta], holds="files")
    assert found.cost == plan(NEW.release, have(OLD), [delta], holds="packs").cost
    assert found.cost.fetch_bytes == found.cost.delta_bytes < 100


def test_a_repository_of_files_is_asked_for_files() -> None:
    found = plan(NEW.release, have(OLD), holds="files")
    (target,) = [one for one in found.targets if one.local is None]
    expected = Stored(file_path(NEW.release.files[0].sha256), 5000, 1000, 1000, "raw")
    assert first_way(target) == Piece(target, expected)


def test_the_same_facts_give_the_same_plan() -> None:
    delta, _ = make_delta(OLD, NEW)
    assert plan(NEW.release, have(OLD), [delta], holds="packs") == plan(NEW.release, have(OLD), [delta], holds="packs")


# --- reads ------------------------------------------------------------------------------------


def piece(path: str, start: int, length: int) -> Piece:
    stored = Stored(path, 1 << 25, start, length, "raw")
    return Piece(Target(sha256=f"{path}{start}", size=length, places=(), whole=stored), stored)


GAPS = {
    "end to end": (0, 1),
    "the largest gap": (MOST_GAP_BYTES, 1),
    "a larger gap": (MOST_GAP_BYTES + 1, 2),
    "overlapping": (-1, 2),
}


@pytest.mark.parametrize(("gap", "count"), GAPS.values(), ids=GAPS)
def test_neighbours_are_read_at_once(gap: int, count: int) -> None:
    reads = merged([piece("a", 1000 + gap, 10), piece("a", 0, 1000)])
    assert len(reads) == count
    if count == 1:
        assert (reads[0].start, reads[0].length) == (0, 1010 + gap)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 1 << 20), st.integers(1, 1 << 20)), max_size=30, unique=True
    )
)
def test_reads_hold_every_piece_once_in_order_and_waste_no_more_than_gaps(
    wanted: list[tuple[str, int, int]],
) -> None:
    pieces = [piece(*one) for one in wanted]
    reads = merged(pieces)
    assert sorted(map(id, (one for read in reads for one in read.pieces))) == sorted(map(id, pieces))
    for read in reads:
        at = read.start
        for one in read.pieces:
            assert one.stored.path == read.path
            assert 0 <= one.stored.start - at <= MOST_GAP_BYTES
            at = one.stored.end
        assert at == read.start + read.length


def test_files_come_in_the_order_in_which_they_are_asked_for() -> None:
    reads = merged([piece("b", 0, 1), piece("a", 0, 1), piece("b", 1, 1)])
    assert [read.path for read in reads] == ["b", "a"]
