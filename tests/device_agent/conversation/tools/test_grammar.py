"""What a model may write: text, or calls of tools that there are; held against texts by llguidance."""

import json

import pytest

from device_agent.conversation import tools
from device_agent.conversation.records import ChatRequest, ToolChoice
from device_agent.conversation.tools.history import written_calls
from device_agent.conversation.tools.table import syntax_of
from device_agent.engine.grammars.guide import MAX_SOURCE_BYTES
from device_agent.engine.records import Grammar
from edgekit.chat import Tool, ToolCall
from edgekit.errors import InvalidRequest
from tests.device_agent.conversation.tools.accepting import accepts, may_begin, token_id
from tests.device_agent.conversation.tools.asked import ADD, WEATHER, request
from tests.families import FAMILIES

ROME = ToolCall(id="", name="get_weather", arguments='{"city": "Rome"}')
SUM = ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}')
REQUIRED, ADDING = ToolChoice("required"), ToolChoice("named", "add")

every_family = pytest.mark.parametrize("family", FAMILIES)
every_vocabulary = pytest.mark.parametrize("controls", [False, True], ids=["text", "control tokens"])


def grammar_of(family: str, asked: ChatRequest, *, controls: bool = False) -> Grammar:
    made = tools.plan(asked, template=FAMILIES[family], token_id=token_id(controls=controls))
    assert made.grammar is not None
    return made.grammar


def written(family: str, *made: ToolCall) -> str:
    return written_calls(made, syntax_of(FAMILIES[family]))


@every_family
@every_vocabulary
def test_a_call_as_the_family_writes_it_is_an_answer(family: str, controls: bool) -> None:
    for choice in (ToolChoice(), REQUIRED):
        grammar = grammar_of(family, request(choice=choice), controls=controls)
        assert accepts(grammar, written(family, ROME), controls=controls)
        assert accepts(grammar, written(family, SUM), controls=controls)


@every_family
@every_vocabulary
def test_text_is_an_answer_only_if_no_call_is_asked_for(family: str, controls: bool) -> None:
    auto = grammar_of(family, request(), controls=controls)
    required = grammar_of(family, request(choice=REQUIRED), controls=controls)
    for text in ("Hello!", "", "1 < 2\n\nand <tool", "[1, 2]", "é [TOOL_"):
        assert accepts(auto, text, controls=controls)
        assert not accepts(required, text, controls=controls)


@every_family
@every_vocabulary
def test_what_has_begun_as_a_call_must_become_one(family: str, controls: bool) -> None:
    grammar = grammar_of(family, request(), controls=controls)
    good = written(family, ROME)
    for bad in (good.replace("get_weather", "get_water"), good.replace('"Rome"', "1"), good.replace("city", "town")):
        assert not may_begin(grammar, bad, controls=controls)


@every_family
def test_with_parallel_calls_there_may_be_several_where_the_family_can(family: str) -> None:
    both = written(family, ROME, SUM)
    assert accepts(grammar_of(family, request(choice=REQUIRED)), both) == (family != "llama3")
    assert not may_begin(grammar_of(family, request(choice=REQUIRED, parallel=False)), both)


@every_family
def test_a_named_tool_is_called_once_and_no_other(family: str) -> None:
    grammar = grammar_of(family, request(choice=ADDING))
    assert accepts(grammar, written(family, SUM))
    assert not may_begin(grammar, written(family, ROME))
    assert not may_begin(grammar, written(family, SUM, SUM))


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llama3"}))
@every_vocabulary
def test_text_may_come_before_a_call(family: str, controls: bool) -> None:
    grammar = grammar_of(family, request(), controls=controls)
    assert accepts(grammar, "Let me see.\n" + written(family, ROME), controls=controls)
    assert not may_begin(grammar, written(family, ROME) + "There.", controls=controls)


def test_llama_may_begin_with_its_tag_and_text_cannot_begin_like_a_call() -> None:
    grammar = grammar_of("llama3", request(), controls=True)
    assert accepts(grammar, "<|python_tag|>" + written("llama3", ROME), controls=True)
    assert not may_begin(grammar, '{"city', controls=True)
    assert not may_begin(grammar, '\n {"name', controls=True)


def test_mistrals_calls_may_have_ids() -> None:
    grammar = grammar_of("mistral", request(choice=REQUIRED), controls=True)
    with_ids = '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": 2}, "id": "Ab3456789"}]'
    assert accepts(grammar, with_ids, controls=True)
    assert not may_begin(grammar, with_ids.replace("Ab3456789", "Ab"), controls=True)


ANSWERS = {
    "a schema": (
        Grammar("json_schema", '{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}'),
        '{"name": "get_weather"}',
    ),
    "a regular expression": (Grammar("regex", "yes|no/[a-z]\\/\n"), "no/x/\n"),
    "a grammar": (Grammar("lark", 'start: "yes" | more\nmore: "no" /[0-9]+/'), "no42"),
}


@every_family
@pytest.mark.parametrize(("form", "text"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_of_a_given_form_may_be_a_call_instead(family: str, form: Grammar, text: str) -> None:
    grammar = grammar_of(family, request(grammar=form))
    assert accepts(grammar, text)
    assert accepts(grammar, written(family, ROME))
    assert not may_begin(grammar, "Hello")
    assert not may_begin(grammar_of(family, request(grammar=form, choice=REQUIRED)), text)


def test_properties_that_are_not_listed_are_not_invented() -> None:
    more = ToolCall(id="", name="add", arguments='{"a": 1, "b": 2, "c": 3}')
    assert not may_begin(grammar_of("hermes", request()), written("hermes", more))


def test_a_tool_without_parameters_is_called_with_none() -> None:
    grammar = grammar_of("hermes", request(tools=[Tool(name="now")], choice=REQUIRED))
    assert accepts(grammar, written("hermes", ToolCall(id="", name="now", arguments="{}")))


def test_many_tools_have_one_grammar() -> None:
    offered = [Tool(name=f"f{number}", parameters=ADD.parameters) for number in range(100)]
    grammar = grammar_of("hermes", request(tools=offered))
    assert accepts(grammar, written("hermes", ToolCall(id="", name="f99", arguments=SUM.arguments)))


def test_schemas_that_are_too_much_together_are_refused() -> None:
    large = json.dumps({"type": "object", "description": "é" * (MAX_SOURCE_BYTES // 8)}, ensure_ascii=False)
    offered = [Tool(name=f"f{number}", parameters=large) for number in range(5)]
    with pytest.raises(InvalidRequest) as caught:
        grammar_of("hermes", request(tools=offered))
    assert caught.value.param == "tools"
    assert grammar_of("hermes", request(tools=offered[:3])).kind == "lark"


def test_a_model_that_cannot_stop_calling_is_stopped() -> None:
    grammar = grammar_of("hermes", request(tools=[WEATHER], choice=REQUIRED))
    assert accepts(grammar, written("hermes", *[ROME] * 32))
    assert not may_begin(grammar, written("hermes", *[ROME] * 33))
