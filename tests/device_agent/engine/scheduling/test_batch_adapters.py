"""Requests with different adapters share a machine and nothing else: no step, no beginning, no kept text."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.engine.records import GREEDY, Generation
from device_agent.engine.rows import Floats, Lora, Snapshot
from device_agent.engine.sampling import make_sampler
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.batch import Batch
from device_agent.engine.scheduling.turns import Pace
from edgekit.errors import EdgekitError, WrongBase
from tests.device_agent.engine.batches import alone, batch_over, delivered, finish, ids_of, last_of, text
from tests.device_agent.engine.scripted import VOCAB, FakeRows, hashed

RED, BLUE = Lora("red", {}), Lora("blue", {})
LORAS = (None, RED, BLUE)
_TAG = 1 << 20


class TaggedRows(FakeRows):
    """Rows that know with which adapter each of their tokens was read; `mixed` are the calls that confused them."""

    def __init__(self, *, most_rows: int = 4, context_tokens: int = 1000) -> None:
        super().__init__(hashed, most_rows=most_rows, context_tokens=context_tokens)
        self.tags: list[list[Lora | None]] = [[] for _ in range(most_rows)]
        self.mixed: list[str] = []

    def read(self, row: int, ids: Sequence[int], *, keep: int = 1) -> Floats:
        self._look([row])
        logits = super().read(row, ids, keep=keep)
        self.tags[row] += [self.loras[row]] * len(ids)
        return logits

    def decode(self, ids: Mapping[int, int]) -> Floats:
        self._look(list(ids))
        logits = super().decode(ids)
        for row in ids:
            self.tags[row].append(self.loras[row])
        return logits

    def truncate(self, row: int, length: int) -> None:
        super().truncate(row, length)
        del self.tags[row][length:]

    def snapshot(self, row: int, length: int) -> Snapshot:
        found = super().snapshot(row, length)
        tags = np.array([LORAS.index(tag) for tag in self.tags[row][:length]], np.int64).reshape(1, length, 1)
        return Snapshot(length, (found.arrays[0].astype(np.int64) + _TAG * tags,))

    def restore(self, row: int, snapshot: Snapshot) -> None:
        (array,) = snapshot.arrays
        super().restore(row, Snapshot(snapshot.length, (array.astype(np.int64) % _TAG,)))
        self.tags[row] = [LORAS[int(tag)] for tag in array.astype(np.int64)[0, :, 0] // _TAG]

    def _look(self, rows: list[int]) -> None:
        if len({self.loras[row] for row in rows}) > 1:
            self.mixed.append(f"rows {rows} in one step")
        self.mixed += [f"row {row} goes on" for row in rows if set(self.tags[row]) - {self.loras[row]}]


def job_for(prompt: Sequence[int], lora: Lora | None, *, max_tokens: int = 8) -> Job:
    return Job(Generation(prompt=tuple(prompt), max_tokens=max_tokens), make_sampler(GREEDY, vocab=VOCAB), lora=lora)


def run(batch: Batch, *wanted: tuple[Sequence[int], Lora | None]) -> list[Job]:
    jobs = [job_for(prompt, lora) for prompt, lora in wanted]
    for job in jobs:
        batch.join(job)
    finish(batch)
    return jobs


def known(batch: Batch, prompt: Sequence[int], lora: Lora | None) -> int:
    (job,) = run(batch, (prompt, lora))
    timings = last_of(job).timings
    assert timings
    return timings.cached_tokens


def test_one_step_is_of_one_adapter() -> None:
    rows = TaggedRows()
    batch = batch_over(rows)
    jobs = [job_for(text(10 + n, 20), LORAS[n % 3], max_tokens=40) for n in range(4)]
    for job in jobs:
        batch.join(job)
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert rows.mixed == []
    assert any(len(step) == 2 for name, step in rows.steps if name == "decode"), "two have the same one"


@pytest.mark.parametrize("first", LORAS, ids=str)
@pytest.mark.parametrize("second", LORAS, ids=str)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_text_is_known_to_its_own_adapter_alone(first: Lora | None, second: Lora | None, slots: int) -> None:
    rows = TaggedRows(most_rows=slots)
    batch = batch_over(rows, slots=slots)
    known(batch, text(1, 100), first)
    assert known(batch, text(1, 100), second) == (99 if first is second else 0)
    assert known(batch, text(1, 100), first) == 99, "it was not lost for that"
    assert rows.mixed == []


def test_who_comes_while_another_reads_waits_only_for_its_own_adapter() -> None:
    rows = TaggedRows()
    batch = batch_over(rows, pace=Pace(chunk_tokens=64))
    prompt = text(1, 300)
    jobs = run(batch, (prompt, RED), (prompt, BLUE), (prompt, RED))
    cached = [timings.cached_tokens for job in jobs if (timings := last_of(job).timings)]
    assert cached == [0, 0, 299]
    assert rows.mixed == []


def test_stored_texts_are_of_their_adapter_too() -> None:
    rows = TaggedRows(most_rows=1)
    batch = batch_over(rows, slots=1)
    for lora in LORAS:
        known(batch, text(1, 100), lora)
    assert batch.kept[0] == 3
    assert [known(batch, [*text(1, 100), 5], lora) for lora in LORAS] == [100, 100, 100]
    assert rows.mixed == []


def test_what_was_computed_with_a_forgotten_adapter_is_gone() -> None:
    batch = batch_over(TaggedRows(most_rows=2), slots=2)
    for lora in (*LORAS, RED):
        known(batch, text(1, 100), lora)
    batch.forget_adapter(RED)
    assert batch.kept[0] == 2
    assert [known(batch, text(1, 100), lora) for lora in (None, BLUE, RED)] == [99, 99, 0]


def test_runs_go_on_with_their_adapters_when_the_rows_are_opened_anew() -> None:
    rows, other = TaggedRows(), TaggedRows()
    batch = batch_over(rows)
    jobs = [job_for(text(n, 50), lora) for n, lora in enumerate(LORAS)]
    for job in jobs:
        batch.join(job)
    for _ in range(6):
        batch.step()
    batch.detach()
    batch.attach(other)
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert rows.mixed == other.mixed == []
    assert other.steps, "they had not ended before"


def test_an_adapter_that_cannot_be_used_ends_its_own_request_alone() -> None:
    class Refusing(TaggedRows):
        def adapt(self, row: int, lora: Lora | None) -> None:
            if lora is RED:
                raise WrongBase("red", "no")
            super().adapt(row, lora)

    rows = Refusing()
    batch = batch_over(rows)
    known(batch, text(1, 100), None)
    red, plain = run(batch, (text(1, 100), RED), (text(1, 100), None))
    assert isinstance(delivered(red)[0], EdgekitError)
    assert ids_of(plain) == alone(plain)
    assert known(batch, text(1, 100), None) == 99
    assert rows.mixed == []


REQUESTS = st.lists(
    st.tuples(st.sampled_from(LORAS), st.integers(0, 2), st.integers(1, 120), st.booleans()), min_size=1, max_size=12
)


@given(REQUESTS, st.integers(1, 4), st.sampled_from([0, 2000, 1 << 30]))
def test_no_order_of_requests_mixes_adapters(
    requests: list[tuple[Lora | None, int, int, bool]], slots: int, prefix_bytes: int
) -> None:
    rows = TaggedRows(most_rows=slots)
    batch = batch_over(rows, slots=slots, prefix_bytes=prefix_bytes, pace=Pace(chunk_tokens=16))
    jobs = []
    for lora, seed, length, wait in requests:
        if wait or len(batch.jobs) == slots:
            finish(batch)
        jobs.append(job_for(text(seed, 120)[:length], lora, max_tokens=3))
        batch.join(jobs[-1])
        batch.step()
    finish(batch)
    assert rows.mixed == []
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
