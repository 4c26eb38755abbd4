"""What is cached belongs to one kind of text, short or long: crossing the limit reads it again."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from device_agent.engine.graphs.longrope import CHUNK_TOKENS, LongropeRows
from device_agent.engine.graphs.prompt_graph import PromptGraph
from device_agent.engine.rows import Floats, Lora, Snapshot

LIMIT = 2 * CHUNK_TOKENS + 3
IDS = list(range(3 * CHUNK_TOKENS))


class Recorded:
    """Rows whose cache is the list of ids, each with whether the text was said to be long when it was read.

    The logits [2] of a token are its place in the text and its id.
    """

    context_tokens = len(IDS)
    most_rows = 8
    bytes_per_token = 12

    def __init__(self) -> None:
        self.cache: list[tuple[int, bool]] = []
        self.largest = 0
        self.unkept = 0
        self.fails = False
        self.attached: list[PromptGraph | None] = []
        self.shrunk = 0
        self.lora: Lora | None = None

    def length(self, row: int) -> int:
        assert row == 0
        return len(self.cache)

    def adapt(self, row: int, lora: Lora | None) -> None:
        assert row == 0
        self.lora = lora

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1, width: int = 0) -> Floats:
        assert row == 0
        if self.fails:
            raise ValueError("no")
        self.largest = max(self.largest, len(ids))
        self.unkept += keep == 0
        is_long = max(len(self.cache) + len(ids), width) > LIMIT
        self.cache += [(token, is_long) for token in ids]
        places = range(len(self.cache) - keep, len(self.cache))
        return np.array([[place + 1, self.cache[place][0]] for place in places], np.float32).reshape(keep, 2)

    def decode(self, ids: Mapping[int, int]) -> Floats:
        raise AssertionError("a step has no width")

    def truncate(self, row: int, length: int) -> None:
        assert row == 0
        del self.cache[length:]

    def snapshot(self, row: int, length: int) -> Snapshot:
        assert row == 0
        return Snapshot(length, (np.array(self.cache[:length], np.int32),))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        assert row == 0
        (cached,) = snapshot.arrays
        self.cache = [(int(token), bool(is_long)) for token, is_long in cached]

    def shrink(self) -> None:
        self.shrunk += 1

    def attach(self, prompt: PromptGraph | None) -> None:
        self.attached.append(prompt)


@pytest.fixture
def inner() -> Recorded:
    return Recorded()


@pytest.fixture
def rows(inner: Recorded) -> LongropeRows:
    return LongropeRows(inner, LIMIT)


def read(rows: LongropeRows, start: int, stop: int, size: int = CHUNK_TOKENS) -> float:
    return [float(rows.read(0, IDS[at : min(at + size, stop)])[0, 0]) for at in range(start, stop, size)][-1]


def test_up_to_the_limit_nothing_is_read_twice(rows: LongropeRows, inner: Recorded) -> None:
    assert read(rows, 0, LIMIT) == LIMIT
    assert inner.cache == [(token, False) for token in IDS[:LIMIT]]
    assert rows.length(0) == LIMIT
    assert rows.context_tokens == len(IDS)


def test_one_token_more_and_all_are_read_as_a_long_text_in_pieces(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, LIMIT)
    assert rows.decode({0: LIMIT}).tolist() == [[LIMIT + 1, LIMIT]]
    assert inner.cache == [(token, True) for token in IDS[: LIMIT + 1]]
    assert inner.largest <= CHUNK_TOKENS
    assert inner.unkept == 3, "nobody wants logits of what is read again"


def test_a_long_text_goes_on_without_reading_again(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, LIMIT + 1)
    inner.cache[0] = (-1, True)
    read(rows, LIMIT + 1, LIMIT + 9, 1)
    assert inner.cache[0] == (-1, True)
    assert inner.cache[1:] == [(token, True) for token in IDS[1 : LIMIT + 9]]


def test_a_text_that_became_short_again_is_read_as_such(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, LIMIT + 1)
    rows.truncate(0, 5)
    assert read(rows, 5, 7) == 7
    assert inner.cache == [(token, False) for token in IDS[:7]]


def test_a_new_text_starts_from_nothing(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, LIMIT + 1)
    rows.truncate(0, 0)
    read(rows, 10, 20)
    assert inner.cache == [(token, False) for token in IDS[10:20]]


def test_logits_of_several_tokens_are_handed_on(rows: LongropeRows) -> None:
    assert rows.read(0, IDS[10:15], keep=3).tolist() == [[3, 12], [4, 13], [5, 14]]
    assert rows.read(0, IDS[:2], keep=0).shape == (0, 2)


@pytest.mark.parametrize("taken", [5, LIMIT, LIMIT + 9])
@pytest.mark.parametrize("then", [7, LIMIT + 20])
def test_a_snapshot_goes_on_as_the_text_that_it_was(rows: LongropeRows, inner: Recorded, taken: int, then: int) -> None:
    read(rows, 0, taken)
    snapshot = rows.snapshot(0, min(taken, 6))
    rows.truncate(0, 0)
    read(rows, 30, 30 + then)  # another text, short or long
    rows.restore(0, snapshot)
    at = rows.length(0)
    assert at == snapshot.length
    assert inner.cache == [(token, taken > LIMIT) for token in IDS[:at]]
    read(rows, at, at + 1)
    assert inner.cache == [(token, False) for token in IDS[: at + 1]]
    read(rows, at + 1, LIMIT + 5)
    assert inner.cache == [(token, True) for token in IDS[: LIMIT + 5]]


def test_a_snapshot_without_its_ids_is_refused(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, 9)
    good = rows.snapshot(0, 5)
    for bad in (good.arrays[:-1], (*good.arrays[:-1], good.arrays[-1][1:]), ()):
        with pytest.raises(ValueError, match="not the ids"):
            rows.restore(0, Snapshot(5, bad))
    assert inner.cache == [(token, False) for token in IDS[:9]]


def test_there_is_one_row(rows: LongropeRows) -> None:
    taken = rows.snapshot(0, 0)
    calls: Sequence[Callable[[], object]] = (
        lambda: rows.length(1),
        lambda: rows.read(1, [1]),
        lambda: rows.decode({1: 1}),
        lambda: rows.decode({0: 1, 1: 1}),
        lambda: rows.truncate(1, 0),
        lambda: rows.snapshot(1, 0),
        lambda: rows.restore(1, taken),
    )
    assert rows.most_rows == 1
    for call in calls:
        with pytest.raises(ValueError, match="one row"):
            call()


def test_the_rest_is_that_of_the_rows_below(rows: LongropeRows, inner: Recorded) -> None:
    rows.shrink()
    rows.attach(None)
    assert (inner.shrunk, inner.attached, rows.bytes_per_token) == (1, [None], inner.bytes_per_token)


def test_after_a_failure_only_what_is_cached_counts(rows: LongropeRows, inner: Recorded) -> None:
    read(rows, 0, LIMIT)
    inner.fails = True
    with pytest.raises(ValueError, match="no"):
        rows.read(0, IDS[:1])
    inner.fails = False
    assert rows.length(0) == 0
    read(rows, 3, 8)
    assert inner.cache == [(token, False) for token in IDS[3:8]]
