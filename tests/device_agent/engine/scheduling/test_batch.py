"""Many requests over one model: nobody's text depends on anybody else's, and nobody waits longer than promised."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from device_agent.engine.records import GREEDY, Piece, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.turns import Pace
from edgekit.errors import ServerError
from tests.device_agent.engine.batches import (
    DRAWN,
    PLENTY,
    alone,
    asked,
    batch_over,
    delivered,
    finish,
    ids_of,
    job_for,
    joined,
    pieces_of,
    text,
)
from tests.device_agent.engine.scripted import END, FakeRows, hashed, saying

# --- together as alone ----------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_each_of_many_gets_the_answer_that_it_would_get_alone(sampling: Sampling) -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows)
    jobs = [job_for(text(n, 30 + 50 * n), max_tokens=40, sampling=sampling) for n in range(4)]
    for job in jobs:
        batch.join(job)
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert max(len(step) for _, step in rows.steps) > 1


@pytest.mark.parametrize("seed", range(30))
def test_nothing_that_others_do_changes_an_answer(seed: int) -> None:
    """Joins, ends, cancels, broken steps, reloads and shared beginnings at random, each answer checked."""
    dice = random.Random(seed)
    rows = FakeRows(hashed, context_tokens=300, most_rows=dice.choice([1, 2, 4, 8]))
    limit = dice.choice([0, 600, 3000, PLENTY])
    batch = batch_over(rows, slots=rows.most_rows, prefix_bytes=limit, pace=Pace(dice.choice([3, 16, 128])))
    past: list[list[int]] = [text(seed, 60)]
    jobs: list[Job] = []
    for _ in range(400):
        event = dice.random()
        if event < 0.15 and len(batch.jobs) < rows.most_rows:
            beginning = dice.choice(past)[: dice.randrange(200)]
            prompt = (*beginning, *dice.choices(range(256), k=dice.randint(1, 80)))
            jobs.append(job_for(prompt, max_tokens=dice.randint(1, 20), sampling=dice.choice([GREEDY, DRAWN])))
            batch.join(jobs[-1])
            past.append([*prompt, *alone(jobs[-1])])
        elif event < 0.18 and batch.jobs:
            dice.choice(batch.jobs).cancelled.set()
        elif event < 0.19:
            batch.detach()
            rows = FakeRows(hashed, context_tokens=300, most_rows=rows.most_rows, clock=rows.clock)
            batch.attach(rows)
        batch.step()
        assert batch.kept[1] <= limit + 8 * 300, "the newest text may exceed the bound, for it is in its row anyway"
    finish(batch)
    written = read = cached = 0
    for job in jobs:
        pieces, expected = pieces_of(job), alone(job)
        ids = [token for piece in pieces for token in piece.tokens]
        assert pieces[-1].finish
        assert ids == (expected[: len(ids)] if pieces[-1].finish == "cancelled" else expected)
        timings = pieces[-1].timings
        assert timings
        written, read, cached = written + len(ids), read + timings.read_tokens, cached + timings.cached_tokens
    assert (batch.counters.written, batch.counters.cached) == (written, cached)
    assert bool(cached) == bool(limit)


# --- one request ----------------------------------------------------------------------------


def test_a_single_request_reads_its_prompt_in_large_chunks_and_then_writes() -> None:
    batch = batch_over(rows := FakeRows(saying("abc", prompt_tokens=300)))
    batch.join(job := job_for([7] * 300))
    finish(batch)
    assert [(name, *map(len, step.values())) for name, step in rows.steps] == [
        *[("read", 64)] * 4,
        ("read", 44),
        ("decode", 1),
        ("decode", 1),
        ("decode", 1),
    ]
    assert ids_of(job) == [*b"abc", END]


# --- who waits for whom ---------------------------------------------------------------------


def costly(*, per_step_s: float, per_size_s: float) -> Callable[[int], float]:
    return lambda size: per_step_s + per_size_s * size


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("cost", [costly(per_step_s=10, per_size_s=0.5), costly(per_step_s=1, per_size_s=1)])
def test_a_stream_waits_at_most_twice_as_long_while_prompts_are_read(
    streams: int, readers: int, cost: Callable[[int], float]
) -> None:
    """Twice as long as when all of them write, once it is known what such steps cost."""
    rows = FakeRows(hashed, most_rows=8, cost=cost)
    batch = batch_over(rows, slots=8)
    for n in range(8):
        batch.join(job_for(text(50 + n, 3), max_tokens=50))
    finish(batch)
    for n in range(streams):
        batch.join(job_for(text(n, 1), max_tokens=400))
    batch.step()
    for n in range(readers):
        batch.join(job_for(text(100 + n, 300), max_tokens=1))
    written, gaps = rows.clock.now, []
    while len(batch.jobs) == streams + readers:
        batch.step()
        if rows.steps[-1][0] == "decode":
            gaps.append(rows.clock.now - written)
            written = rows.clock.now
    assert len(gaps) > 5
    assert max(gaps[1:]) <= 2 * cost(streams + readers) + 1e-9
    assert max(gaps) > 1.3 * cost(streams + readers), "the time is used"


def test_prompts_of_equal_length_are_read_at_the_same_pace() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows, pace=Pace(chunk_tokens=16))
    joined(batch, *(text(n, 320) for n in range(4)))
    for _ in range(40):
        batch.step()
    assert [rows.length(row) for row in range(4)] == [160] * 4


def test_a_short_prompt_does_not_wait_for_a_long_one_nor_starves_it() -> None:
    rows = FakeRows(hashed)
    batch = batch_over(rows, pace=Pace(chunk_tokens=16))
    joined(batch, text(1, 900))
    for _ in range(10):
        batch.step()
    for n in range(2, 12):  # short ones keep coming
        (short,) = joined(batch, text(n, 20), max_tokens=1)
        steps = 0
        while short in batch.jobs:
            batch.step()
            steps += 1
        assert steps <= 6
    assert rows.length(0) >= 16 * 20


def test_a_broken_step_together_ends_only_the_request_at_fault() -> None:
    def says(text: tuple[int, ...]) -> Floats:
        if text[0] == 66 and len(text) > 40:
            raise ServerError("row on fire")
        return hashed(text)

    rows = FakeRows(says)
    batch = batch_over(rows)
    jobs = joined(batch, [65] * 33, [66] * 33, [67] * 33, max_tokens=30)
    finish(batch)
    *pieces, error = delivered(jobs[1])
    assert isinstance(error, ServerError)
    assert "row on fire" in str(error)
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert [ids_of(jobs[0]), ids_of(jobs[2])] == [alone(jobs[0]), alone(jobs[2])]


@pytest.mark.parametrize("error", [ServerError("kernel"), ValueError("kernel"), MemoryError()])
def test_a_prompt_that_cannot_be_read_ends_its_own_request(error: Exception) -> None:
    def refuse() -> None:
        if rows.steps and rows.steps[-1][0] == "decode" and not failed:
            failed.append(True)
            raise error

    rows, failed = FakeRows(hashed), list[bool]()
    batch = batch_over(rows)
    (first,) = joined(batch, text(1, 10))
    batch.step()
    batch.step()
    (second,) = joined(batch, text(2, 50))
    rows.before_step = refuse
    finish(batch)
    assert isinstance(delivered(second)[-1], ServerError)
    assert ids_of(first) == alone(first)


def test_broken_logits_of_one_row_end_its_request_alone() -> None:
    def says(text: tuple[int, ...]) -> Floats:
        return hashed(text) * np.float32(np.nan) if text[0] == 66 and len(text) > 12 else hashed(text)

    batch = batch_over(FakeRows(says))
    jobs = joined(batch, [65] * 10, [66] * 10)
    finish(batch)
    assert isinstance(delivered(jobs[1])[-1], ServerError)
    assert ids_of(jobs[0]) == alone(jobs[0])


# --- guesses --------------------------------------------------------------------------------


class Oracle:
    """Guesses that are right with some luck: from the answer as it will be."""

    def __init__(self, says: Callable[[tuple[int, ...]], Floats], luck: float) -> None:
        self.says, self.luck, self.dice, self.rooms = says, luck, random.Random(1), list[int]()

    def guess(self, ids: Sequence[int], *, room: int, cost: Callable[[int], float]) -> list[int]:
        assert room >= 0
        assert cost(1) >= 0
        self.rooms.append(room)
        found = list(ids)
        for _ in range(self.dice.randrange(8)):
            right = int(self.says(tuple(found)).argmax())
            found.append(right if self.dice.random() < self.luck else self.dice.randrange(256))
            if found[-1] == END:
                break
        return found[len(ids) :]


@pytest.mark.parametrize("luck", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("max_tokens", [1, 2, 60])
def test_guesses_change_no_answer(luck: float, sampling: Sampling, max_tokens: int) -> None:
    rows = FakeRows(hashed)
    oracle = Oracle(hashed, luck)
    batch = batch_over(rows, guess=lambda: oracle)
    chat = text(1, 50)
    for turn in range(4):  # what is cached after guesses must be right, too
        job = job_for(chat, max_tokens=max_tokens, sampling=sampling)
        batch.join(job)
        finish(batch)
        ids = ids_of(job)
        assert ids == alone(job)
        chat = [*chat, *ids, turn]
    assert batch.counters.written == len(chat) - 50 - 4
    assert batch.counters.accepted <= batch.counters.drafted
    if luck == 1 and sampling is GREEDY and max_tokens == 60:
        assert batch.counters.accepted == batch.counters.drafted > 60
        assert len(rows.steps) < batch.counters.written / 2


def test_nothing_is_guessed_beside_others() -> None:
    oracle = Oracle(hashed, 1.0)
    batch = batch_over(FakeRows(hashed), guess=lambda: oracle)
    jobs = joined(batch, text(1, 5), text(2, 300), max_tokens=20)
    while len(batch.jobs) == 2:
        assert not oracle.rooms
        batch.step()
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert oracle.rooms


# --- a model that goes and comes ------------------------------------------------------------


def test_requests_go_on_where_they_were_when_the_model_is_opened_anew() -> None:
    batch = batch_over(first := FakeRows(hashed))
    _, chat = asked(batch, text(9, 80))
    jobs = joined(batch, text(1, 30), text(2, 300), max_tokens=50)
    for _ in range(20):
        batch.step()
    read = sum(first.length(row) for row in range(4))
    batch.detach()
    assert not batch.loaded
    assert batch.jobs == jobs
    batch.attach(second := FakeRows(hashed))
    assert sum(second.length(row) for row in range(4)) == read - len(chat) + 1
    finish(batch)
    assert [ids_of(job) for job in jobs] == [alone(job) for job in jobs]
    assert asked(batch, [*chat, 1])[0] == len(chat) - 1
