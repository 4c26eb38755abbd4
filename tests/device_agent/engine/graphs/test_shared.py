"""Rows over a real graph: however tokens are fed, and whoever is beside them, the logits are the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_agent.engine.graphs.cache import FIRST_CAPACITY_TOKENS as FIRST
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Snapshot
from edgekit.bundle import open_bundle
from edgekit.errors import BundleError
from tests.device_agent.bundles import CONTEXT, VOCAB, copy_to, set_fields
from tests.device_agent.engine.real import IDS, Same, emptied, opened

# --- one row --------------------------------------------------------------------------------


def test_nothing_is_taken_before_it_is_needed(rows: OnnxRows) -> None:
    assert rows.cache.buffers == []
    rows.read(0, [1])
    assert {buffer.shape[0] for buffer in rows.cache.buffers} == {1}
    assert {buffer.shape[2] for buffer in rows.cache.buffers} == {FIRST}


@pytest.mark.parametrize("keep", [0, 1, 2, 17, 33, 40])  # 33 and 40 are more than the buffer that stays
def test_logits_are_those_of_the_last_tokens(rows: OnnxRows, fresh: OnnxRows, same: Same, keep: int) -> None:
    found = rows.read(0, IDS[:40], keep=keep).copy()
    assert found.shape == (keep, VOCAB)
    assert rows.length(0) == 40
    if keep < 40:
        fresh.read(0, IDS[: 40 - keep], keep=0)
    for at, token in enumerate(IDS[40 - keep : 40]):
        same(found[at : at + 1], fresh.decode({0: token}))
    same(rows.decode({0: 5}).copy(), fresh.decode({0: 5}))


def test_growth_changes_no_logit(rows: OnnxRows, fresh: OnnxRows) -> None:
    fresh.cache.reserve(1, CONTEXT)
    fresh._ones = np.ones((1, CONTEXT), np.int64)
    for start in range(0, 1100, 110):  # past 256, 512 and 1,024
        grown = rows.read(0, IDS[start : start + 110]).copy()
        assert np.array_equal(grown, fresh.read(0, IDS[start : start + 110]))
    assert rows.cache.capacity == CONTEXT


@pytest.mark.parametrize("sizes", [(1, 39), (39, 1), (20, 20), (1,) * 40, (7, 13, 1, 1, 18)])
def test_a_prompt_in_chunks_gives_the_logits_of_one_pass(
    rows: OnnxRows, fresh: OnnxRows, same: Same, sizes: tuple[int, ...]
) -> None:
    whole = fresh.read(0, IDS[:40]).copy()
    *_, last = (rows.read(0, IDS[rows.length(0) : rows.length(0) + size]) for size in sizes)
    same(last, whole)


def test_a_text_said_to_be_longer_is_read_the_same_where_length_does_not_matter(
    rows: OnnxRows, fresh: OnnxRows, same: Same
) -> None:
    for start, stop in ((0, 20), (20, 21), (21, 300)):  # 400 tokens are more than the buffers hold at first
        wide = rows.read(0, IDS[start:stop], width=400).copy()
        same(wide, fresh.read(0, IDS[start:stop]))
        assert rows.length(0) == stop


def test_truncating_and_going_on_equals_a_fresh_run(rows: OnnxRows, fresh: OnnxRows) -> None:
    rows.read(0, IDS[:300])
    rows.truncate(0, 10)
    again = rows.read(0, IDS[100:120]).copy()
    fresh.read(0, IDS[:300])
    fresh.truncate(0, 0)
    fresh.read(0, IDS[:10])
    assert np.array_equal(again, fresh.read(0, IDS[100:120]))


def test_every_token_matters(rows: OnnxRows) -> None:
    first = rows.read(0, IDS[:20]).copy()
    rows.truncate(0, 0)
    assert not np.array_equal(rows.read(0, [IDS[0] + 1, *IDS[1:20]]), first)


def test_the_context_can_be_filled_and_not_overrun(rows: OnnxRows) -> None:
    rows.read(3, IDS)
    assert rows.cache.capacity == CONTEXT
    for ids in ({3: 1}, {0: 1, 3: 1}):
        with pytest.raises(ValueError, match="do not fit"):
            rows.decode(ids)
    assert [rows.length(row) for row in range(4)] == [0, 0, 0, CONTEXT]


# --- what is refused ------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[OnnxRows], object], str]] = {
    "no tokens": (lambda rows: rows.read(0, []), "do not fit"),
    "no rows": (lambda rows: rows.decode({}), "no rows"),
    "a negative id": (lambda rows: rows.read(0, [1, -1]), "token ids"),
    "an id beyond the vocabulary": (lambda rows: rows.read(0, [VOCAB]), "token ids"),
    "a huge id": (lambda rows: rows.decode({0: 1 << 40}), "token ids"),
    "one bad id of several rows": (lambda rows: rows.decode({0: 1, 1: VOCAB}), "token ids"),
    "more logits than tokens": (lambda rows: rows.read(0, [1, 2], keep=3), "no logits"),
    "fewer than no logits": (lambda rows: rows.read(0, [1, 2], keep=-1), "no logits"),
    "a row too many": (lambda rows: rows.read(8, [1]), "rows go from 0 to 7"),
    "a row before the first": (lambda rows: rows.decode({-1: 1, 0: 1}), "rows go from 0 to 7"),
    "the length of no row": (lambda rows: rows.length(8), "rows go from 0 to 7"),
    "truncating no row": (lambda rows: rows.truncate(-1, 0), "rows go from 0 to 7"),
    "a copy of no row": (lambda rows: rows.snapshot(8, 0), "rows go from 0 to 7"),
    "keeping what is not there": (lambda rows: rows.truncate(0, 6), "cannot keep"),
    "a copy of what is not there": (lambda rows: rows.snapshot(0, 6), "has 5 tokens"),
    "a copy of something else": (lambda rows: rows.restore(0, Snapshot(1, ())), "this model's cache"),
    "a copy into no row": (lambda rows: rows.restore(8, rows.snapshot(0, 1)), "rows go from 0 to 7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(rows: OnnxRows, fresh: OnnxRows, name: str) -> None:
    call, words = REFUSED[name]
    rows.read(0, IDS[:5])
    fresh.read(0, IDS[:5])
    with pytest.raises(ValueError, match=words):
        call(rows)
    assert [rows.length(row) for row in range(8)] == [5, 0, 0, 0, 0, 0, 0, 0]
    assert np.array_equal(rows.decode({0: 9}), fresh.decode({0: 9}))


def test_a_failing_call_is_a_bundle_error_and_appends_nothing(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    set_fields(arch__context=1 << 20)(folder)  # more positions than the graph has rotations for
    rows, fresh = (opened(open_bundle(folder)) for _ in range(2))
    for each in (rows, fresh):
        each.read(0, IDS[:5])
        each.read(1, IDS[:7])
        each.read(2, IDS[:9])
    with pytest.raises(BundleError, match="cannot compute"):
        rows.read(0, IDS)
    rows.cache.reserve(3, CONTEXT + 9)
    rows.cache.lengths[2] = CONTEXT + 5  # as if it had been read
    with pytest.raises(BundleError, match="cannot compute"):
        rows.decode({0: 1, 2: 1})
    assert rows.cache.lengths[:3] == [5, 7, CONTEXT + 5]
    rows.truncate(2, 9)
    assert np.array_equal(rows.decode({0: 1, 1: 2, 2: 3}), fresh.decode({0: 1, 1: 2, 2: 3}))


# --- rows together --------------------------------------------------------------------------

TOGETHER: dict[str, tuple[dict[int, int], tuple[int, ...]]] = {
    "neighbours": ({0: 10, 1: 300}, (0, 1)),
    "of equal length": ({0: 10, 1: 10, 2: 10}, (0, 1, 2)),
    "in another order": ({0: 10, 1: 300, 2: 77}, (2, 0, 1)),
    "with a gap": ({0: 10, 2: 77}, (0, 2)),
    "with others in between": ({0: 10, 1: 300, 2: 77, 3: 5, 4: 40}, (0, 4)),
    "far from the first": ({5: 40, 7: 3}, (7, 5)),
    "new ones and old ones": ({1: 20}, (0, 1, 2)),
    "all new": ({}, (0, 1)),
    "beside a full one": ({0: 10, 1: CONTEXT, 2: 77}, (0, 2)),
    "at the capacity": ({0: FIRST, 1: FIRST, 2: FIRST - 1}, (0, 2)),
    "all": ({row: 30 * row + 1 for row in range(8)}, tuple(range(8))),
}


def text_of(row: int, length: int) -> list[int]:
    return [(token + 31 * row) % VOCAB for token in IDS[:length]]


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_decode_together_are_each_as_alone(rows: OnnxRows, fresh: OnnxRows, same: Same, name: str) -> None:
    lengths, decoded = TOGETHER[name]
    for row, length in lengths.items():
        rows.read(row, text_of(row, length), keep=0)
    for step in range(3):
        found = rows.decode({row: 7 * row + step for row in decoded}).copy()
        assert found.shape == (len(decoded), VOCAB)
        for at, row in enumerate(decoded):
            fresh.truncate(0, 0)
            ids = [*text_of(row, lengths.get(row, 0)), *(7 * row + before for before in range(step + 1))]
            same(found[at : at + 1], fresh.read(0, ids))
    for row in range(8):
        expected = lengths.get(row, 0) + (3 if row in decoded else 0)
        assert rows.length(row) == expected
    for row in lengths.keys() - set(decoded):  # those that were only in between lost nothing
        if lengths[row] < CONTEXT:
            fresh.truncate(0, 0)
            same(rows.decode({row: 5}).copy(), fresh.read(0, [*text_of(row, lengths[row]), 5]))
        else:
            rows.truncate(row, 10)
            fresh.truncate(0, 0)
            same(rows.read(row, [5]).copy(), fresh.read(0, [*text_of(row, 10), 5]))


def test_who_is_beside_a_row_changes_no_bit_of_it(rows: OnnxRows) -> None:
    for row in range(3):
        rows.read(row, text_of(row, 40 * row + 3))
    first = rows.decode({0: 5, 1: 6, 2: 7})[1].copy()
    rows.truncate(1, 43)
    rows.truncate(0, 0)
    rows.read(0, IDS[500:900])
    rows.read(2, IDS[:600])
    assert np.array_equal(rows.decode({0: 9, 1: 6, 2: 1})[1], first)


@pytest.mark.parametrize("length", [0, 1, 300])
def test_a_snapshot_goes_on_in_any_row(rows: OnnxRows, fresh: OnnxRows, length: int) -> None:
    rows.read(1, IDS[:300])
    taken = rows.snapshot(1, length)
    emptied(rows)
    rows.read(3, IDS[500:1000])
    rows.restore(3, taken)
    assert rows.length(3) == length
    fresh.read(0, IDS[:300])
    fresh.truncate(0, length)
    assert np.array_equal(rows.read(3, IDS[50:60]), fresh.read(0, IDS[50:60]))


def test_shrinking_between_steps_changes_nothing(rows: OnnxRows, fresh: OnnxRows) -> None:
    for each in (rows, fresh):
        each.read(0, IDS[:40])
        each.read(1, IDS[:50])
        each.read(6, IDS[:1500])
        each.truncate(6, 0)
    rows.shrink()
    assert (rows.cache.rows, rows.cache.capacity) == (2, FIRST)
    assert np.array_equal(rows.decode({0: 5, 1: 6}), fresh.decode({0: 5, 1: 6}))
    emptied(rows)
    assert rows.cache.buffers == []
    assert rows.read(6, [1]).shape == (1, VOCAB)
