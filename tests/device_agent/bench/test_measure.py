"""Timing by a model that writes down what it is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from device_agent.bench.energy import EnergyMeter
from device_agent.bench.measure import PIECE_TOKENS, Timer, ids_for
from device_agent.bench.plan import Decode, Plan
from device_agent.engine.rows import Floats, Lora, Snapshot

VOCAB = 7


class Written:
    """Rows without a model: `calls` says what was done to which row at which length."""

    context_tokens = 4096
    most_rows = 4
    bytes_per_token = 1

    def __init__(self) -> None:
        self.lengths = [0] * self.most_rows
        self.calls: list[tuple[str, object]] = []

    def length(self, row: int) -> int:
        return self.lengths[row]

    def adapt(self, row: int, lora: Lora | None) -> None:
        assert lora is None

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        assert ids
        self.calls.append(("read", (self.lengths[row], len(ids), keep)))
        self.lengths[row] += len(ids)
        return np.zeros((keep, VOCAB), np.float32)

    def decode(self, ids: Mapping[int, int]) -> Floats:
        self.calls.append(("decode", tuple(self.lengths[row] for row in ids)))
        for row in ids:
            self.lengths[row] += 1
        return np.eye(VOCAB, dtype=np.float32)[: len(ids)]

    def truncate(self, row: int, length: int) -> None:
        assert length <= self.lengths[row]
        self.lengths[row] = length

    def snapshot(self, row: int, length: int) -> Snapshot:
        assert length <= self.lengths[row]
        return Snapshot(length, ())

    def restore(self, row: int, snapshot: Snapshot) -> None:
        self.lengths[row] = snapshot.length

    def shrink(self) -> None:
        self.calls.append(("shrink", ()))


def calls_of(plan: Plan, tmp_path: Path) -> list[tuple[str, object]]:
    model = Written()
    found = Timer(model, VOCAB, EnergyMeter(tmp_path)).round(plan)
    assert len(found.prompts) == len(plan.prompts)
    assert len(found.decodes) == len(plan.decodes)
    assert all(sample.seconds >= 0 and sample.joules is None for sample in (*found.prompts, *found.decodes))
    assert found.rss_bytes > 0
    assert model.lengths == [0] * model.most_rows
    return model.calls


def test_a_prompt_is_read_in_pieces_and_only_its_last_token_is_asked_about(tmp_path: Path) -> None:
    plan = Plan(prompts=(2 * PIECE_TOKENS + 3,), decodes=(Decode(2),), decode_tokens=1)
    assert calls_of(plan, tmp_path)[:3] == [
        ("read", (0, PIECE_TOKENS, 0)),
        ("read", (PIECE_TOKENS, PIECE_TOKENS, 0)),
        ("read", (2 * PIECE_TOKENS, 3, 1)),
    ]


def test_tokens_are_decoded_one_after_the_other_at_the_depth_that_was_asked_for(tmp_path: Path) -> None:
    plan = Plan(prompts=(4,), decodes=(Decode(0), Decode(9), Decode(4)), decode_tokens=3)
    decoded = [what for kind, what in calls_of(plan, tmp_path) if kind == "decode"]
    assert decoded == [(9,), (10,), (11,), (4,), (5,), (6,), (0,), (1,), (2,)]


def test_texts_that_are_decoded_together_are_equally_long(tmp_path: Path) -> None:
    plan = Plan(prompts=(4,), decodes=(Decode(6, 3), Decode(6, 2), Decode(6)), decode_tokens=2)
    decoded = [what for kind, what in calls_of(plan, tmp_path) if kind == "decode"]
    assert decoded == [(6,), (7,), (6, 6), (7, 7), (6, 6, 6), (7, 7, 7)]


def test_memory_is_given_back_at_the_end_of_a_round(tmp_path: Path) -> None:
    assert calls_of(Plan(prompts=(4,), decodes=(Decode(4),)), tmp_path)[-1] == ("shrink", ())


def test_samples_come_in_the_order_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ageing(Written):
        """Every step takes as many seconds as there are tokens in the first row."""

        age = 0.0

        def decode(self, ids: Mapping[int, int]) -> Floats:
            self.age += self.lengths[0]
            return super().decode(ids)

        def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
            self.age += 10 * len(ids)
            return super().read(row, ids, keep=keep)

    model = Ageing()
    monkeypatch.setattr("device_agent.bench.measure.time", SimpleNamespace(perf_counter=lambda: model.age))
    plan = Plan(prompts=(9, 2), decodes=(Decode(0), Decode(300), Decode(60), Decode(60, 2)), decode_tokens=2)
    found = Timer(model, VOCAB, EnergyMeter(tmp_path)).round(plan)
    assert [sample.seconds for sample in found.prompts] == [90, 20]
    assert [sample.seconds for sample in found.decodes] == [1, 601, 121, 121]


def test_ids_are_of_the_vocabulary_and_differ() -> None:
    ids = ids_for(1000, 49152)
    assert all(0 <= token < 49152 for token in ids)
    assert len(set(ids)) == 1000
