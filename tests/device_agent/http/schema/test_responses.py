"""Bodies of /v1/responses."""

import json
from typing import Any

import pytest

from device_agent.conversation.records import ToolChoice
from device_agent.engine.records import Grammar
from device_agent.http.schema.responses import parse_response
from edgekit.errors import InvalidRequest

ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}


def parse(**fields: Any) -> Any:
    return parse_response(json.dumps({"model": "tiny", "input": "Hello"} | fields).encode())


def test_the_shortest_request() -> None:
    asked = parse()
    assert asked.model == "tiny"
    assert not asked.stream
    assert [(message.role, message.content) for message in asked.request.messages] == [("user", "Hello")]
    assert asked.request.max_tokens is None


def test_instructions_come_first() -> None:
    asked = parse(instructions="Be brief.")
    assert [message.role for message in asked.request.messages] == ["system", "user"]
    assert asked.asked["instructions"] == "Be brief."


def test_a_conversation_with_a_call_and_its_result() -> None:
    asked = parse(
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "3 + 4?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"x":3}', "id": "fc_1"},
            {"type": "function_call", "call_id": "call_2", "name": "add", "arguments": "", "status": "completed"},
            {"type": "function_call_output", "call_id": "call_1", "output": "7"},
        ],
        tools=[ADD],
    )
    user, assistant, tool = asked.request.messages
    assert user.content == "3 + 4?"
    assert assistant.content == "I add."
    assert [(call.id, call.arguments) for call in assistant.tool_calls] == [("call_1", '{"x":3}'), ("call_2", "{}")]
    assert (tool.role, tool.content, tool.tool_call_id, tool.name) == ("tool", "7", "call_1", "add")


def test_parameters_mean_what_they_mean_in_chat() -> None:
    asked = parse(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        tools=[ADD],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "integer"}, "strict": True}},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        edgekit={"strategy": "direct"},
        stream=True,
    )
    request = asked.request
    assert (request.max_tokens, request.sampling.temperature, request.sampling.seed) == (9, 0.5, 7)
    assert request.tool_choice == ToolChoice("named", "add")
    assert not request.parallel_calls
    assert request.grammar == Grammar("json_schema", '{"type":"integer"}')
    assert request.top_logprobs == 2
    assert request.strategy == "direct"
    assert asked.stream


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call", "id": "1"}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "call_9", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"messages": []}, "messages"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)
    assert refused.value.param == param
