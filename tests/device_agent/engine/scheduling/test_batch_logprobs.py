"""Prompts whose own logprobs are wanted: all of it is read, in chunks whose logits are kept."""

from collections.abc import Sequence

import pytest

from device_agent.engine.logprobs import logprob_of
from device_agent.engine.records import GREEDY, Generation, TokenLogprob
from device_agent.engine.sampling import make_sampler
from device_agent.engine.scheduling.answers import Job
from device_agent.engine.scheduling.batch import KEPT_POSITIONS
from tests.device_agent.engine.batches import alone, asked, batch_over, finish, ids_of, joined, pieces_of, text
from tests.device_agent.engine.scripted import VOCAB, FakeRows, hashed


def scored(prompt: Sequence[int], *, max_tokens: int = 4) -> Job:
    generation = Generation(prompt=tuple(prompt), max_tokens=max_tokens, prompt_logprobs=True, top_logprobs=2)
    return Job(generation, make_sampler(GREEDY, vocab=VOCAB))


def expected_logprobs(prompt: Sequence[int]) -> list[TokenLogprob]:
    after = [logprob_of(hashed(tuple(prompt[:at])), prompt[at], top=2) for at in range(1, len(prompt))]
    return [TokenLogprob(prompt[0], None), *after]


@pytest.mark.parametrize("length", [1, 2, KEPT_POSITIONS, KEPT_POSITIONS + 1, 100])
def test_a_prompts_logprobs_are_those_of_what_the_model_says_after_each_beginning(length: int) -> None:
    rows, prompt = FakeRows(hashed), text(1, length)
    job = scored(prompt)
    batch = batch_over(rows)
    batch.join(job)
    finish(batch)
    first, *others = pieces_of(job)
    assert list(first.prompt_logprobs) == expected_logprobs(prompt)
    assert [token for piece in others for token in piece.tokens] == alone(job)
    assert max(len(ids) for ids in rows.fed) <= KEPT_POSITIONS


def test_nothing_that_is_known_spares_reading_such_a_prompt() -> None:
    batch = batch_over(FakeRows(hashed))
    prompt = text(1, 100)
    asked(batch, prompt)
    leader, follower = joined(batch, text(2, 100))[0], scored(text(2, 100))
    batch.join(follower)
    again = scored(prompt, max_tokens=0)
    batch.join(again)
    finish(batch)
    for job in (follower, again):
        pieces = pieces_of(job)
        assert list(pieces[0].prompt_logprobs) == expected_logprobs(job.generation.prompt)
        assert pieces[-1].timings
        assert pieces[-1].timings.cached_tokens == 0
    assert ids_of(leader) == alone(leader)
    assert asked(batch, [*prompt, *text(3, 5)])[0] >= 100, "but others profit from it"


@pytest.mark.parametrize("copies", [True, False], ids=["with its cache", "without"])
def test_such_a_prompt_survives_rows_that_are_opened_anew(monkeypatch: pytest.MonkeyPatch, copies: bool) -> None:
    rows, job = FakeRows(hashed), scored(text(1, 100))
    if not copies:
        monkeypatch.delattr(FakeRows, "snapshot")
    batch = batch_over(rows)
    batch.join(job)
    batch.step()
    batch.step()
    batch.detach()
    batch.attach(FakeRows(hashed))
    finish(batch)
    first, *others = pieces_of(job)
    assert list(first.prompt_logprobs) == expected_logprobs(job.generation.prompt)
    assert [token for piece in others for token in piece.tokens] == alone(job)
