"""What a prompt graph is fed: past and present in one place, a mask as long as the text."""

from collections.abc import Sequence

import numpy as np
import pytest

from device_agent.engine.graphs.prompt_graph import Array, OnnxPromptGraph, mask_of
from edgekit.errors import BundleError


class Bound:
    """Implements prompt_graph.Binding: remembers what is bound when it runs."""

    def __init__(self, *, fails: bool = False) -> None:
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        self.runs: list[dict[str, Array]] = []
        self.fails = fails

    def input(self, name: str, array: Array) -> None:
        assert array.flags.c_contiguous or array.base is not None
        self.inputs[name] = array

    def output(self, name: str, array: Array) -> None:
        self.outputs[name] = array

    def run(self) -> None:
        if self.fails:
            raise BundleError("bundle", "no")
        self.runs.append(dict(self.inputs))


CACHE: Sequence[Array] = [np.zeros((1, 2, 16, 4), np.float32) for _ in range(4)]


@pytest.mark.parametrize(("past", "width", "columns"), [(0, 0, 3), (5, 0, 8), (5, 7, 8), (5, 20, 20)])
def test_ids_go_after_what_is_cached(past: int, width: int, columns: int) -> None:
    bound = Bound()
    OnnxPromptGraph(lambda: bound, crossover=3).over(CACHE).read(past, [7, 8, 9], width=width)
    (fed,) = bound.runs
    assert fed["input_ids"].tolist() == [[7, 8, 9]]
    assert fed["attention_mask"].tolist() == [[1] * (past + 3) + [0] * (columns - past - 3)]
    assert fed["input_ids"].dtype == fed["attention_mask"].dtype == np.int64


def test_present_is_written_where_past_is_read() -> None:
    bound = Bound()
    OnnxPromptGraph(lambda: bound, crossover=3).over(CACHE).read(0, [7])
    names = ["0.key", "0.value", "1.key", "1.value"]
    for name, array in zip(names, CACHE, strict=True):
        assert bound.inputs[f"past_key_values.{name}"] is array
        assert bound.outputs[f"present.{name}"] is array
    assert len(bound.outputs) == len(CACHE)


def test_a_cache_is_bound_once_for_all_reads() -> None:
    made: list[Bound] = []

    def bind() -> Bound:
        made.append(Bound())
        return made[-1]

    graph = OnnxPromptGraph(bind, crossover=1).over(CACHE)
    graph.read(0, [7])
    graph.read(1, [7, 8])
    (bound,) = made
    assert [fed["input_ids"].tolist() for fed in bound.runs] == [[[7]], [[7, 8]]]


@pytest.mark.parametrize(
    ("totals", "width", "mask"),
    [
        ([2], 0, [[1, 1]]),
        ([1, 3], 0, [[1, 0, 0], [1, 1, 1]]),
        ([2, 1], 4, [[1, 1, 0, 0], [1, 0, 0, 0]]),
    ],
)
def test_a_mask_s_row_sums_are_lengths(totals: list[int], width: int, mask: list[list[int]]) -> None:
    assert mask_of(totals, width).tolist() == mask
