"""Bodies of /v1/messages, Anthropic's."""

import json
from typing import Any

import pytest

from device_agent.conversation.records import ToolChoice
from device_agent.http.schema.messages import parse_count, parse_message
from edgekit.errors import InvalidRequest

ASK = [{"role": "user", "content": "Hello"}]
ADD = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}


def parse(**fields: Any) -> Any:
    return parse_message(json.dumps({"model": "tiny", "max_tokens": 5, "messages": ASK} | fields).encode())


def test_the_shortest_request() -> None:
    asked = parse()
    assert (asked.model, asked.stream, asked.request.max_tokens) == ("tiny", False, 5)
    assert [(message.role, message.content) for message in asked.request.messages] == [("user", "Hello")]


def test_a_system_prompt_in_parts_and_a_conversation_with_tools() -> None:
    asked = parse(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            *ASK,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "I add."},
                    {"type": "tool_use", "id": "call_1", "name": "add", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "7"}]},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        tools=[ADD],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    system, _, assistant, tool, user = asked.request.messages
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (assistant.content, assistant.tool_calls[0].arguments) == ("I add.", '{"x":1}')
    assert (tool.role, tool.content, tool.name) == ("tool", "7", "add")
    assert user.content == "And now?"
    assert asked.request.tool_choice == ToolChoice("required")
    assert not asked.request.parallel_calls
    assert asked.request.tools[0].description == "Adds."


def test_sampling_and_stops() -> None:
    request = parse(temperature=0.2, top_k=5, top_p=0.5, stop_sequences=["END"], metadata={"user_id": "u"}).request
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (0.2, 5, 0.5)
    assert request.stop == ("END",)


def test_counting_takes_the_prompt_alone() -> None:
    asked = parse_count(json.dumps({"model": "tiny", "messages": ASK, "system": "Be brief.", "tools": [ADD]}).encode())
    assert [message.role for message in asked.request.messages] == ["system", "user"]
    assert len(asked.request.tools) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*ASK, {"role": "assistant", "content": "The answer is"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "7"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "tool", "name": "add"}}, "tool_choice"),
        ({"seed": 1}, "seed"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)
    assert refused.value.param == param
