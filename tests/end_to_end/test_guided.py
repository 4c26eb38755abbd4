"""The demo model under grammars, and how likely it says that its tokens are."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from device_agent import Model
from device_agent.engine.graphs.session import open_rows
from device_agent.engine.records import EngineSettings, Generation, Grammar, Piece, Sampling
from edgekit.bundle import open_bundle
from edgekit.chat import Message
from tests.end_to_end.conftest import Bundles

pytestmark = pytest.mark.demo

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "work": {"enum": ["teacher", "engineer", "none"]},
        "pets": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["name", "age", "work", "pets"],
    "additionalProperties": False,
}
PERSON = Grammar("json_schema", json.dumps(SCHEMA))


@pytest.fixture(scope="module")
def model(bundles: Bundles) -> Iterator[Model]:
    with Model.open(bundles("int4").folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def float_model(bundles: Bundles) -> Iterator[Model]:
    with Model.open(bundles("fp32").folder) as opened:
        yield opened


def prompt(model: Model, text: str = "Describe a person as JSON.") -> tuple[int, ...]:
    return model.chat_prompt([Message(role="user", content=text)])


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def check(pieces: list[Piece]) -> None:
    found: dict[str, Any] = json.loads(text_of(pieces))
    assert pieces[-1].finish == "stop"
    assert list(found) == ["name", "age", "work", "pets"]
    assert 1 <= len(found["name"]) <= 30
    assert type(found["age"]) is int
    assert 0 <= found["age"] <= 120
    assert found["work"] in {"teacher", "engineer", "none"}
    assert len(found["pets"]) <= 3
    assert all(isinstance(pet, str) and len(pet) <= 12 for pet in found["pets"])


@pytest.mark.parametrize("seed", range(20))
def test_json_of_a_schema_is_valid_whatever_is_drawn(model: Model, seed: int) -> None:
    sampling = Sampling(temperature=1.0, seed=seed)
    check(list(model.submit(Generation(prompt=prompt(model), grammar=PERSON, sampling=sampling, max_tokens=300))))


def test_four_at_once_are_as_valid(model: Model) -> None:
    generations = [
        Generation(prompt=prompt(model), grammar=PERSON, sampling=Sampling(seed=seed), max_tokens=300)
        for seed in range(4)
    ]
    for answer in [model.submit(generation) for generation in generations]:
        check(list(answer))


def test_the_name_of_the_token_that_ends_answers_is_text_in_json(model: Model) -> None:
    grammar = Grammar("json_schema", json.dumps({"const": "a <|im_end|> b"}))
    pieces = list(model.submit(Generation(prompt=prompt(model), grammar=grammar, max_tokens=50)))
    assert (json.loads(text_of(pieces)), pieces[-1].finish) == ("a <|im_end|> b", "stop")


def test_greedy_text_is_the_same_with_logprobs(bundles: Bundles) -> None:
    # Without guesses: whether they are made depends on time, and a step of several tokens rounds otherwise.
    settings = EngineSettings(guess=False, prefix_bytes=0)
    with Model.open(bundles("int4").folder, engine=settings) as model:
        plain, scored = (
            list(model.submit(Generation(prompt=prompt(model), max_tokens=60, top_logprobs=top))) for top in (None, 5)
        )
    assert text_of(plain) == text_of(scored)
    for piece in scored:
        for token, found in zip(piece.tokens, piece.logprobs, strict=True):
            assert found.id == token == found.top[0][0]
            assert found.logprob == found.top[0][1]
            assert [value for _, value in found.top] == sorted((value for _, value in found.top), reverse=True)


def test_logprobs_are_the_log_softmax_of_the_float_graph(float_model: Model, bundles: Bundles) -> None:
    ids = prompt(float_model)
    first, *pieces = float_model.submit(Generation(prompt=ids, max_tokens=20, top_logprobs=3, prompt_logprobs=True))
    written = [token for piece in pieces for token in piece.tokens]
    found = [*first.prompt_logprobs, *(each for piece in pieces for each in piece.logprobs)]
    rows = open_rows(open_bundle(bundles("fp32").folder), threads=1)
    whole = [*ids, *written]
    logits = rows.read(0, whole[:-1], keep=len(whole) - 1).astype(np.float64)
    expected = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert [each.id for each in found] == whole
    assert found[0].logprob is None
    for each, line in zip(found[1:], expected, strict=True):
        assert each.logprob == pytest.approx(line[each.id], abs=2e-3)
        assert [value for _, value in each.top] == pytest.approx(np.sort(line)[-3:][::-1], abs=2e-3)


def test_a_prompt_alone_can_be_scored(model: Model) -> None:
    ids = model.text_prompt("The capital of France is Paris. " * 30)
    first, last = model.submit(Generation(prompt=ids, prompt_logprobs=True, max_tokens=0))
    values = [each.logprob for each in first.prompt_logprobs[1:]]
    assert [each.id for each in first.prompt_logprobs] == list(ids)
    assert all(value is not None and value <= 0 for value in values)
    assert np.mean([value or 0.0 for value in values[-100:]]) > -0.2, "a text that repeats itself is expected"
    assert (last.text, last.finish) == ("", "length")
