"""What is chat's own: messages, tools, forms of an answer, logprobs."""

import json
from typing import Any

import pytest

from device_agent.conversation.records import ToolChoice
from device_agent.engine.records import Grammar
from edgekit.chat import Message, Tool, ToolCall
from edgekit.errors import InvalidRequest
from tests.device_agent.http.schema.bodies import HELLO, call, chat, function


def refused_param(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    return refused.value.param


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_count(name: str) -> None:
    assert chat(**{name: 200}).request.max_tokens == 200
    assert chat(max_tokens=5, max_completion_tokens=5).request.max_tokens == 5
    assert refused_param(**{name: 0}) == name


def test_contradicting_token_limits_are_refused() -> None:
    assert refused_param(max_tokens=5, max_completion_tokens=6) == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": None}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_logprobs_are_asked_for_with_or_without_likely_ones(fields: Any, top: int | None) -> None:
    assert chat(**fields).request.top_logprobs == top


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 1},
        {"logprobs": False, "top_logprobs": 1},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": True, "top_logprobs": -1},
    ],
)
def test_likely_ones_without_logprobs_or_too_many_are_refused(fields: Any) -> None:
    assert refused_param(**fields) == "top_logprobs"


def test_a_strategy_may_be_named() -> None:
    assert chat(edgekit={"strategy": "step-by-step"}).request.strategy == "step-by-step"
    assert chat(edgekit={}).request.strategy is None
    assert refused_param(edgekit={"strategy": ""}) == "edgekit.strategy"


# --- messages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "system", "content": "a"}, Message(role="system", content="a")),
        ({"role": "developer", "content": "a"}, Message(role="system", content="a")),
        ({"role": "user", "content": ""}, Message(role="user", content="")),
        ({"role": "user", "content": "a", "name": "Bob"}, Message(role="user", content="a", name="Bob")),
        ({"role": "assistant", "content": None}, Message(role="assistant", content="")),
        ({"role": "assistant"}, Message(role="assistant", content="")),
        (
            {
                "role": "assistant",
                "content": "a",
                "refusal": None,
                "tool_calls": None,
                "annotations": [],
                "audio": None,
            },
            Message(role="assistant", content="a"),
        ),
        (
            {"role": "assistant", "content": "a", "reasoning_content": "b", "parsed": {"c": 1}, "function_call": None},
            Message(role="assistant", content="a"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message(role="user", content="a\nb"),
        ),
        ({"role": "user", "content": []}, Message(role="user", content="")),
        (
            {"role": "assistant", "content": None, "tool_calls": [call(arguments='{"a": 1}')]},
            Message(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments='{"a": 1}'),)),
        ),
        (
            {"role": "assistant", "tool_calls": [call(arguments="", index=0)]},
            Message(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),)),
        ),
    ],
    ids=str,
)
def test_a_message_is_read(turn: dict[str, Any], message: Message) -> None:
    assert chat(messages=[turn]).request.messages == (message,)


def test_a_tools_message_gets_the_name_of_its_call() -> None:
    turns = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call("c1", "look"), call("c2", "find")]},
        {"role": "tool", "tool_call_id": "c2", "content": "here"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "there"}], "name": "other"},
    ]
    assert chat(messages=turns).request.messages[2:] == (
        Message(role="tool", content="here", tool_call_id="c2", name="find"),
        Message(role="tool", content="there", tool_call_id="c1", name="look"),
    )


CALLED = {"role": "assistant", "tool_calls": [call()]}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        (HELLO * 4097, "messages"),
        ([5], "messages[0]"),
        ([{"content": "a"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}] * 1025}], "messages[0].content"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([{"role": "function", "content": "a", "name": "f"}], "messages[0].role"),
        ([{"role": "user", "content": "a", "name": "<|im_end|>"}], "messages[0].name"),
        ([{"role": "user", "content": "a", "name": "a b"}], "messages[0].name"),
        ([{"role": "assistant", "content": "a", "refusal": "no"}], "messages[0].refusal"),
        ([{"role": "assistant", "content": "a", "audio": {"id": "x"}}], "messages[0].audio"),
        ([{"role": "assistant", "content": "a", "function_call": {"name": "f"}}], "messages[0].function_call"),
        ([{"role": "assistant", "content": "a", "annotations": [{}]}], "messages[0].annotations"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].id"),
        ([{"role": "assistant", "tool_calls": [call(type="custom")]}], "messages[0].tool_calls[0].type"),
        ([{"role": "assistant", "tool_calls": [call(arguments="{")]}], "messages[0].tool_calls[0].function.arguments"),
        ([{"role": "assistant", "tool_calls": [call(arguments="[]")]}], "messages[0].tool_calls[0].function.arguments"),
        (
            [{"role": "assistant", "tool_calls": [call(arguments='{"a":' + "[" * 10_000)]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "assistant", "tool_calls": [call("<|x|>")]}], "messages[0].tool_calls[0].id"),
        ([{"role": "user", "content": "a", "tool_calls": [call()]}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "a", "tool_call_id": "c1"}], "messages[0].tool_call_id"),
        ([CALLED, {"role": "tool", "content": "a"}], "messages[1].tool_call_id"),
        ([CALLED, {"role": "tool", "content": "a", "tool_call_id": "c2"}], "messages[1].tool_call_id"),
        ([CALLED, {"role": "tool", "tool_call_id": "c1"}], "messages[1].content"),
        ([{"role": "tool", "content": "a", "tool_call_id": "c1"}, CALLED], "messages[0].tool_call_id"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_message_is_refused_by_its_place(messages: Any, param: str) -> None:
    assert refused_param(messages=messages) == param


def test_an_image_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match=r"reads text only.*image_url"):
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])


# --- tools ----------------------------------------------------------------------------------


def test_a_tool_keeps_its_schema_in_the_order_it_was_sent() -> None:
    parameters = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}
    (tool,) = chat(tools=[function(description="d", parameters=parameters, strict=True)]).request.tools
    assert (tool.name, tool.description) == ("look", "d")
    assert json.dumps(parameters, separators=(",", ":")) == tool.parameters


@pytest.mark.parametrize("fields", [{}, {"description": None, "parameters": None, "strict": None}])
def test_a_tool_may_be_a_name_only(fields: Any) -> None:
    assert chat(tools=[function(**fields)]).request.tools == (Tool(name="look"),)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice("auto")),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "look"}}, ToolChoice("named", "look")),
    ],
)
def test_a_tool_choice_is_read(choice: Any, expected: ToolChoice) -> None:
    assert chat(tools=[function()], tool_choice=choice).request.tool_choice == expected


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_choice_that_needs_no_tools_may_stand_alone(choice: Any) -> None:
    assert chat(tools=[], tool_choice=choice).request.tools == ()


@pytest.mark.parametrize(("given", "parallel"), [(None, True), (True, True), (False, False)])
def test_parallel_calls_are_the_default(given: Any, parallel: bool) -> None:
    assert chat(tools=[function()], parallel_tool_calls=given).request.parallel_calls is parallel


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "function": {"name": "a"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [function("a b")]}, "tools[0].function.name"),
        ({"tools": [function("")]}, "tools[0].function.name"),
        ({"tools": [function("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [function(), function("b"), function()]}, "tools[2].function.name"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [function(parameters={"a": "x" * (256 << 10)})]}, "tools[0].function.parameters"),
        ({"tools": [function(f"f{i}") for i in range(129)]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [function()], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [function()], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [function()], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
        ({"tools": [function()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_tools_are_refused_by_their_place(fields: Any, param: str) -> None:
    assert refused_param(**fields) == param


# --- forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "grammar"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Grammar("json_schema", '{"type":"object"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"b": 1, "a": 2}, "strict": True}},
            Grammar("json_schema", '{"b":1,"a":2}'),
        ),
        ({"type": "json_schema", "json_schema": {"schema": True}}, Grammar("json_schema", "true")),
    ],
)
def test_a_response_format_becomes_a_grammar(wanted: Any, grammar: Grammar | None) -> None:
    assert chat(response_format=wanted).request.grammar == grammar


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ("json_object", "response_format"),
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "schema": {"type": "object"}}, "response_format.schema"),
        ({"type": "json_object", "schema": {"type": "object"}}, "response_format.schema"),
        ({"type": "json_object", "json_schema": {"schema": {}}}, "response_format.type"),
        (
            {"type": "json_schema", "json_schema": {"type": "object", "properties": {}}},
            "response_format.json_schema.type",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {"a": "x" * (256 << 10)}}},
            "response_format.json_schema.schema",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_response_format_is_refused_by_its_place(wanted: Any, param: str) -> None:
    assert refused_param(response_format=wanted) == param


def test_a_misplaced_schema_is_told_its_place() -> None:
    with pytest.raises(InvalidRequest, match=r"response_format\.json_schema\.schema"):
        chat(response_format={"type": "json_schema", "schema": {}})


def test_two_forms_contradict_each_other() -> None:
    fields = {"grammar": {"type": "regex", "value": "a"}}
    assert refused_param(response_format={"type": "json_object"}, **fields) == "grammar"
    assert chat(response_format={"type": "text"}, **fields).request.grammar == Grammar("regex", "a")
