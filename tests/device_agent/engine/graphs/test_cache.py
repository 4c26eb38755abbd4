"""The KV cache's size: as much as is needed, little more."""

import mmap
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.graphs.cache import FIRST_CAPACITY_TOKENS, KVCache, capacity_for, rows_for
from device_agent.engine.rows import Snapshot
from edgekit.arch import ModelArch, Rotary
from edgekit.contract import CACHE_TYPES, CacheType

ARCH = ModelArch(
    model_type="llama",
    layers=3,
    hidden=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    intermediate=8,
    vocab=10,
    context=1000,
    norm_eps=1e-5,
    rotary=Rotary(dim=4, base=10_000.0),
    activation="silu",
    tied=True,
)
FIRST = FIRST_CAPACITY_TOKENS


def filled(lengths: Mapping[int, int], kind: CacheType = "float32") -> KVCache:
    """Rows of these lengths; row r of buffer b holds 10 b + r + 1 wherever it holds a token."""
    cache = KVCache(ARCH, kind, most_rows=8)
    for row, length in lengths.items():
        cache.reserve(cache.settle([row]), length)
        cache.lengths[row] = length
        for number, buffer in enumerate(cache.buffers):
            buffer[cache.places[row], :, :length] = 10 * number + row + 1
    return cache


def holds(cache: KVCache, row: int, length: int, *, of: int | None = None) -> bool:
    """Whether a row holds `length` tokens as `filled` put them into it, or into row `of`."""
    value = 1 + (row if of is None else of)
    return cache.lengths[row] == length and all(
        (buffer[cache.places[row], :, :length] == 10 * number + value).all()
        for number, buffer in enumerate(cache.buffers)
    )


@given(st.integers(1, 1 << 20), st.data())
def test_a_capacity_holds_what_is_needed_and_never_exceeds_the_context(context: int, data: st.DataObject) -> None:
    current = data.draw(st.integers(0, context))
    needed = data.draw(st.integers(1, context))
    capacity = capacity_for(needed, current, context)
    assert max(needed, current) <= capacity <= context
    assert capacity_for(needed, capacity, context) == capacity, "once there is room, it stays"


@given(st.integers(1, 1 << 20))
def test_growing_token_by_token_copies_less_than_the_final_cache(context: int) -> None:
    capacity, copied = 0, 0
    while capacity < context:
        copied += capacity
        capacity = capacity_for(capacity + 1, capacity, context)
    assert copied <= capacity * 2


@pytest.mark.parametrize(
    ("needed", "most", "rows"), [(0, 8, 0), (1, 8, 1), (2, 8, 2), (3, 8, 4), (5, 8, 8), (8, 8, 8), (5, 6, 6), (1, 1, 1)]
)
def test_rows_come_by_doubling(needed: int, most: int, rows: int) -> None:
    assert rows_for(needed, most) == rows


def test_nothing_is_taken_before_it_is_needed() -> None:
    cache = KVCache(ARCH, most_rows=8)
    assert cache.buffers == []
    assert cache.lengths == [0] * 8
    cache.reserve(1, 1)
    assert [buffer.shape for buffer in cache.buffers] == [(1, 1, FIRST, 4)] * 6


def test_buffers_are_new_only_when_there_is_no_room() -> None:
    cache = KVCache(ARCH, most_rows=8)
    cache.reserve(1, 1)
    before = cache.buffers
    cache.reserve(1, FIRST)
    assert cache.buffers is before
    cache.reserve(1, FIRST + 1)
    assert cache.capacity == 2 * FIRST
    cache.reserve(3, 900)
    assert (cache.rows, cache.capacity) == (4, ARCH.context)
    cache.reserve(1, 1)
    assert (cache.rows, cache.capacity) == (4, ARCH.context), "what another row needs stays"


@pytest.mark.parametrize("kind", CACHE_TYPES)
@pytest.mark.parametrize(("rows", "tokens"), [(3, 300), (8, 1), (1, 1000)])
def test_growth_keeps_the_values_and_only_those(kind: CacheType, rows: int, tokens: int) -> None:
    cache = filled({0: 7, 2: 200}, kind)
    for buffer in cache.buffers:
        buffer[cache.places[0], :, 7:] = 99  # forgotten tokens
    cache.reserve(rows, tokens)
    assert holds(cache, 0, 7)
    assert holds(cache, 2, 200)
    for buffer in cache.buffers:
        assert buffer.dtype == kind
        assert np.count_nonzero(buffer) == (7 + 200) * ARCH.head_dim


def test_without_memory_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled({0: 7})
    before, mapped, granted = cache.buffers, mmap.mmap, iter(range(3))

    def refuse(fileno: int, length: int, *, flags: int) -> mmap.mmap:
        if next(granted, None) is None:  # not the first of them: some are there already
            raise OSError("cannot allocate memory")
        return mapped(fileno, length, flags=flags)

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(MemoryError):
        cache.reserve(1, 500)
    assert cache.buffers is before
    assert cache.capacity == FIRST
    assert holds(cache, 0, 7)


def test_shrinking_keeps_what_is_cached() -> None:
    cache = filled({0: 7, 2: 300, 7: 900})
    assert (cache.rows, cache.capacity) == (4, ARCH.context)
    cache.shrink()
    assert (cache.rows, cache.capacity) == (4, 900)
    cache.truncate(7, 0)
    cache.shrink()
    assert (cache.rows, cache.capacity) == (2, 300)
    assert holds(cache, 0, 7)
    assert holds(cache, 2, 300)
    cache.truncate(0, 0)
    cache.shrink()
    assert (cache.rows, cache.capacity) == (1, 300)
    assert holds(cache, 2, 300)
    assert sorted(cache.places) == list(range(8))
    cache.truncate(2, 9)
    cache.shrink()
    assert (cache.rows, cache.capacity) == (1, FIRST)
    assert holds(cache, 2, 9)


def test_shrinking_an_empty_cache_leaves_nothing_and_it_can_grow_again() -> None:
    cache = filled({0: 7, 3: 300})
    cache.truncate(0, 0)
    cache.truncate(3, 0)
    cache.shrink()
    assert (cache.buffers, cache.rows, cache.capacity) == ([], 0, 0)
    cache.reserve(2, 3)
    assert (cache.rows, cache.capacity) == (2, FIRST)


@pytest.mark.parametrize("length", [-1, 8])
def test_only_what_is_there_can_be_kept_or_copied(length: int) -> None:
    cache = filled({0: 7})
    with pytest.raises(ValueError, match="7"):
        cache.truncate(0, length)
    with pytest.raises(ValueError, match="7"):
        cache.snapshot(0, length)
    assert cache.lengths[0] == 7


@pytest.mark.parametrize("kind", CACHE_TYPES)
@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_snapshot_outlives_its_row(kind: CacheType, length: int) -> None:
    cache = filled({0: 7, 1: 9}, kind)
    taken = cache.snapshot(0, length)
    for buffer in cache.buffers:
        buffer[cache.places[0]] = 99
    cache.restore(1, taken)
    assert holds(cache, 1, length, of=0)
    assert taken.nbytes == length * cache.bytes_per_token


def test_an_empty_snapshot_needs_no_buffers() -> None:
    cache = KVCache(ARCH, most_rows=2)
    taken = cache.snapshot(0, 0)
    cache.restore(1, taken)
    assert (cache.buffers, cache.lengths) == ([], [0, 0])


def test_snapshots_of_other_caches_are_refused() -> None:
    cache = filled({0: 7})
    good = cache.snapshot(0, 5)
    others = {
        "fewer layers": Snapshot(5, good.arrays[:-2]),
        "another length": Snapshot(4, good.arrays),
        "another type": Snapshot(5, tuple(array.astype(np.int8) for array in good.arrays)),
        "other heads": Snapshot(5, tuple(array.repeat(2, axis=0) for array in good.arrays)),
        "beyond the context": Snapshot(1001, (np.zeros((1, 1001, 4), np.float32),) * 6),
        "a negative length": Snapshot(-1, good.arrays),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match="this model's cache"):
            cache.restore(0, other)
        assert holds(cache, 0, 7), name


def test_an_empty_row_takes_the_first_free_place() -> None:
    cache = filled({6: 7, 3: 9})
    assert [cache.places[row] for row in (6, 3)] == [0, 1]
    assert cache.rows == 2
    cache.truncate(6, 0)
    assert cache.settle([5]) == 1
    assert cache.settle([3]) == 2, "what holds tokens stays"
    assert cache.settle([0, 1, 2]) == 4, "those that come together do not take each other's"
    assert sorted(cache.places) == list(range(8))
    assert holds(cache, 3, 9)


GATHERED = {
    "neighbours": (0, 1),
    "neighbours in another order": (3, 2),
    "all": (0, 1, 2, 3),
    "one": (2,),
    "with one between": (2, 0),
    "far ones": (0, 3),
    "with a gap": (0, 1, 3),
}


@pytest.mark.parametrize("name", GATHERED)
def test_rows_that_are_wanted_together_become_neighbours(name: str) -> None:
    wanted = GATHERED[name]
    lengths = {0: 50, 1: 7, 2: 90, 3: 200}
    cache = filled(lengths)
    first = cache.gather(wanted)
    assert sorted(cache.places[row] for row in wanted) == list(range(first, first + len(wanted)))
    assert sorted(cache.places) == list(range(8))
    for row in range(4):
        assert holds(cache, row, lengths[row])


@pytest.mark.parametrize(
    ("lengths", "wanted", "moved"),
    [
        ({0: 50, 1: 7, 2: 90}, (0, 2), {0}),  # the fourth place is free
        ({0: 90, 1: 7, 2: 50}, (0, 2), {1, 2}),
        ({0: 9, 1: 500, 2: 9, 3: 8}, (0, 2, 3), {1, 3}),
        ({0: 300, 1: 9, 2: 90, 3: 600}, (0, 3), {0, 2}),
        ({0: 50, 1: 60}, (0, 1), set()),
    ],
)
def test_few_tokens_are_moved(lengths: dict[int, int], wanted: tuple[int, ...], moved: set[int]) -> None:
    cache = filled(lengths)
    before = list(cache.places)
    cache.gather(wanted)
    assert {row for row in lengths if cache.places[row] != before[row]} == moved
    for row, length in lengths.items():
        assert holds(cache, row, length)


def test_an_int8_cache_takes_a_quarter() -> None:
    floats, codes = (filled({0: 1}, kind) for kind in CACHE_TYPES)
    assert sum(buffer.nbytes for buffer in floats.buffers) == FIRST * ARCH.kv_values_per_token * 4
    assert floats.bytes_per_token == 4 * codes.bytes_per_token == ARCH.kv_values_per_token * 4
    assert sum(buffer.nbytes for buffer in codes.buffers) * 4 == sum(buffer.nbytes for buffer in floats.buffers)
