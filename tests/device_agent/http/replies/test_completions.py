"""Events of a completion as OpenAI's clients read them: four lists of one length, and where each token begins."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.conversation.records import Ended, Event, Said
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies import sse
from device_agent.http.replies.common import Envelope
from device_agent.http.replies.completions import CompletionReply, offsets
from device_agent.http.replies.spelling import Speller
from tests.device_agent.http.scripted import SPENT, parts
from tests.fakes import TIMINGS, FakeService


class Words(FakeService):
    """Some tokens of several bytes, one that is a half character, and one that is special."""

    WORDS = {1: b"<s>", 2: b"</s>", 3: b"Hello", 4: b" you", 5: b"\xc3", 6: b"\xa9", 7: b" there", 8: b"Hello"}  # noqa: RUF012

    def token_bytes(self, token_id: int) -> bytes:
        return self.WORDS[token_id]


def reply(*, choices: int = 1, with_logprobs: bool = True) -> CompletionReply:
    return CompletionReply(
        envelope=Envelope(id="cmpl-1", created=1, model="tiny", fingerprint="fp_1"),
        choices=choices,
        speller=Speller(Words()),
        with_logprobs=with_logprobs,
    )


def whole(made: CompletionReply, *events: Event) -> Any:
    return msgspec.to_builtins(made.whole(events, SPENT))


def streamed(made: CompletionReply, *events: Event) -> list[Any]:
    raw = made.opening() + b"".join(made.event(event) for event in events) + made.closing(SPENT)
    *chunks, done = parts(raw)
    assert done == sse.DONE
    return [json.loads(chunk.removeprefix(b"data: "))["choices"][0] for chunk in chunks]


ECHOED = (
    Said(
        text="Hello you",
        logprobs=(
            TokenLogprob(1, None),
            TokenLogprob(3, -1.0, ((8, -0.5), (3, -1.0))),
            TokenLogprob(4, -2.0, ((7, -0.25),)),
        ),
    ),
    Said(text=" there", logprobs=(TokenLogprob(7, -0.125, ((7, -0.125),)),)),
    Said(text="", logprobs=(TokenLogprob(5, -math.inf),)),
    Said(text="é", logprobs=(TokenLogprob(6, 0.0), TokenLogprob(2, -0.5))),
    Ended(reason="stop", timings=TIMINGS),
)
LOGPROBS = {
    "tokens": ["<s>", "Hello", " you", " there", "bytes:\\xc3", "bytes:\\xa9", "</s>"],
    "token_logprobs": [None, -1.0, -2.0, -0.125, -9999.0, 0.0, -0.5],
    "top_logprobs": [
        None,
        {"Hello": -0.5},
        {" there": -0.25, " you": -2.0},
        {" there": -0.125},
        {"bytes:\\xc3": -9999.0},
        {"bytes:\\xa9": 0.0},
        {"</s>": -0.5},
    ],
    "text_offset": [0, 0, 5, 9, 15, 15, 16],
}


def test_an_echo_brings_the_prompts_logprobs_and_offsets_go_on() -> None:
    (choice,) = whole(reply(), *ECHOED)["choices"]
    assert choice == {"index": 0, "text": "Hello you thereé", "logprobs": LOGPROBS, "finish_reason": "stop"}


def test_a_stream_adds_up_to_the_whole() -> None:
    chunks = streamed(reply(), *ECHOED)
    assert "".join(chunk["text"] for chunk in chunks) == "Hello you thereé"
    for name, values in LOGPROBS.items():
        assert [value for chunk in chunks if chunk["logprobs"] for value in chunk["logprobs"][name]] == values
    assert [chunk["finish_reason"] for chunk in chunks] == [None, None, None, None, "stop"]


def test_the_likeliest_of_two_tokens_with_one_text_is_told() -> None:
    """Harnesses compare a token's own logprob with the largest value to see whether it was the greedy one."""
    said = Said(text="Hello", logprobs=(TokenLogprob(8, -3.0, ((3, -0.5), (8, -3.0))),))
    (choice,) = whole(reply(), said, Ended(reason="stop"))["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"Hello": -0.5}]
    assert choice["logprobs"]["token_logprobs"] == [-3.0]


def test_choices_are_apart_and_in_order() -> None:
    events = (Said(text="b", choice=1), Said(text="a"), Said(text="B", choice=1), Ended(reason="length", choice=1))
    made = whole(reply(choices=2, with_logprobs=False), *events, Ended(reason="stop"))
    assert made["choices"] == [
        {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "bB", "logprobs": None, "finish_reason": "length"},
    ]
    assert "timings" not in made


def test_nothing_is_sent_for_nothing() -> None:
    assert reply().event(Said(text="")) == b""
    assert reply().opening() == b""


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        ([], "", []),
        ([b"a", b"b"], "ab", [0, 1]),
        ([b"<s>", b"a"], "a", [0, 0]),
        ([b"a", b"</s>"], "a", [0, 1]),
        ([b" a", b" b"], "a b", [0, 1]),
        ([b"\xc3", b"\xa9", b"x"], "éx", [0, 0, 1]),
        ([b"\xe2\x82", b"\xac"], "€", [0, 0]),
        ([b"x"], "held x", [5]),
        ([b"", b"a"], "a", [0, 0]),
        ([b"\xa9", b"b"], "éb", [0, 1]),
        ([b"a"], "", [0]),
    ],
    ids=str,
)
def test_a_token_begins_where_its_text_does(tokens: list[bytes], text: str, expected: list[int]) -> None:
    assert offsets(tokens, text) == expected


@given(st.lists(st.text(min_size=1, max_size=5)))
def test_tokens_that_are_whole_characters_follow_each_other(words: list[str]) -> None:
    found = offsets([word.encode() for word in words], "".join(words))
    assert found == [len("".join(words[:index])) for index in range(len(words))]


@given(st.lists(st.binary(max_size=4)), st.text(max_size=20))
def test_offsets_never_go_back_nor_leave_the_text(tokens: list[bytes], text: str) -> None:
    found = offsets(tokens, text)
    assert len(found) == len(tokens)
    assert found == sorted(found)
    assert all(0 <= offset <= len(text) for offset in found)
