"""Tools that cannot be called are refused, and the error says which."""

import json
from typing import Any

import pytest

from device_agent.conversation.records import ToolChoice, ToolMode
from device_agent.conversation.tools.check import MAX_DESCRIPTION_CHARS, MAX_SCHEMA_CHARS, MAX_TOOLS, checked_schemas
from edgekit.chat import Tool
from edgekit.errors import InvalidRequest
from tests.device_agent.conversation.tools.asked import ADD, WEATHER

ANY = ToolChoice()


def refused(*tools: Tool, choice: ToolChoice = ANY) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        checked_schemas(tools, choice)
    return caught.value


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "a" * 65, "a\n", "<|im_end|>", 'a"'])
def test_a_name_has_only_what_openai_allows(name: str) -> None:
    assert refused(WEATHER, Tool(name=name)).param == "tools[1].function.name"


@pytest.mark.parametrize("name", ["a", "A-b_9", "a" * 64])
def test_names_as_openai_allows_them_are_taken(name: str) -> None:
    assert list(checked_schemas([Tool(name=name)], ANY)) == [name]


def test_two_tools_of_one_name_are_refused() -> None:
    error = refused(ADD, WEATHER, ADD)
    assert error.param == "tools[2].function.name"
    assert "two tools of the name 'add'" in str(error)


def test_there_are_no_more_tools_than_openai_takes() -> None:
    tools = [Tool(name=f"f{number}") for number in range(MAX_TOOLS + 1)]
    assert len(checked_schemas(tools[:-1], ANY)) == MAX_TOOLS
    assert refused(*tools).param == "tools"


BAD_SCHEMAS = {
    "no JSON": "{",
    "no object": "[]",
    "another type": '{"type":"string"}',
    "types": '{"type":["object","null"]}',
    "an unknown type": '{"type":"object","properties":{"a":{"type":"strin"}}}',
    "no schema": '{"type":"object","properties":{"a":3}}',
    "a reference to nothing": '{"type":"object","properties":{"a":{"$ref":"#/$defs/b"}}}',
    "a reference to elsewhere": '{"type":"object","properties":{"a":{"$ref":"http://127.0.0.1/b"}}}',
    "properties that are none": '{"type":"object","properties":[1]}',
    "a list that is none": '{"type":"object","required":"a"}',
    "a type within": '{"type":"object","properties":{"a":{"anyOf":[{"items":{"type":"int"}}]}}}',
    "depth": '{"a":' * 70 + "{}" + "}" * 70,
    "size": json.dumps({"type": "object", "description": "a" * MAX_SCHEMA_CHARS}),
    "a number too large": '{"type":"object","properties":{"a":{"maximum":1e999}}}',
}


@pytest.mark.parametrize("parameters", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS.keys())
def test_parameters_must_be_a_schema_of_an_object(parameters: str) -> None:
    assert refused(ADD, Tool(name="f", parameters=parameters)).param == "tools[1].function.parameters"


GOOD_SCHEMAS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no properties": {"type": "object", "properties": {}},
    "a format nobody knows": {"type": "object", "properties": {"a": {"type": "string", "format": "uri-reference"}}},
    "keywords that are passed over": {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
    "oneOf": {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}, {"maxLength": 3}]}}},
    "references": {
        "$defs": {"a/b": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a~1b/anyOf/1"}, "b": True},
    },
    "its own idea of white space": {"type": "object", "x-guidance": {"whitespace_pattern": "("}},
}


@pytest.mark.parametrize("schema", GOOD_SCHEMAS.values(), ids=GOOD_SCHEMAS.keys())
def test_schemas_as_clients_send_them_are_taken(schema: dict[str, Any]) -> None:
    assert checked_schemas([Tool(name="f", parameters=json.dumps(schema))], ANY)["f"]["type"] == "object"


def test_a_description_is_bounded() -> None:
    long = Tool(name="f", description="a" * (MAX_DESCRIPTION_CHARS + 1))
    assert refused(long).param == "tools[0].function.description"


@pytest.mark.parametrize(
    ("tools", "mode", "name"),
    [
        ((ADD,), "named", "get_weather"),
        ((ADD,), "named", None),
        ((), "named", "add"),
        ((), "required", None),
    ],
)
def test_only_a_tool_that_is_there_can_be_chosen(tools: tuple[Tool, ...], mode: ToolMode, name: str | None) -> None:
    assert refused(*tools, choice=ToolChoice(mode, name)).param == "tool_choice"
