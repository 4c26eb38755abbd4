"""A decoder whose cache grows by copying: fed rightly, whatever inputs its graph has."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent.engine.concat import ConcatDecoder
from tests.device_agent.engine.test_signature import ARCH


class CountingGraph:
    """Implements concat.GrowingGraph: remembers what it was fed; the logit of each kept position's id is 1."""

    def __init__(self, *optional: str, fails: bool = False) -> None:
        self.inputs = frozenset({"input_ids", "attention_mask", *optional})
        self.feeds: list[Mapping[str, NDArray[np.int64]]] = []
        self.truncated: list[int] = []
        self.fails = fails

    def append(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("no memory")
        self.feeds.append(feeds)
        ids = feeds["input_ids"][:, -int(feeds["logits_to_keep"]) if "logits_to_keep" in feeds else 0 :]
        return np.eye(ARCH.vocab, dtype=np.float32)[ids]

    def truncate(self, length: int) -> None:
        self.truncated.append(length)


ALL = ("position_ids", "logits_to_keep")


@pytest.mark.parametrize("optional", [(), ("position_ids",), ("logits_to_keep",), ALL])
def test_logits_are_those_of_the_last_token(optional: tuple[str, ...]) -> None:
    graph = CountingGraph(*optional)
    decoder = ConcatDecoder(graph, ARCH)
    assert int(decoder.step([7, 8, 9]).argmax()) == 9
    assert decoder.length == 3
    assert set(graph.feeds[0]) == {"input_ids", "attention_mask", *optional}


def test_mask_and_positions_go_on_after_the_cache() -> None:
    graph = CountingGraph(*ALL)
    decoder = ConcatDecoder(graph, ARCH)
    decoder.step([7, 8, 9])
    decoder.step([4])
    decoder.step([5, 6])
    assert [feed["attention_mask"].shape for feed in graph.feeds] == [(1, 3), (1, 4), (1, 6)]
    assert all(feed["attention_mask"].all() for feed in graph.feeds)
    assert [feed["position_ids"].tolist() for feed in graph.feeds] == [[[0, 1, 2]], [[3]], [[4, 5]]]


def test_forgetting_reaches_the_cache_and_positions_go_on_from_there() -> None:
    graph = CountingGraph(*ALL)
    decoder = ConcatDecoder(graph, ARCH)
    decoder.step([7, 8, 9])
    decoder.truncate(3)
    assert graph.truncated == []
    decoder.truncate(1)
    decoder.step([2])
    assert graph.truncated == [1]
    assert graph.feeds[-1]["position_ids"].tolist() == [[1]]


@pytest.mark.parametrize("length", [-1, 4])
def test_only_what_is_there_can_be_kept(length: int) -> None:
    decoder = ConcatDecoder(CountingGraph(), ARCH)
    decoder.step([7, 8, 9])
    with pytest.raises(ValueError, match="cannot keep"):
        decoder.truncate(length)


@pytest.mark.parametrize("ids", [[], [1] * 129, [-1], [ARCH.vocab]])
def test_what_cannot_be_read_never_reaches_the_graph(ids: list[int]) -> None:
    graph = CountingGraph()
    decoder = ConcatDecoder(graph, ARCH)
    assert decoder.context_tokens == 128
    with pytest.raises(ValueError, match=r"do not fit|token ids"):
        decoder.step(ids)
    assert graph.feeds == []
    assert decoder.length == 0


def test_a_failing_step_appends_nothing() -> None:
    graph = CountingGraph()
    decoder = ConcatDecoder(graph, ARCH)
    decoder.step([1, 2])
    graph.fails = True
    with pytest.raises(RuntimeError):
        decoder.step([3])
    assert decoder.length == 2
