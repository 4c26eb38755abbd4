"""Requests with grammars, many together, with guesses and without."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_agent.engine.drafting.guesser import Guesser
from device_agent.engine.grammars.guide import Grammars
from device_agent.engine.records import Generation, Grammar, Sampling
from device_agent.engine.rows import Floats
from device_agent.engine.sampling import make_sampler
from device_agent.engine.scheduling.answers import Job
from edgekit.errors import InvalidRequest
from tests.device_agent.engine.batches import alone, batch_over, delivered, finish, ids_of, joined, pieces_of, text
from tests.device_agent.engine.scripted import END, VOCAB, FakeRows, byte_tokenizer, hashed

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string", "maxLength": 6}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    made = Grammars(byte_tokenizer(), vocab=VOCAB, eos=(END,))
    yield made
    made.close()


def guided_job(grammars: Grammars, seed: int, *, top: int | None = None) -> Job:
    grammar = Grammar("json_schema", json.dumps(SCHEMA))
    sampling = Sampling(seed=seed)
    generation = Generation(prompt=tuple(text(seed, 5)), sampling=sampling, grammar=grammar, top_logprobs=top)
    return Job(generation, make_sampler(sampling, vocab=VOCAB), guide=grammars.guide(grammar))


def answer_of(job: Job) -> dict[str, Any]:
    pieces = pieces_of(job)
    assert pieces[-1].finish == "stop"
    found: dict[str, Any] = json.loads("".join(piece.text for piece in pieces))
    return found


@pytest.mark.parametrize("guess", [None, Guesser], ids=["plain", "guessing"])
@pytest.mark.parametrize("seed", range(10))
def test_a_random_model_writes_what_the_schema_says(
    grammars: Grammars, seed: int, guess: Callable[[], Guesser] | None
) -> None:
    jobs = [guided_job(grammars, 10 * seed + n) for n in range(4)]
    batch = batch_over(FakeRows(hashed, context_tokens=10_000), guess=guess)
    for job in jobs:
        batch.join(job)
    finish(batch)
    for job in jobs:
        found = answer_of(job)
        assert (type(found["n"]), type(found["s"]), len(found)) == (int, str, 2)


@pytest.mark.parametrize("seed", range(5))
def test_guesses_change_nothing_and_are_right(grammars: Grammars, seed: int) -> None:
    texts, accepted = [], 0
    for guess in (None, Guesser):
        batch, job = batch_over(FakeRows(hashed, context_tokens=10_000), guess=guess), guided_job(grammars, seed, top=1)
        batch.join(job)
        finish(batch)
        accepted = batch.counters.accepted
        pieces = pieces_of(job)
        texts.append([(piece.tokens, piece.logprobs) for piece in pieces])
    assert [one for each in texts[0] for one in each[0]] == [one for each in texts[1] for one in each[0]]
    assert [one for each in texts[0] for one in each[1]] == [one for each in texts[1] for one in each[1]]
    assert accepted >= 10, "the skeleton of the object"


def test_a_guide_that_fails_ends_its_own_answer_alone(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, broken = batch_over(FakeRows(hashed)), guided_job(grammars, 1)

    def fail(_: object) -> Floats:
        raise InvalidRequest("too complex", param="grammar")

    assert broken.guide
    monkeypatch.setattr(broken.guide, "masked", fail)
    batch.join(broken)
    (other,) = joined(batch, text(2, 5))
    finish(batch)
    assert [str(item) for item in delivered(broken)] == ["too complex"]
    assert ids_of(other) == alone(other)
