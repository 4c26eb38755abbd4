"""A plan is what a request with tools asks for."""

import json

import pytest

from device_agent.conversation import tools
from device_agent.conversation.records import ChatRequest, ToolChoice
from device_agent.engine.records import Grammar
from edgekit.chat import Tool
from tests.device_agent.conversation.tools.accepting import token_id, written_at_random
from tests.device_agent.conversation.tools.asked import ADD, calls, request, said
from tests.families import FAMILIES, HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PHI

YES = Grammar("regex", "yes")
PICK = Tool(
    name="pick",
    parameters='{"type":"object","properties":{"colour":{"enum":["red","blue"]},"sure":{"type":"boolean"}},'
    '"required":["colour","sure"]}',
)


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize(
    "asked",
    [request(tools=[], grammar=YES), request(choice=ToolChoice("none"), grammar=YES)],
    ids=["no tools", "the choice none"],
)
def test_without_tools_the_answers_form_is_the_requests(template: str, asked: ChatRequest) -> None:
    made = tools.plan(asked, template=template, token_id=token_id(controls=True))
    assert made.grammar == YES
    assert made.template_tools == ()
    assert made.shown == frozenset()
    assert said(made.reader().push("<tool_call>[TOOL_CALLS]")) == "<tool_call>[TOOL_CALLS]"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        pytest.param(MISTRAL, ["[TOOL_CALLS]"], id="mistral"),
        pytest.param(MISTRAL_NAMED, ["[TOOL_CALLS]", "[ARGS]"], id="mistral-named"),
        pytest.param(PHI, ["<|tool_call|>", "<|/tool_call|>"], id="phi"),
        pytest.param(LLAMA, [], id="llama3"),
        pytest.param(HERMES, [], id="hermes"),
    ],
)
def test_special_tokens_that_open_and_close_calls_are_shown(template: str, names: list[str]) -> None:
    find = token_id(controls=True)
    made = tools.plan(request(), template=template, token_id=find)
    assert made.shown == {find(name) for name in names}
    assert tools.plan(request(), template=template, token_id=lambda _: None).shown == frozenset()


def test_every_choice_has_a_reader_of_its_own() -> None:
    made = tools.plan(request(), template=HERMES, token_id=lambda _: None)
    first, second = made.reader(), made.reader()
    first.push("<tool_call>")
    assert said(second.push("Hello")) == "Hello"


def test_a_tool_that_was_not_named_is_not_read_either() -> None:
    made = tools.plan(request(choice=ToolChoice("named", "add")), template=HERMES, token_id=lambda _: None)
    reader = made.reader()
    reader.push('<tool_call>\n{"name": "get_weather", "arguments": {}}')
    assert reader.finish()[1] is False


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("controls", [False, True], ids=["text", "control tokens"])
def test_whatever_may_be_written_is_read_as_a_call(template: str, controls: bool) -> None:
    asked = request(tools=[PICK, ADD], choice=ToolChoice("named", "pick"))
    for seed in range(9):
        made = tools.plan(asked, template=template, token_id=token_id(controls=controls))
        assert made.grammar is not None
        reader = made.reader()
        pieces = written_at_random(made.grammar, seed, shown=made.shown, controls=controls)
        events = [event for piece in pieces for event in reader.push(piece)]
        rest, called = reader.finish()
        ((name, arguments),) = calls([*events, *rest])
        assert called
        assert (name, said([*events, *rest])) == ("pick", "")
        assert json.loads(arguments)["colour"] in ("red", "blue")
