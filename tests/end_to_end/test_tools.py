"""A real small model calls tools, through the plan that every route uses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent import Model
from device_agent.conversation import tools
from device_agent.conversation.records import Argued, Called, ChatRequest, Said, ToolChoice
from device_agent.engine.records import Generation
from edgekit.chat import Message, Tool, ToolCall

pytestmark = pytest.mark.demo

WEATHER = Tool(
    name="get_weather",
    description="Get the current weather of a city",
    parameters='{"type":"object","properties":{"city":{"type":"string","description":"Name of the city"}},'
    '"required":["city"]}',
)
ADD = Tool(
    name="add_numbers",
    description="Add two numbers",
    parameters='{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]}',
)
PARIS = Message(role="user", content="What is the weather in Paris?")
SUM = Message(role="user", content="How much is 12 plus 30?")


@pytest.fixture(scope="module")
def model(demo_bundle_int4: Path) -> Iterator[Model]:
    with Model.open(demo_bundle_int4) as opened:
        yield opened


def answered(
    model: Model, *messages: Message, choice: ToolChoice, parallel: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """What the model says, and whom it calls with what."""
    asked = ChatRequest(messages=messages, tools=(WEATHER, ADD), tool_choice=choice, parallel_calls=parallel)
    made = tools.plan(asked, template=model.template, token_id=model.token_id)
    prompt = model.chat_prompt(made.messages, tools=made.template_tools, opening=made.opening)
    reader = made.reader()
    generation = Generation(prompt=prompt, max_tokens=80, grammar=made.grammar, shown=made.shown)
    events = [event for piece in model.submit(generation) for event in reader.push(piece.text)]
    events += reader.finish()[0]
    calls = [
        (event.name, "".join(one.fragment for one in events if isinstance(one, Argued) and one.call == event.call))
        for event in events
        if isinstance(event, Called)
    ]
    return "".join(event.text for event in events if isinstance(event, Said)), calls


@pytest.mark.parametrize(
    ("message", "call"),
    [(PARIS, ("get_weather", {"city": "Paris"})), (SUM, ("add_numbers", {"a": 12, "b": 30}))],
    ids=["weather", "sum"],
)
def test_a_model_that_must_call_calls_the_right_tool(
    model: Model, message: Message, call: tuple[str, dict[str, object]]
) -> None:
    said, calls = answered(model, message, choice=ToolChoice("required"))
    assert said == ""
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [call]


def test_a_named_tool_is_called_whatever_was_asked(model: Model) -> None:
    _, ((name, arguments),) = answered(model, PARIS, choice=ToolChoice("named", "add_numbers"), parallel=True)
    assert name == "add_numbers"
    assert set(json.loads(arguments)) == {"a", "b"}


def test_with_the_choice_auto_or_none_a_model_may_just_answer(model: Model) -> None:
    for mode in (ToolChoice("auto"), ToolChoice("none")):
        said, calls = answered(model, Message(role="user", content="Hi!"), choice=mode)
        assert said
        assert not calls


def test_a_conversation_goes_on_after_a_call(model: Model) -> None:
    call = ToolCall(id="call_1", name="add_numbers", arguments='{"a": 12, "b": 30}')
    said, _ = answered(
        model,
        SUM,
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="42", tool_call_id="call_1"),
        choice=ToolChoice("none"),
    )
    assert "42" in said
