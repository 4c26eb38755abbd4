"""What rows hand to their graphs: which graph reads what, what is bound, and when it is let go."""

import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from device_agent.engine.graphs.cache import FIRST_CAPACITY_TOKENS as FIRST
from device_agent.engine.graphs.cache import KVCache
from device_agent.engine.graphs.prompt_graph import Array
from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Snapshot
from edgekit.bundle import open_bundle
from edgekit.errors import BundleError
from tests.device_agent.bundles import TINY
from tests.device_agent.engine.graphs.test_prompt_graph import Bound
from tests.device_agent.engine.real import IDS, Same, emptied


class Reader:
    """Implements PromptGraph: reads into the cache by another model's rows, and remembers what."""

    def __init__(self, source: OnnxRows, *, crossover: int, fails: bool = False) -> None:
        self.source = source
        self.crossover = crossover
        self.fails = fails
        self.reads: list[tuple[int, int, int]] = []
        self.caches: list[weakref.ref[Array]] = []

    def over(self, cache: Sequence[Array]) -> "OverRow":
        self.caches.append(weakref.ref(cache[0]))
        return OverRow(self, cache)


class OverRow:
    """Implements BoundPrompt."""

    def __init__(self, reader: Reader, cache: Sequence[Array]) -> None:
        self.reader, self.cache = reader, cache

    def read(self, past: int, ids: Sequence[int], *, width: int = 0) -> None:
        if self.reader.fails:
            raise BundleError("bundle", "no")
        source = self.reader.source
        self.reader.reads.append((past, len(ids), width))
        source.restore(0, Snapshot(past, tuple(array[0, :, :past] for array in self.cache)))
        source.read(0, ids)
        end = past + len(ids)
        for array, read in zip(self.cache, source.snapshot(0, end).arrays, strict=True):
            array[0, :, past:end] = read[:, past:end]


@pytest.mark.parametrize(
    ("size", "keep", "ahead"),
    [
        (20, 1, [(7, 19, 0)]),
        (12, 1, []),
        (13, 1, [(7, 12, 0)]),
        (20, 9, []),
        (20, 0, [(7, 20, 0)]),
        (12, 0, [(7, 12, 0)]),
    ],
)
def test_long_prompts_go_through_the_prompt_graph(
    rows: OnnxRows, fresh: OnnxRows, same: Same, size: int, keep: int, ahead: list[tuple[int, int, int]]
) -> None:
    rows.read(2, IDS[:7])
    reader = Reader(fresh, crossover=12)
    rows.attach(reader)
    found = rows.read(2, IDS[7 : 7 + size], keep=keep).copy()
    assert reader.reads == ahead
    assert rows.length(2) == 7 + size
    emptied(fresh)
    fresh.read(0, IDS[:7])
    same(found, fresh.read(0, IDS[7 : 7 + size], keep=keep))
    same(rows.decode({2: 5}), fresh.decode({0: 5}))


def test_what_the_text_is_said_to_be_long_reaches_the_prompt_graph(rows: OnnxRows, fresh: OnnxRows) -> None:
    reader = Reader(fresh, crossover=12)
    rows.attach(reader)
    rows.read(0, IDS[:20], width=400)
    assert reader.reads == [(0, 19, 400)]


def test_a_failing_prompt_graph_appends_nothing_and_can_be_taken_away(rows: OnnxRows, fresh: OnnxRows) -> None:
    rows.read(0, IDS[:5])
    rows.attach(Reader(fresh, crossover=4, fails=True))
    with pytest.raises(BundleError):
        rows.read(0, IDS[5:20])
    assert rows.length(0) == 5
    rows.attach(None)
    emptied(fresh).read(0, IDS[:5])
    assert np.array_equal(rows.read(0, IDS[5:20]), fresh.read(0, IDS[5:20]))


def test_a_prompt_graph_is_bound_once_to_a_row_and_let_go_when_the_cache_grows(rows: OnnxRows, fresh: OnnxRows) -> None:
    reader = Reader(fresh, crossover=4)
    rows.attach(reader)
    for _ in range(2):
        rows.read(0, IDS[:10])
    assert len(reader.caches) == 1
    rows.read(0, IDS[:FIRST])
    assert len(reader.caches) == 2
    assert reader.caches[0]() is None


# --- what is bound, and when ---


class Counted(Bound):
    """Counts what is bound, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: list[str] = []

    def input(self, name: str, array: Array) -> None:
        self.bound.append(name)
        super().input(name, array)

    def output(self, name: str, array: Array) -> None:
        self.bound.append(name)
        super().output(name, array)


def counted(most_rows: int = 4) -> tuple[OnnxRows, list[Counted]]:
    made: list[Counted] = []

    def bind() -> Counted:
        made.append(Counted())
        return made[-1]

    arch = open_bundle(TINY).manifest.arch
    return OnnxRows(bind, arch, KVCache(arch, most_rows=most_rows)), made


def test_a_step_binds_only_the_mask() -> None:
    rows, made = counted()
    rows.read(1, IDS[:5])
    rows.read(2, IDS[:9])
    rows.decode({1: 4})
    rows.decode({1: 4, 2: 5})
    before = {id(each): len(each.bound) for each in made}
    rows.decode({1: 6})
    rows.decode({1: 6, 2: 7})
    assert [new for each in made if (new := each.bound[before[id(each)] :])] == [["attention_mask"]] * 2


def test_ids_and_mask_are_those_of_the_rows() -> None:
    rows, made = counted()
    rows.read(0, IDS[:2])
    rows.read(1, IDS[:5])
    rows.read(2, IDS[:4])
    rows.decode({2: 11, 1: 12})
    fed = made[-1].runs[-1]
    assert fed["input_ids"].tolist() == [[12], [11]]
    assert fed["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    assert fed["logits_to_keep"] == 1
    assert {fed[f"past_key_values.0.{half}"].shape[0] for half in ("key", "value")} == {2}


def test_outgrown_buffers_are_let_go() -> None:
    rows, made = counted()
    rows.read(0, IDS[:5])
    made.clear()
    rows.read(0, IDS[: FIRST + 1])
    (binding,) = made
    assert binding.inputs["past_key_values.0.key"].shape[2] == 2 * FIRST
    assert len(rows._windows) == 1


def test_the_logits_of_a_whole_prompt_do_not_stay() -> None:
    rows, _ = counted()
    rows.read(0, IDS[:100], keep=100)
    assert rows._windows == {}
    rows.read(0, IDS[:20], keep=20)
    assert len(rows._windows) == 1
