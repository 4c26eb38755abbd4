"""Tools, calls and results reach templates in the shape that their authors wrote them for."""

import pytest

from edgekit.chat import ChatTemplate, Message, Tool, ToolCall
from edgekit.errors import TemplateError
from tests.families import CHATML, FAMILIES, HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PHI

WEATHER = Tool(
    name="get_weather",
    description="Weather of a city",
    parameters='{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
DESCRIBED = (
    '{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}'
)
CALL = ToolCall(id="abcdefgh1", name="get_weather", arguments='{"city":"Zürich"}')
TALK = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="Weather in Zürich?"),
    Message(role="assistant", content="", tool_calls=(CALL,)),
    Message(role="tool", content="31", tool_call_id="abcdefgh1", name="get_weather"),
]

GOLDEN = {
    "hermes": (
        HERMES,
        TALK,
        (
            f"<|im_start|>system\nBe brief.\n\n<tools>\n{DESCRIBED}\n</tools>\nCalls go into <tool_call></tool_call>."
            "<|im_end|>\n<|im_start|>user\nWeather in Zürich?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
            '{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call><|im_end|>\n'
            "<|im_start|>user\n<tool_response>\n31\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        ),
    ),
    "mistral": (
        MISTRAL,
        TALK,
        (
            f"<s>[AVAILABLE_TOOLS][{DESCRIBED}][/AVAILABLE_TOOLS][INST]Weather in Zürich?[/INST]"
            '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "abcdefgh1"}]</s>'
            '[TOOL_RESULTS]{"content": 31, "call_id": "abcdefgh1"}[/TOOL_RESULTS]'
        ),
    ),
    "mistral-named": (
        MISTRAL_NAMED,
        TALK[1:],
        (
            f"<s>[AVAILABLE_TOOLS][{DESCRIBED}][/AVAILABLE_TOOLS][INST]Weather in Zürich?[/INST]"
            '[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich"}</s>[TOOL_RESULTS]31[/TOOL_RESULTS]'
        ),
    ),
    "phi": (
        PHI,
        TALK[:2],
        (
            '<|system|>Be brief.<|tool|>[{"name": "get_weather", "description": "Weather of a city", "parameters": '
            '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]<|/tool|><|end|>'
            "<|user|>Weather in Zürich?<|end|><|assistant|>"
        ),
    ),
    "chatml": (
        CHATML,
        TALK[:2],
        (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWeather in Zürich?<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
    ),
}


@pytest.mark.parametrize(("source", "messages", "text"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_familys_template_writes_tools_calls_and_results(source: str, messages: list[Message], text: str) -> None:
    assert ChatTemplate(source, bos="<s>", eos="</s>").render(messages, [WEATHER]) == text


def test_llamas_template_writes_tools_calls_and_results() -> None:
    text = ChatTemplate(LLAMA, bos="<|begin_of_text|>").render(TALK, [WEATHER])
    assert text.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n"
    )
    assert '{\n    "type": "function",\n    "function": {\n        "name": "get_weather",' in text
    assert text.endswith(
        "Weather in Zürich?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "get_weather", "parameters": {"city": "Zürich"}}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\n31<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("source", FAMILIES.values(), ids=FAMILIES.keys())
def test_without_tools_a_template_mentions_none(source: str) -> None:
    text = ChatTemplate(source).render([Message(role="user", content="Hello")])
    assert "Hello" in text
    assert "tool" not in text.lower()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("{{ messages[2].tool_calls[0].id }}", "abcdefgh1", id="a call's id"),
        pytest.param("{{ messages[2].tool_calls[0].type }}", "function", id="a call's type"),
        pytest.param("{{ messages[2].tool_calls[0].function.arguments.city }}", "Zürich", id="arguments are parsed"),
        pytest.param("{{ messages[2].content == '' }}", "True", id="no content"),
        pytest.param("{{ messages[3].name }}", "get_weather", id="a result's tool"),
        pytest.param("{{ 'tool_calls' in messages[1] or 'name' in messages[1] }}", "False", id="nothing that is not"),
        pytest.param("{{ tools[0].function.parameters.required[0] }}", "city", id="a schema is parsed"),
        pytest.param("{{ documents is none }}", "True", id="no documents"),
        pytest.param("{{ tools | length }}", "1", id="as many tools as there are"),
        pytest.param("{% generation %}a{% endgeneration %}", "a", id="what training looks for is let through"),
    ],
)
def test_templates_find_what_transformers_gives_them(source: str, text: str) -> None:
    assert ChatTemplate(source).render(TALK, [WEATHER]) == text


def test_json_filters_take_transformers_arguments() -> None:
    source = "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}"
    assert ChatTemplate(source).render([]) == '{"a":1,"b":"\\u00e9"}'


@pytest.mark.parametrize("arguments", ["not JSON", "[1]", '{"a": 1', '{"a": NaN}', '{"a":' * 70 + "1" + "}" * 70])
def test_arguments_that_are_no_object_are_a_text(arguments: str) -> None:
    turn = Message(role="assistant", content="", tool_calls=(ToolCall(id="1", name="f", arguments=arguments),))
    assert ChatTemplate("{{ messages[0].tool_calls[0].function.arguments }}").render([turn]) == arguments


def test_parameters_that_are_no_object_are_refused() -> None:
    with pytest.raises(TemplateError, match="parameters of f"):
        ChatTemplate(CHATML).render(TALK[:2], [Tool(name="f", parameters="[]")])


def test_a_template_that_wants_one_call_at_a_time_says_so() -> None:
    both = Message(role="assistant", content="", tool_calls=(CALL, CALL))
    with pytest.raises(TemplateError, match="only supports single tool-calls"):
        ChatTemplate(LLAMA).render([*TALK[:2], both])
