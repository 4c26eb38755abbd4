"""Events to blocks: opened, grown, closed, each in its turn."""

import pytest

from device_agent.conversation.records import Argued, Called, Ended, Event, Said, Thought
from device_agent.engine.records import TokenLogprob
from device_agent.http.replies.blocks import Blocks, Closed, Grown, Opened

EVENTS: list[Event] = [
    Thought(text="Let me "),
    Thought(text="see."),
    Said(text="I will ask.", logprobs=(TokenLogprob(5, -0.5),)),
    Called(call=0, id="call_a", name="add"),
    Argued(call=0, fragment='{"x":'),
    Argued(call=0, fragment="1}"),
    Called(call=1, id="call_b", name="stop"),
    Argued(call=1, fragment="{}"),
    Ended(reason="tool_calls"),
]


def test_each_block_is_opened_once_grown_and_closed_before_the_next() -> None:
    blocks = Blocks()
    steps = [(type(step).__name__, step.block.index) for event in EVENTS for step in blocks.push(event)]
    assert steps == [
        *(("Opened", 0), ("Grown", 0), ("Grown", 0), ("Closed", 0)),
        *(("Opened", 1), ("Grown", 1), ("Closed", 1)),
        *(("Opened", 2), ("Grown", 2), ("Grown", 2), ("Closed", 2)),
        *(("Opened", 3), ("Grown", 3), ("Closed", 3)),
    ]


def test_blocks_hold_what_the_events_said() -> None:
    blocks = Blocks()
    for event in EVENTS:
        list(blocks.push(event))
    assert [(block.kind, block.text) for block in blocks.all] == [
        ("reasoning", "Let me see."),
        ("text", "I will ask."),
        ("call", '{"x":1}'),
        ("call", "{}"),
    ]
    assert [(block.id, block.name) for block in blocks.all[2:]] == [("call_a", "add"), ("call_b", "stop")]
    assert blocks.all[1].logprobs == [TokenLogprob(5, -0.5)]
    assert blocks.reason == "tool_calls"


def test_an_answer_without_a_word_has_no_block() -> None:
    blocks = Blocks()
    assert list(blocks.push(Ended(reason="stop", stopped_by="END"))) == []
    assert blocks.all == []
    assert blocks.stopped_by == "END"


@pytest.mark.parametrize("event", [Said(text=""), Thought(text="")])
def test_nothing_said_grows_nothing(event: Event) -> None:
    blocks = Blocks()
    assert not any(isinstance(step, Grown) for step in blocks.push(event))


def test_what_is_open_when_a_choice_ends_is_closed() -> None:
    blocks = Blocks()
    opened, _ = blocks.push(Said(text="a"))
    (closed,) = blocks.push(Ended(reason="length"))
    assert isinstance(opened, Opened)
    assert isinstance(closed, Closed)
    assert closed.block is opened.block
