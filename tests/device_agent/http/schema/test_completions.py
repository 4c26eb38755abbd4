"""What is completions' own: prompts of every kind, echo, logprobs as a number."""

from typing import Any

import pytest

from edgekit.errors import InvalidRequest
from tests.device_agent.http.schema.bodies import completion


def refused_param(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields)
    return refused.value.param


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("Hello", ("Hello",)),
        ("", ("",)),
        (["Hello"], ("Hello",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 299], ((1, 2, 299),)),
        ([[1, 2]], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ([[1], "a"], ((1,), "a")),
        ([[]], ((),)),
        (["a"] * 32, ("a",) * 32),
    ],
    ids=str,
)
def test_prompts_are_texts_or_token_ids(given: Any, prompts: Any) -> None:
    assert completion(prompt=given).prompts == prompts


@pytest.mark.parametrize(
    "prompt",
    [None, 5, {}, [], [1, "a"], [1, [2]], [-1], [1 << 31], [True], [1.0], [None], [[[1]]], [["a"]], ["a"] * 33],
    ids=str,
)
def test_a_wrong_prompt_is_refused(prompt: Any) -> None:
    assert (refused_param(prompt=prompt) or "").startswith("prompt")


def test_prompts_and_choices_count_together() -> None:
    assert completion(prompt=["a"] * 4, n=8).choices == 8
    assert refused_param(prompt=["a"] * 5, n=8) == "prompt"


@pytest.mark.parametrize("count", [None, 0, 5, 20])
def test_logprobs_are_a_number(count: int | None) -> None:
    assert completion(logprobs=count).top_logprobs == count


def test_no_answer_is_possible_only_with_an_echo() -> None:
    assert completion(max_tokens=0, echo=True).max_tokens == 0
    assert refused_param(max_tokens=0) == "max_tokens"
    assert refused_param(max_tokens=0, echo=False) == "max_tokens"


@pytest.mark.parametrize(("name", "value"), [("echo", "yes"), ("echo", 1), ("logprobs", True), ("logprobs", 1.0)])
def test_a_wrong_value_is_refused_by_its_name(name: str, value: Any) -> None:
    assert refused_param(**{name: value}) == name
