"""Templates are told of tools, calls and results in the way that they understand."""

import pytest

from device_agent.conversation import tools
from device_agent.conversation.records import ToolChoice
from edgekit.chat import ChatTemplate, Message, ToolCall
from tests.device_agent.conversation.tools.asked import ADD, WEATHER, request
from tests.families import CHATML, FAMILIES, GEMMA, HERMES, LLAMA, MISTRAL, PHI

CALL = ToolCall(id="call_0123456789abcdef01234567", name="get_weather", arguments='{"city":"Zürich"}')
OTHER = ToolCall(id="call_1", name="add", arguments='{"a":1,"b":2}')
ASKED = Message(role="user", content="Weather?")
CALLING = Message(role="assistant", content="", tool_calls=(CALL,))
RESULT = Message(role="tool", content="31", tool_call_id=CALL.id)
NONE = ToolChoice("none")


def rendered(template: str | None, *messages: Message, choice: ToolChoice = ToolChoice()) -> str:  # noqa: B008
    made = tools.plan(request(*messages, choice=choice), template=template, token_id=lambda _: None)
    if template is None:
        return "\n".join(message.content for message in made.messages)
    return ChatTemplate(template, bos="<s>", eos="</s>").render(made.messages, made.template_tools)


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_hears_of_tools_calls_and_results(template: str) -> None:
    text = rendered(template, ASKED, CALLING, RESULT)
    for part in ("Weather of a city", '"required": [', '{"city": "Zürich"}', "31"):
        assert part in text


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES.keys())
def test_with_the_choice_none_no_tool_is_mentioned_but_earlier_calls_are(template: str) -> None:
    text = rendered(template, ASKED, CALLING, RESULT, choice=NONE)
    assert "Weather of a city" not in text
    assert '{"city": "Zürich"}' in text


@pytest.mark.parametrize("template", [HERMES, LLAMA, MISTRAL], ids=["hermes", "llama3", "mistral"])
def test_a_template_that_knows_tools_is_given_them(template: str) -> None:
    made = tools.plan(request(), template=template, token_id=lambda _: None)
    assert made.template_tools == (WEATHER, ADD)
    assert [message.role for message in made.messages] == ["user"]


@pytest.mark.parametrize("template", [CHATML, None], ids=["chatml", "no template"])
def test_where_tools_are_unknown_a_system_message_describes_them(template: str | None) -> None:
    made = tools.plan(request(), template=template, token_id=lambda _: None)
    assert made.template_tools == ()
    first, user = made.messages
    assert first.role == "system"
    assert '{"name": "add", "description": "", "parameters": {"type": "object"' in first.content
    assert '<tool_call>\n{"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}\n</tool_call>' in first.content
    assert user.content == "Hello"


def test_a_system_message_that_is_there_comes_first() -> None:
    made = tools.plan(
        request(Message(role="system", content="Be brief."), ASKED), template=CHATML, token_id=lambda _: None
    )
    assert made.messages[0].content.startswith("Be brief.\n\nYou can call functions.")
    assert made.messages[1:] == (ASKED,)


def test_gemma_hears_of_tools_from_the_user() -> None:
    text = rendered(GEMMA, Message(role="system", content="Be brief."), ASKED)
    assert text.startswith("<s><start_of_turn>user\nBe brief.\n\nYou can call functions.")
    assert text.endswith("Weather?<end_of_turn>\n<start_of_turn>model\n")


def test_calls_and_results_are_text_where_a_template_knows_neither() -> None:
    text = rendered(CHATML, ASKED, CALLING, RESULT, choice=NONE)
    assert text == (
        "<|im_start|>user\nWeather?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n31\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_results_and_what_the_user_says_then_are_one_turn_where_they_are_text() -> None:
    both = Message(role="assistant", content="I look.", tool_calls=(CALL, OTHER))
    second = Message(role="tool", content="3", tool_call_id="call_1")
    thanks = Message(role="user", content="And?")
    made = tools.plan(
        request(ASKED, both, RESULT, second, thanks, ASKED, choice=NONE), template=GEMMA, token_id=lambda _: None
    )
    assert [message.role for message in made.messages] == ["user", "assistant", "user"]
    assert made.messages[1].content.startswith('I look.\n<tool_call>\n{"name": "get_weather"')
    assert made.messages[2].content == (
        "<tool_response>\n31\n</tool_response>\n<tool_response>\n3\n</tool_response>\nAnd?\nWeather?"
    )


def test_turns_of_the_user_that_follow_no_result_stay_apart() -> None:
    made = tools.plan(request(ASKED, ASKED, choice=NONE), template=CHATML, token_id=lambda _: None)
    assert made.messages == (ASKED, ASKED)


def test_phi_hears_of_tools_in_its_system_message() -> None:
    assert rendered(PHI, ASKED).startswith("<|system|>You are a helpful assistant with some tools.<|tool|>[{")
    assert rendered(PHI, Message(role="system", content="Be brief."), ASKED).startswith("<|system|>Be brief.<|tool|>[{")


def test_mistral_gets_ids_as_it_wants_them() -> None:
    made = tools.plan(request(ASKED, CALLING, RESULT), template=MISTRAL, token_id=lambda _: None)
    (call,) = made.messages[1].tool_calls
    assert call.id == made.messages[2].tool_call_id
    assert len(call.id) == 9
    assert call.id.isalnum()


def test_mistrals_own_ids_are_kept() -> None:
    own = Message(role="tool", content="31", tool_call_id="Ab3456789")
    made = tools.plan(request(ASKED, own), template=MISTRAL, token_id=lambda _: None)
    assert made.messages[1].tool_call_id == "Ab3456789"


def test_a_result_has_its_tools_name() -> None:
    made = tools.plan(request(ASKED, CALLING, RESULT), template=HERMES, token_id=lambda _: None)
    assert made.messages[2].name == "get_weather"


def test_arguments_that_are_no_json_are_written_as_they_are() -> None:
    broken = Message(role="assistant", content="", tool_calls=(ToolCall(id="1", name="add", arguments="{oops"),))
    assert '{"name": "add", "arguments": {oops}' in rendered(CHATML, ASKED, broken)
