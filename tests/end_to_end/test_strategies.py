"""Strategies on the demo model: each phase reads little more than what the one before it did not write or read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent import Model
from device_agent.conversation.converse import start
from device_agent.conversation.records import ChatRequest, Ended, Event, Said, Spent, Thought
from device_agent.engine.records import GREEDY, Grammar
from edgekit import strategies as rules
from edgekit.chat import Message

pytestmark = pytest.mark.demo

USER = Message(role="user", content="Lena has 3 boxes with 4 apples each and eats 2 apples. How many apples are left?")
ADDED_TOKENS = 48
"""The end of one turn, the request to answer, and the beginning of the next."""


@pytest.fixture(scope="module")
def model(demo_bundle_int4: Path) -> Iterator[Model]:
    with Model.open(demo_bundle_int4) as opened:
        yield opened


def answered(model: Model, request: ChatRequest) -> tuple[list[Event], Spent]:
    exchange = start(model, request)
    found = []
    while (event := exchange.next()) is not None:
        found.append(event)
    return found, exchange.spent


def read_tokens(found: list[Event]) -> list[int]:
    """Of the last phase of each choice."""
    return [event.timings.read_tokens for event in found if isinstance(event, Ended) and event.timings]


@pytest.mark.parametrize("name", [name for name, each in rules.packaged().named.items() if each.reasons])
def test_the_answers_phase_does_not_read_the_question_and_the_reasoning_again(model: Model, name: str) -> None:
    request = ChatRequest(messages=(USER,), sampling=GREEDY, max_tokens=60, strategy=name, choices=2)
    found, spent = answered(model, request)
    assert {event.choice for event in found if isinstance(event, Thought)} == {0, 1}
    assert {event.choice for event in found if isinstance(event, Said)} == {0, 1}
    assert 0 < spent.reasoning < spent.output <= 120
    assert len(read_tokens(found)) == 2
    assert max(read_tokens(found)) <= ADDED_TOKENS
    asked = model.chat_prompt(rules.reasoning_messages((USER,), rules.packaged().named[name]))
    assert spent.input == len(asked)


def test_the_answer_has_the_form_that_was_asked_for_and_the_reasoning_has_not(model: Model) -> None:
    request = ChatRequest(
        messages=(USER,),
        sampling=GREEDY,
        max_tokens=60,
        strategy="step-by-step",
        grammar=Grammar("regex", "[0-9]{1,3}"),
    )
    found, _ = answered(model, request)
    assert "".join(event.text for event in found if isinstance(event, Said)).isdecimal()
    assert not "".join(event.text for event in found if isinstance(event, Thought)).isdecimal()


def test_what_was_read_in_order_to_choose_is_not_read_again(model: Model) -> None:
    story = Message(role="user", content="The keeper wrote down the weather. " * 12 + "What did he write down?")
    request = ChatRequest(messages=(story,), sampling=GREEDY, max_tokens=40, strategy="auto")
    found, spent = answered(model, request)
    assert spent.reasoning > 0  # the name
    assert len(model.chat_prompt((story,))) > 2 * ADDED_TOKENS
    assert max(read_tokens(found)) <= ADDED_TOKENS
