"""A real model under the whole engine: no text depends on who else is there, on what is kept, or on guesses."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_agent import Model
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.kept.prefixes import common
from device_agent.engine.records import EngineSettings, Generation, Sampling
from edgekit.bundle import open_bundle
from tests.device_agent.bundles import CONCAT, CONTEXT, INT8, NO_END, TINY

ALONE = EngineSettings(threads=1, slots=1, prefix_bytes=0, guess=False, chunk_tokens=CONTEXT)
"""As an engine would be that knows nothing of batches, prefixes, chunks and guesses."""
BUNDLES = [pytest.param(folder, id=folder.name) for folder in (TINY, INT8, CONCAT)]


def prompts() -> list[tuple[int, ...]]:
    """Of 5 to 200 tokens; some begin alike, some repeat themselves."""
    dice = random.Random(11)
    shared = dice.choices(range(3, 256), k=100)
    found = [(*shared, *dice.choices(range(3, 256), k=dice.randint(5, 100))) for _ in range(4)]
    found += [tuple(dice.choices(range(3, 256), k=dice.randint(5, 60))) for _ in range(2)]
    return [*found, tuple(shared[:12] * 8)]


GENERATIONS = [
    Generation(prompt=prompt, max_tokens=40, sampling=Sampling(temperature=0.0, logit_bias=NO_END))
    for prompt in prompts()
]


def ids_of(model: Model, generations: Sequence[Generation]) -> list[list[int]]:
    """All at once, as far as there are slots."""
    answers = [model.submit(generation) for generation in generations]
    return [[token for piece in answer for token in piece.tokens] for answer in answers]


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture(scope="module")
def expected(bundle: Path) -> list[list[int]]:
    with Model.open(bundle, engine=ALONE) as model:
        return [ids for generation in GENERATIONS for ids in ids_of(model, [generation])]


SETTINGS = {
    "together": EngineSettings(threads=1, slots=4, prefix_bytes=0, guess=False),
    "in small chunks": EngineSettings(threads=1, slots=1, prefix_bytes=0, guess=False, chunk_tokens=7),
    "with what is known": EngineSettings(threads=1, slots=2, guess=False),
    "with guesses": EngineSettings(threads=1, slots=1, prefix_bytes=0),
    "with everything": EngineSettings(threads=2),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_answers_are_those_of_an_engine_that_does_one_thing_at_a_time(
    settings: EngineSettings, bundle: Path, expected: list[list[int]]
) -> None:
    """Up to rounding: a token read alone and in company goes through different kernels, and texts part at a tie."""
    generations, wanted = [*GENERATIONS, *GENERATIONS[::-1]], [*expected, *expected[::-1]]
    with Model.open(bundle, engine=settings) as model:
        found = [*ids_of(model, GENERATIONS), *ids_of(model, GENERATIONS[::-1])]
    other = [at for at, ids in enumerate(found) if ids != wanted[at]]
    assert len(other) <= 2
    for at in other:
        assert _gap(bundle, generations[at].prompt, found[at], wanted[at]) < 0.02


def _gap(bundle: Path, prompt: Sequence[int], ids: Sequence[int], wanted: Sequence[int]) -> float:
    """Where two answers part: how much likelier one token is than the other, as logits."""
    parting = common(ids, wanted)
    rows = open_rows(open_bundle(bundle), threads=1)
    logits = rows.read(0, [*prompt, *ids[:parting]])[0]
    return abs(float(logits[ids[parting]] - logits[wanted[parting]]))


def test_a_chat_goes_on_after_the_model_was_opened_anew(expected: list[list[int]], bundle: Path) -> None:
    with Model.open(bundle, engine=EngineSettings(threads=1, idle_unload_s=0.0)) as model:
        for generation, ids in zip(GENERATIONS, expected, strict=True):
            while model.state().loaded:
                pass
            assert ids_of(model, [generation])[0][:10] == ids[:10]
        assert model.state().cached_tokens >= 3 * 100


def test_the_second_turn_reads_only_what_is_new(bundle: Path) -> None:
    with Model.open(bundle, engine=EngineSettings(threads=1)) as model:
        (first,) = ids_of(model, GENERATIONS[:1])
        chat = (*GENERATIONS[0].prompt, *first)
        last = list(model.submit(Generation(prompt=(*chat, 5, 6, 7), max_tokens=2)))[-1]
    assert last.timings
    assert last.timings.cached_tokens == len(chat) - 1
    assert last.timings.read_tokens == 4
