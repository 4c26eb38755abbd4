"""A row whose cache grows by copying: fed rightly, whatever inputs its graph has."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent.engine.graphs.concat import ConcatRows
from device_agent.engine.rows import Snapshot
from tests.device_agent.engine.graphs.test_signature import ARCH


class CountingGraph:
    """Implements concat.GrowingGraph: remembers what it was fed; the logit of each kept position's id is 1."""

    def __init__(self, *optional: str, fails: bool = False) -> None:
        self.inputs = frozenset({"input_ids", "attention_mask", *optional})
        self.feeds: list[Mapping[str, NDArray[np.int64]]] = []
        self.copied: list[int] = []
        self.had: Sequence[NDArray[np.generic]] = ()
        self.fails = fails

    def append(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("no memory")
        self.feeds.append(feeds)
        ids = feeds["input_ids"][:, -int(feeds["logits_to_keep"]) if "logits_to_keep" in feeds else 0 :]
        return np.eye(ARCH.vocab, dtype=np.float32)[ids]

    def cached(self, length: int) -> tuple[NDArray[np.generic], ...]:
        self.copied.append(length)
        return cache_of(length)

    def put(self, arrays: Sequence[NDArray[np.generic]]) -> None:
        self.had = arrays


def cache_of(length: int) -> tuple[NDArray[np.generic], ...]:
    return (np.full((ARCH.kv_heads, length, ARCH.head_dim), length, np.float32),) * (2 * ARCH.layers)


ALL = ("position_ids", "logits_to_keep")
SUBSETS = pytest.mark.parametrize("optional", [(), ("position_ids",), ("logits_to_keep",), ALL])


@SUBSETS
@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_logits_are_those_of_the_last_tokens(optional: tuple[str, ...], keep: int) -> None:
    graph = CountingGraph(*optional)
    rows = ConcatRows(graph, ARCH)
    logits = rows.read(0, [7, 8, 9], keep=keep)
    assert logits.shape == (keep, ARCH.vocab)
    assert logits.argmax(axis=1).tolist() == [7, 8, 9][3 - keep :]
    assert rows.length(0) == 3
    assert set(graph.feeds[0]) == {"input_ids", "attention_mask", *optional}


def test_mask_and_positions_go_on_after_the_cache() -> None:
    graph = CountingGraph(*ALL)
    rows = ConcatRows(graph, ARCH)
    rows.read(0, [7, 8, 9])
    assert rows.decode({0: 4}).argmax() == 4
    rows.read(0, [5, 6])
    assert [feed["attention_mask"].shape for feed in graph.feeds] == [(1, 3), (1, 4), (1, 6)]
    assert all(feed["attention_mask"].all() for feed in graph.feeds)
    assert [feed["position_ids"].tolist() for feed in graph.feeds] == [[[0, 1, 2]], [[3]], [[4, 5]]]


def test_forgetting_reaches_the_cache_and_positions_go_on_from_there() -> None:
    graph = CountingGraph(*ALL)
    rows = ConcatRows(graph, ARCH)
    rows.read(0, [7, 8, 9])
    rows.truncate(0, 3)
    assert graph.copied == []
    rows.truncate(0, 1)
    rows.read(0, [2])
    assert graph.copied == [1]
    assert graph.had[0].shape == (ARCH.kv_heads, 1, ARCH.head_dim)
    assert graph.feeds[-1]["position_ids"].tolist() == [[1]]


def test_a_snapshot_is_what_the_graph_gives_and_gets() -> None:
    graph = CountingGraph(*ALL)
    rows = ConcatRows(graph, ARCH)
    rows.read(0, [7, 8, 9])
    taken = rows.snapshot(0, 2)
    assert (taken.length, graph.copied) == (2, [2])
    assert taken.nbytes == 2 * rows.bytes_per_token
    rows.restore(0, taken)
    assert rows.length(0) == 2
    assert graph.had is taken.arrays


def test_a_snapshot_of_another_model_changes_nothing() -> None:
    graph = CountingGraph()
    rows = ConcatRows(graph, ARCH)
    rows.read(0, [7, 8, 9])
    with pytest.raises(ValueError, match="this model's cache"):
        rows.restore(0, Snapshot(2, cache_of(2)[:-1]))
    assert rows.length(0) == 3
    assert graph.had == ()


@pytest.mark.parametrize("length", [-1, 4])
def test_only_what_is_there_can_be_kept(length: int) -> None:
    rows = ConcatRows(CountingGraph(), ARCH)
    rows.read(0, [7, 8, 9])
    with pytest.raises(ValueError, match="3 tokens"):
        rows.truncate(0, length)
    with pytest.raises(ValueError, match="3 tokens"):
        rows.snapshot(0, length)


def test_there_is_one_row() -> None:
    rows = ConcatRows(CountingGraph(), ARCH)
    assert rows.most_rows == 1
    taken = rows.snapshot(0, 0)
    for call in (
        lambda: rows.length(1),
        lambda: rows.read(1, [1]),
        lambda: rows.decode({1: 1}),
        lambda: rows.decode({0: 1, 1: 1}),
        lambda: rows.decode({}),
        lambda: rows.truncate(1, 0),
        lambda: rows.snapshot(1, 0),
        lambda: rows.restore(1, taken),
    ):
        with pytest.raises(ValueError, match="one row"):
            call()
    rows.shrink()
    assert rows.length(0) == 0


@pytest.mark.parametrize("ids", [[], [1] * 129, [-1], [ARCH.vocab]])
def test_what_cannot_be_read_never_reaches_the_graph(ids: list[int]) -> None:
    graph = CountingGraph()
    rows = ConcatRows(graph, ARCH)
    assert rows.context_tokens == 128
    with pytest.raises(ValueError, match=r"do not fit|token ids"):
        rows.read(0, ids)
    assert graph.feeds == []
    assert rows.length(0) == 0


@pytest.mark.parametrize("keep", [-1, 3])
def test_there_are_no_logits_of_tokens_that_are_not_read(keep: int) -> None:
    graph = CountingGraph()
    with pytest.raises(ValueError, match="no logits"):
        ConcatRows(graph, ARCH).read(0, [1, 2], keep=keep)
    assert graph.feeds == []


def test_a_failing_call_appends_nothing() -> None:
    graph = CountingGraph()
    rows = ConcatRows(graph, ARCH)
    rows.read(0, [1, 2])
    graph.fails = True
    with pytest.raises(RuntimeError):
        rows.read(0, [3])
    assert rows.length(0) == 2
