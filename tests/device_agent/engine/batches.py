"""Requests for a batch over fake rows, and the answers that they should get."""

import random
from collections.abc import Callable, Sequence

from device_agent.engine.records import GREEDY, Generation, Piece, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import History, make_sampler
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.batch import Batch, Room
from device_agent.engine.scheduling.sequence import Guesser
from device_agent.engine.scheduling.turns import Pace
from edgekit.errors import EdgekitError
from tests.device_agent.engine.scripted import END, LANGUAGE, VOCAB, FakeRows, hashed

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


def asked(batch: Batch, prompt: Sequence[int], *, max_tokens: int = 5) -> tuple[int, list[int]]:
    """How many tokens of the prompt were known, and the whole conversation after the answer, which is checked."""
    (job,) = joined(batch, prompt, max_tokens=max_tokens)
    finish(batch)
    pieces = pieces_of(job)
    ids = [token for piece in pieces for token in piece.tokens]
    assert ids == alone(job)
    timings = pieces[-1].timings
    assert timings
    return timings.cached_tokens, [*prompt, *ids]
