"""The crossover is what the clock says, and is asked for once."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_agent.engine.twin import choose
from device_agent.engine.twin.choose import COUNTS, Choice, Measurement, Memory, chosen, measure
from edgekit.errors import BundleError


class Twin:
    crossover = 99


class Rows:
    """Rows over a clock: the decoder takes a second a token, a twin `twin_s(tokens)` and a second for the last one."""

    def __init__(self, twin_s: float = 0.1, start_s: float = 0.0) -> None:
        self.now, self.length, self.reads = 0.0, 0, 0
        self.attached: Twin | None = None
        self.twin_s, self.start_s = twin_s, start_s

    def clock(self) -> float:
        return self.now

    def attach(self, graph: Twin | None) -> None:
        self.attached = graph

    def truncate(self, row: int, length: int) -> None:
        assert row == 0
        assert length == 0
        self.length = 0

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> object:
        assert row == self.length == 0
        assert len(set(ids)) == 1
        self.length = len(ids)
        self.reads += 1
        with_twin = self.attached is not None and len(ids) - keep >= self.attached.crossover
        self.now += self.start_s + (len(ids) - keep) * self.twin_s + keep if with_twin else len(ids)
        return None


class Failing(Rows):
    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> object:
        raise BundleError("here", "it broke")


@pytest.mark.parametrize(
    ("decoder", "twin", "crossover"),
    [
        pytest.param((1, 2, 3, 4), (0.5, 1, 2, 3), COUNTS[0], id="always"),
        pytest.param((1, 2, 3, 4), (2, 2, 2, 3), COUNTS[2], id="from a length on; equal is not faster"),
        pytest.param((1, 2, 3, 4), (0.5, 1, 2, 5), None, id="not for the longest"),
        pytest.param((1, 2, 3, 4), (0.5, 3, 2, 3), COUNTS[2], id="a lucky short one does not count"),
        pytest.param((1, 2, 3, 4), (2, 3, 4, 5), None, id="never"),
    ],
)
def test_a_twin_must_be_faster_from_there_on(
    decoder: Sequence[float], twin: Sequence[float], crossover: int | None
) -> None:
    assert Measurement(decoder, twin).crossover == crossover


def test_both_are_timed_in_turns_and_the_rows_are_left_empty() -> None:
    rows, twin = Rows(0.1, start_s=20.0), Twin()
    found = measure(rows, twin, context_tokens=2048, clock=rows.clock)
    assert found.decoder_s == [count + 1 for count in COUNTS]
    assert list(found.twin_s) == pytest.approx([20.0 + 0.1 * count + 1 for count in COUNTS])
    assert found.crossover == 32
    assert rows.attached is None
    assert rows.length == 0


def test_a_short_context_is_enough() -> None:
    rows = Rows()
    measure(rows, Twin(), context_tokens=20, clock=rows.clock)
    assert rows.now > 0


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, memory = Rows(), Memory(tmp_path / "new", ("bundle", "cpu", "2", "1.32"))
    monkeypatch.setattr("device_agent.engine.twin.choose.time.perf_counter", rows.clock)
    assert chosen(rows, Twin(), memory, context_tokens=2048) == COUNTS[0]
    assert rows.reads
    again = Rows()
    assert chosen(again, Twin(), memory, context_tokens=2048) == COUNTS[0]
    assert not again.reads
    assert Memory(tmp_path / "new", ("bundle", "another cpu", "2", "1.32")).recall() is None
    assert Memory(tmp_path / "new", ("bundlecpu", "", "2", "1.32")).recall() is None


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"crossover": "8"}', b'{"crossover": 8, "x": 1}', b" " * 5000 + b'{"crossover":8}']
)
def test_a_damaged_memory_is_none(raw: bytes, tmp_path: Path) -> None:
    memory = Memory(tmp_path, ("a",))
    memory.remember(Choice(None))
    assert memory.recall() == Choice(None)
    memory.path.write_bytes(raw)
    assert memory.recall() is None


def test_only_the_newest_choices_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "MOST_CHOICES", 2)
    memories = [Memory(tmp_path, (name,)) for name in "abc"]
    for number, memory in enumerate(memories):
        memory.remember(Choice(8))
        os.utime(memory.path, (number, number))
    assert [memory.recall() for memory in memories] == [None, Choice(8), Choice(8)]


def test_a_disk_that_refuses_only_costs_the_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    Memory(tmp_path / "file", ("a",)).remember(Choice(8))
    assert "was not remembered" in caplog.text


def test_a_graph_that_fails_is_not_used_and_nothing_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(tmp_path, ("a",))
    assert chosen(Failing(), Twin(), memory, context_tokens=2048) is None
    assert memory.recall() is None
    assert "it broke" in caplog.text
