"""Events of a chat as OpenAI's clients read them, whole and streamed."""

import json
import math
from typing import Any

import msgspec
import pytest

from device_agent.conversation.records import Argued, Called, Ended, Event, Said, Spent, Thought
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies import sse
from device_agent.http.replies.chat import ChatReply
from device_agent.http.replies.common import Envelope
from device_agent.http.replies.spelling import Speller
from tests.device_agent.http.scripted import SPENT, parts
from tests.fakes import TIMINGS, FakeService

END = 2


class Letters(FakeService):
    """Token 200 is the first byte of a character, 201 the second."""

    def token_bytes(self, token_id: int) -> bytes:
        return {200: b"\xc3", 201: b"\xa9"}.get(token_id, chr(token_id).encode())


def reply(*, choices: int = 1, with_logprobs: bool = False, with_usage: bool = False) -> ChatReply:
    return ChatReply(
        envelope=Envelope(id="chatcmpl-1", created=1, model="tiny", fingerprint="fp_1", with_usage=with_usage),
        choices=choices,
        speller=Speller(Letters()),
        with_logprobs=with_logprobs,
        endings=frozenset({END}),
    )


def streamed(made: ChatReply, *events: Event, spent: Spent = SPENT) -> list[Any]:
    raw = made.opening() + b"".join(made.event(event) for event in events) + made.closing(spent)
    *chunks, done = parts(raw)
    assert done == sse.DONE
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def whole(made: ChatReply, *events: Event) -> Any:
    return msgspec.to_builtins(made.whole(events, SPENT))


CALLS = (
    Said(text="Let me look."),
    Called(call=0, id="c0", name="look"),
    Argued(call=0, fragment='{"at":'),
    Argued(call=0, fragment='"x"}'),
    Called(call=1, id="c1", name="find"),
    Argued(call=1, fragment="{}"),
    Ended(reason="tool_calls"),
)


def test_calls_are_whole_with_arguments_as_text() -> None:
    (choice,) = whole(reply(), *CALLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me look.",
        "refusal": None,
        "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}},
            {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}},
        ],
    }


def test_content_is_null_when_there_are_only_calls() -> None:
    assert whole(reply(), *CALLS[1:])["choices"][0]["message"]["content"] is None
    assert whole(reply(), Ended(reason="stop"))["choices"][0]["message"]["content"] == ""


def test_a_calls_name_is_streamed_once_and_its_arguments_in_fragments() -> None:
    deltas = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in streamed(reply(), *CALLS)]
    assert [calls for calls in deltas if calls] == [
        [{"index": 0, "id": "c0", "type": "function", "function": {"name": "look", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"at":'}}],
        [{"index": 0, "function": {"arguments": '"x"}'}}],
        [{"index": 1, "id": "c1", "type": "function", "function": {"name": "find", "arguments": ""}}],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]


def test_reasoning_is_apart_from_the_answer() -> None:
    events = (Thought(text="Hm"), Thought(text="m."), Said(text="Yes."), Ended(reason="stop"))
    message = whole(reply(), *events)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hmm.", "Yes.")
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(reply(), *events)]
    assert deltas[1:] == [{"reasoning_content": "Hm"}, {"reasoning_content": "m."}, {"content": "Yes."}, {}]


def test_without_reasoning_or_calls_nothing_is_said_of_them() -> None:
    message = whole(reply(), Said(text="a"), Ended(reason="stop"))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "a", "refusal": None}


def test_every_choice_has_its_own_role_text_and_reason() -> None:
    events = (
        Said(text="b", choice=1),
        Said(text="a", choice=0),
        Ended(reason="length", choice=1, timings=TIMINGS),
        Ended(reason="stop", choice=0),
    )
    made = whole(reply(choices=2), *events)
    assert [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in made["choices"]] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    chunks = [chunk["choices"][0] for chunk in streamed(reply(choices=2), *events)]
    role = {"role": "assistant", "content": ""}
    assert [(chunk["index"], chunk["delta"], chunk["finish_reason"]) for chunk in chunks] == [
        (0, role, None),
        (1, role, None),
        (1, {"content": "b"}, None),
        (0, {"content": "a"}, None),
        (1, {}, "length"),
        (0, {}, "stop"),
    ]


def test_usage_counts_cached_and_reasoning_tokens_as_parts() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    events = (Said(text="a"), Ended(reason="stop"))
    assert whole(reply(), *events)["usage"] == usage
    *chunks, last = streamed(reply(with_usage=True), *events)
    assert (last["choices"], last["usage"]) == ([], usage)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert not any("usage" in chunk for chunk in streamed(reply(), *events))


# --- logprobs -------------------------------------------------------------------------------

A = TokenLogprob(97, -0.5, top=((97, -0.5), (98, -1.5)))
HALF, REST = TokenLogprob(200, -math.inf), TokenLogprob(201, 0.0)
EXPECTED_A = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -1.5, "bytes": [98]},
    ],
}
EXPECTED_HALF = {"token": "\\xc3", "logprob": -9999.0, "bytes": [0xC3], "top_logprobs": []}
EXPECTED_REST = {"token": "\\xa9", "logprob": 0.0, "bytes": [0xA9], "top_logprobs": []}
LIKELY = (
    Said(text="a", logprobs=(A,)),
    Said(text="", logprobs=(HALF,)),
    Said(text="é", logprobs=(REST, TokenLogprob(END, -0.1))),
    Ended(reason="stop"),
)


def test_logprobs_are_those_of_the_contents_tokens() -> None:
    (choice,) = whole(reply(with_logprobs=True), *LIKELY)["choices"]
    assert choice["logprobs"] == {"content": [EXPECTED_A, EXPECTED_HALF, EXPECTED_REST], "refusal": None}


def test_logprobs_are_streamed_with_their_text() -> None:
    chunks = [chunk["choices"][0] for chunk in streamed(reply(with_logprobs=True), *LIKELY)][1:]
    assert [(chunk["delta"], chunk["logprobs"] and chunk["logprobs"]["content"]) for chunk in chunks] == [
        ({"content": "a"}, [EXPECTED_A]),
        ({"content": ""}, [EXPECTED_HALF]),
        ({"content": "é"}, [EXPECTED_REST]),
        ({}, None),
    ]


def test_an_answer_without_tokens_has_an_empty_list_of_logprobs() -> None:
    (choice,) = whole(reply(with_logprobs=True), Ended(reason="stop"))["choices"]
    assert choice["logprobs"] == {"content": [], "refusal": None}


@pytest.mark.parametrize("events", [LIKELY, (Said(text="", logprobs=(A,)), Ended(reason="stop"))])
def test_logprobs_that_nobody_asked_for_are_not_told(events: tuple[Event, ...]) -> None:
    """A strategy may look at some for itself."""
    assert whole(reply(), *events)["choices"][0]["logprobs"] is None
    assert {chunk["choices"][0]["logprobs"] for chunk in streamed(reply(), *events)} == {None}
