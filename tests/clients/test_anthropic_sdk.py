"""The anthropic SDK on /v1/messages: whole, streamed, tools, errors."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.clients.agent import Agent

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}
"""Not a parameter of the newest SDK, but of the API."""
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city now.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def sdk(agent: Agent) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=agent.url, api_key="none", max_retries=0, timeout=300) as client:
        yield client


def test_a_message(sdk: anthropic.Anthropic, agent: Agent) -> None:
    done = sdk.messages.create(model=agent.model, max_tokens=30, messages=ASK, system="Be brief.", extra_body=GREEDY)
    assert done.role == "assistant"
    first: Any = done.content[0]
    assert first.text
    assert done.stop_reason in {"end_turn", "max_tokens"}
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0


def test_a_stop_sequence_is_named(sdk: anthropic.Anthropic, agent: Agent) -> None:
    done = sdk.messages.create(model=agent.model, max_tokens=60, messages=ASK, stop_sequences=["e"])
    assert (done.stop_reason, done.stop_sequence) == ("stop_sequence", "e")  # the commonest letter


def test_a_stream(sdk: anthropic.Anthropic, agent: Agent) -> None:
    with sdk.messages.stream(model=agent.model, max_tokens=30, messages=ASK, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    first: Any = final.content[0]
    assert text == first.text
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(sdk: anthropic.Anthropic, agent: Agent, streamed: bool) -> None:
    common: Any = {
        "model": agent.model,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "get_weather"},
        "extra_body": GREEDY,
    }
    if streamed:
        with sdk.messages.stream(**common) as stream:
            done = stream.get_final_message()
    else:
        done = sdk.messages.create(**common)
    call: Any = next(block for block in done.content if block.type == "tool_use")
    assert done.stop_reason == "tool_use"
    assert isinstance(call.input["city"], str)
    turns: list[Any] = [
        *common["messages"],
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in done.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "-3 degrees"}]},
    ]
    again = sdk.messages.create(model=agent.model, max_tokens=20, messages=turns, tools=[WEATHER])
    assert again.stop_reason in {"end_turn", "max_tokens", "tool_use"}


def test_errors_have_their_own_classes(sdk: anthropic.Anthropic, agent: Agent) -> None:
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.create(model="claude", max_tokens=5, messages=ASK)
    with pytest.raises(anthropic.BadRequestError):
        sdk.messages.create(model=agent.model, max_tokens=5, messages=[{"role": "user", "content": "word " * 20_000}])


def test_counting_tokens(sdk: anthropic.Anthropic, agent: Agent) -> None:
    counted = sdk.messages.count_tokens(model=agent.model, messages=ASK)
    done = sdk.messages.create(model=agent.model, max_tokens=1, messages=ASK)
    assert counted.input_tokens == done.usage.input_tokens + (done.usage.cache_read_input_tokens or 0)
