"""Many requests over one model: nobody's text depends on anybody else's, and nobody waits longer than promised."""

import random
from collections.abc import Callable, Sequence

import pytest

from device_agent.engine.answers import Job
from device_agent.engine.batch import Batch, Room
from device_agent.engine.records import GREEDY, Generation, Piece, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, make_sampler
from device_agent.engine.sequence import Guesser
from device_agent.engine.turns import Pace
from edgekit.errors import EdgekitError
from tests.device_agent.engine.scripted import END, LANGUAGE, VOCAB, FakeRows, hashed, saying

PLENTY = 1 << 30
DRAWN = Sampling(temperature=0.8, top_p=0.95, seed=5)


def batch_over(
    rows: FakeRows,
    *,
    slots: int = 4,
    prefix_bytes: int = PLENTY,
    pace: Pace | None = None,
    guess: Callable[[], Guesser] | None = None,
) -> Batch:
    batch = Batch(LANGUAGE, Room(slots, prefix_bytes), pace=pace or Pace(), clock=rows.clock, guess=guess)
    batch.attach(rows)
    return batch


def job_for(
    prompt: Sequence[int], *, max_tokens: int | None = 10, sampling: Sampling = GREEDY, stop: tuple[str, ...] = ()
) -> Job:
    generation = Generation(prompt=tuple(prompt), max_tokens=max_tokens, sampling=sampling, stop=stop)
    return Job(generation, make_sampler(sampling, vocab=VOCAB))


def joined(batch: Batch, *prompts: Sequence[int], max_tokens: int = 10) -> list[Job]:
    jobs = [job_for(prompt, max_tokens=max_tokens) for prompt in prompts]
    for job in jobs:
        batch.join(job)
    return jobs


def finish(batch: Batch) -> None:
    while batch.jobs:
        batch.step()


def delivered(job: Job) -> list[Piece | EdgekitError]:
    return [job.outbox.get() for _ in range(job.outbox.qsize())]


def pieces_of(job: Job) -> list[Piece]:
    return [item for item in delivered(job) if isinstance(item, Piece)]


def ids_of(job: Job) -> list[int]:
    return [token for piece in pieces_of(job) for token in piece.tokens]


def last_of(job: Job) -> Piece:
    return pieces_of(job)[-1]


def alone(job: Job, says: Callable[[tuple[int, ...]], Floats] = hashed) -> list[int]:
    """The answer's ids as a loop of four lines makes them, by a sampler of its own."""
    prompt, most = job.generation.prompt, job.generation.max_tokens or 10**9
    sampler, history, ids = make_sampler(job.generation.sampling, vocab=VOCAB), History(prompt), list(prompt)
    while len(ids) < len(prompt) + most and (len(ids) == len(prompt) or ids[-1] != END):
        ids.append(sampler(says(tuple(ids)), history))
        history.add(ids[-1])
    return ids[len(prompt) :]


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(256), k=length)


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
        ("read", 128),
        ("read", 128),
        ("read", 44),
        ("decode", 1),
        ("decode", 1),
        ("decode", 1),
    ]
    assert ids_of(job) == [*b"abc", END]
