"""Reads, steps, copies and shrinking in any order: what a row holds is its own text, and nobody else's."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from device_agent.engine.graphs.shared import OnnxRows
from device_agent.engine.rows import Snapshot
from edgekit.bundle import open_bundle
from tests.device_agent.bundles import TINY, VOCAB
from tests.device_agent.engine.real import IDS, emptied, opened

TOLERANCE = 5e-2
"""Of the largest logit: a rounded activation in the middle between two codes falls on either side, and among so many
texts there is one. A text of another token is several times as far off (see the last test)."""


class AnyOrder(RuleBasedStateMachine):
    """Rows against their texts: what a row holds is what was read into it, whatever happened to the others."""

    loaded: OnnxRows
    fresh: OnnxRows

    @initialize()
    def start(self) -> None:
        emptied(self.loaded)
        self.texts: list[list[int]] = [[] for _ in range(8)]
        self.saved: list[tuple[list[int], Snapshot]] = []

    @rule(row=st.integers(0, 7), size=st.integers(1, 90), seed=st.integers(0, 300))
    def read(self, row: int, size: int, seed: int) -> None:
        ids = [(token + seed) % VOCAB for token in IDS[:size]]
        self.loaded.read(row, ids)
        self.texts[row] += ids

    @rule(tokens=st.dictionaries(st.integers(0, 7), st.integers(0, VOCAB - 1), min_size=1))
    def decode(self, tokens: dict[int, int]) -> None:
        found = self.loaded.decode(tokens).copy()
        for row, token in tokens.items():
            self.texts[row].append(token)
        at, row = next(iter(enumerate(tokens)))
        self.fresh.truncate(0, 0)
        expected = self.fresh.read(0, self.texts[row])
        np.testing.assert_allclose(found[at], expected[0], rtol=0, atol=TOLERANCE * float(np.abs(expected).max()))

    @rule(row=st.integers(0, 7), part=st.floats(0, 1))
    def truncate(self, row: int, part: float) -> None:
        kept = int(part * len(self.texts[row]))
        self.loaded.truncate(row, kept)
        del self.texts[row][kept:]

    @rule(row=st.integers(0, 7), part=st.floats(0, 1))
    def snapshot(self, row: int, part: float) -> None:
        length = int(part * len(self.texts[row]))
        self.saved.append((self.texts[row][:length], self.loaded.snapshot(row, length)))

    @precondition(lambda self: self.saved)
    @rule(row=st.integers(0, 7), which=st.integers(0, 1 << 20))
    def restore(self, row: int, which: int) -> None:
        text, snapshot = self.saved[which % len(self.saved)]
        self.loaded.restore(row, snapshot)
        self.texts[row] = list(text)

    @rule()
    def shrink(self) -> None:
        self.loaded.shrink()

    @invariant()
    def lengths_agree(self) -> None:
        assert self.loaded.cache.lengths == [len(text) for text in self.texts]


def test_any_order_of_calls_keeps_rows_apart() -> None:
    bundle = open_bundle(TINY)

    class Machine(AnyOrder):
        loaded = opened(bundle)
        fresh = opened(bundle)

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None))


def test_other_texts_are_farther_off_than_the_tolerance() -> None:
    """Or the test above could not fail."""
    rows = opened(open_bundle(TINY))
    rows.read(0, IDS[:9])
    rows.read(1, [*IDS[:8], IDS[8] ^ 1])
    rows.read(2, IDS[1:9])
    first, *others = rows.decode(dict.fromkeys(range(3), 5))
    assert min(np.abs(first - other).max() for other in others) > 2 * TOLERANCE * np.abs(first).max()
