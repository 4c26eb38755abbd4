"""Text, calls and arguments are told apart as they come, however the text is cut into pieces."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.conversation.records import Argued, Called, Said
from device_agent.conversation.tools.history import written_calls
from device_agent.conversation.tools.reader import CallReader, PlainReader
from device_agent.conversation.tools.records import Found, Syntax
from device_agent.conversation.tools.table import syntax_of
from device_agent.engine.records import TokenLogprob
from edgekit.chat import ToolCall
from tests.device_agent.conversation.tools.asked import calls, said
from tests.families import FAMILIES

ROME = ToolCall(id="", name="get_weather", arguments='{"city": "R\\"}]ö{\\\\", "in": [{}, "</tool_call>"]}')
SUM = ToolCall(id="", name="add", arguments="{}")
NAMES = {"get_weather", "add"}
HERMES = syntax_of(FAMILIES["hermes"])
LLAMA = syntax_of(FAMILIES["llama3"])
MISTRAL = syntax_of(FAMILIES["mistral"])
SYNTAXES = {name: syntax_of(template) for name, template in FAMILIES.items()}

every_syntax = pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())


def read(syntax: Syntax, *pieces: str) -> tuple[list[Found], bool]:
    reader = CallReader(syntax, NAMES)
    found = [event for piece in pieces for event in reader.push(piece)]
    rest, called = reader.finish()
    return [*found, *rest], called


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 500), max_size=12)


@every_syntax
@given(places=CUTS)
def test_calls_are_read_however_they_are_cut(syntax: Syntax, places: list[int]) -> None:
    made = [ROME] if syntax is LLAMA else [ROME, SUM, ROME]
    lead = "" if syntax is LLAMA else "Let me <see> [1].\n"
    events, called = read(syntax, *cut(lead + written_calls(made, syntax), places))
    assert called
    assert calls(events) == [(one.name, one.arguments) for one in made]
    assert said(events) == lead.rstrip()


@every_syntax
@given(
    text=st.lists(
        st.sampled_from(["<tool_", "call>", "{", '"name": "', " ", "\n", "[TOOL_CALLS]", "[", "add", "é"]) | st.text()
    ).map("".join),
    places=CUTS,
)
def test_any_text_reads_the_same_however_it_is_cut(syntax: Syntax, text: str, places: list[int]) -> None:
    whole, whole_called = read(syntax, text)
    pieces, pieces_called = read(syntax, *cut(text, places))
    assert (said(pieces), calls(pieces), pieces_called) == (said(whole), calls(whole), whole_called)


PLAIN = {
    "words": "Hello, world!",
    "blanks": " \n\n",
    "nothing": "",
    "half an opening": "a <tool_call",
    "blanks at the end": "a \n",
    "another tool": '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
    "no call": "The mark <tool_call> opens a call.",
    "a call's name continued": '<tool_call>\n{"name": "address", "arguments": {}}',
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_what_is_no_call_stays_text(text: str) -> None:
    events, called = read(HERMES, *text)
    assert said(events) == text
    assert not called


@pytest.mark.parametrize("text", ['{"name": "rm", "parameters": {}}', '{"city": 1}', '{"na', "{", " {"])
def test_json_that_is_no_call_stays_text(text: str) -> None:
    events, called = read(LLAMA, *text)
    assert said(events) == text
    assert not called


def test_text_goes_out_at_once() -> None:
    reader = CallReader(HERMES, NAMES)
    assert said(reader.push("Hello")) == "Hello"
    assert said(reader.push(" the")) == " the"
    assert said(reader.push("re <b> <")) == "re <b>"
    assert said(reader.push("i>")) == " <i>"


def test_a_call_is_told_as_soon_as_its_name_is_certain_and_its_arguments_as_they_come() -> None:
    reader = CallReader(HERMES, NAMES)
    assert list(reader.push('<tool_call>\n{"name": "add')) == []
    (begun,) = reader.push('", "arguments": ')
    assert isinstance(begun, Called)
    assert (begun.call, begun.name) == (0, "add")
    assert list(reader.push('{"a"')) == [Argued(call=0, fragment='{"a"')]
    assert list(reader.push(": 1}}\n</tool")) == [Argued(call=0, fragment=": 1}")]
    assert list(reader.push("_call>")) == []
    assert reader.finish() == ([], True)


def test_ids_are_unlike_each_other() -> None:
    events, _ = read(HERMES, written_calls([ROME] * 9, HERMES))
    ids = [event.id for event in events if isinstance(event, Called)]
    assert len(set(ids)) == 9
    assert all(re.fullmatch("call_[0-9a-f]{24}", one) for one in ids)


def test_calls_are_counted_from_0() -> None:
    events, _ = read(MISTRAL, written_calls([ROME, SUM], MISTRAL))
    assert [event.call for event in events if isinstance(event, Called)] == [0, 1]


def test_mistrals_ids_are_passed_over() -> None:
    text = '[TOOL_CALLS] [{"name": "add", "arguments": {}, "id": "Ab3456789"}, {"name": "add", "arguments": {"a": 1}}]'
    events, _ = read(MISTRAL, *text)
    assert calls(events) == [("add", "{}"), ("add", '{"a": 1}')]
    assert said(events) == ""


def test_a_call_cut_short_has_the_arguments_so_far() -> None:
    events, called = read(HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": [1')
    assert calls(events) == [("add", '{"a": [1')]
    assert called


def test_a_call_cut_short_before_its_name_is_nothing() -> None:
    events, called = read(HERMES, 'So: <tool_call>\n{"name": "ad')
    assert said(events) == "So:"
    assert not called


def test_what_comes_after_calls_is_not_text() -> None:
    events, _ = read(HERMES, written_calls([SUM], HERMES) + "\nDone.")
    assert said(events) == ""


def logprob(token: int) -> TokenLogprob:
    return TokenLogprob(token, -1.0)


def test_text_comes_with_the_logprobs_of_the_tokens_that_brought_it() -> None:
    reader = CallReader(HERMES, NAMES)
    assert list(reader.push("a", [logprob(1)])) == [Said(text="a", logprobs=(logprob(1),))]
    assert list(reader.push(" <", [logprob(2)])) == []
    assert list(reader.push("b", [logprob(3)])) == [Said(text=" <b", logprobs=(logprob(2), logprob(3)))]
    reader.push('<tool_call>{"name": "add", "arguments": ', [logprob(4)])
    assert not [event for event in reader.push("{}", [logprob(5)]) if isinstance(event, Said)]


def test_without_tools_all_text_is_text() -> None:
    reader = PlainReader()
    assert list(reader.push("", [logprob(1)])) == []
    assert list(reader.push("<tool_call>", [logprob(2)])) == [
        Said(text="<tool_call>", logprobs=(logprob(1), logprob(2)))
    ]
    assert reader.finish() == ((), False)
