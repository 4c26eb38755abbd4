"""Plain completions: which generations are asked for, and which events their pieces become."""

from collections.abc import Sequence
from typing import Any

import pytest

from device_agent.conversation.complete import Completion, CompletionRequest, start_completion
from device_agent.conversation.records import Ended, Event, Said, Spent
from device_agent.engine.records import Generation, Grammar, Piece, Sampling, TokenLogprob
from edgekit.errors import InvalidRequest, Overloaded, ShuttingDown
from tests.fakes import TIMINGS, VOCAB, FakeService, script

A, B, END = TokenLogprob(65, -0.5), TokenLogprob(66, -0.25), TokenLogprob(2, -0.1)


def completion(service: FakeService, *prompts: Any, **wanted: Any) -> Completion:
    return start_completion(service, CompletionRequest(prompts=prompts, **wanted))


def heard(exchange: Completion) -> list[Event]:
    found = []
    while not exchange.ended:
        event = exchange.next(1.0)
        assert event is not None
        found.append(event)
    return found


def asked(*prompts: Any, **wanted: Any) -> Sequence[Generation]:
    service = FakeService(replies=script())
    completion(service, *prompts, **wanted)
    return service.generations


def test_the_whole_request_reaches_the_engine() -> None:
    wanted = {
        "sampling": Sampling(temperature=0.5),
        "max_tokens": 9,
        "stop": ("x",),
        "grammar": Grammar("regex", "a"),
        "top_logprobs": 3,
        "adapter": "french",
    }
    assert asked("AB", **wanted) == [Generation(prompt=(65, 66), **wanted)]  # type: ignore[arg-type]  # one table for both


def test_every_prompt_has_its_choices_in_order() -> None:
    prompts = [generation.prompt for generation in asked("A", (66, 67), choices=2)]
    assert prompts == [(65,), (65,), (66, 67), (66, 67)]


def test_choices_of_one_seed_differ_and_prompts_do_not() -> None:
    seeds = [one.sampling.seed for one in asked("A", "B", choices=2, sampling=Sampling(seed=5))]
    assert seeds == [5, 6, 5, 6]
    assert {one.sampling.seed for one in asked("A", choices=2)} == {None}


@pytest.mark.parametrize(
    ("wanted", "prompt_logprobs", "top_logprobs"),
    [
        ({}, False, None),
        ({"top_logprobs": 1}, False, 1),
        ({"echo": True}, False, None),
        ({"echo": True, "top_logprobs": 1}, True, 1),
        ({"echo": True, "max_tokens": 0}, True, 0),
        ({"echo": True, "max_tokens": 0, "top_logprobs": 2}, True, 2),
    ],
)
def test_logprobs_of_the_prompt_are_computed_only_where_they_are_needed(
    wanted: Any, prompt_logprobs: bool, top_logprobs: int | None
) -> None:
    (generation,) = asked("A", **wanted)
    assert (generation.prompt_logprobs, generation.top_logprobs) == (prompt_logprobs, top_logprobs)


@pytest.mark.parametrize("prompts", [("",), ((),), ("A", ()), ((VOCAB,),)], ids=str)
def test_a_prompt_that_is_none_is_refused_before_anything_runs(prompts: Any) -> None:
    service = FakeService(replies=script())
    with pytest.raises(InvalidRequest) as refused:
        completion(service, *prompts)
    assert refused.value.param == "prompt"
    assert service.generations == []


def test_a_full_queue_ends_what_was_begun() -> None:
    class Full(FakeService):
        def submit(self, generation: Generation, **wanted: Any) -> Any:
            if len(self.generations) == 2:
                raise Overloaded("full")
            return super().submit(generation, **wanted)

    service = Full()
    with pytest.raises(Overloaded):
        completion(service, "A", choices=3)
    assert [service.answers.get(timeout=1).cancelled.is_set() for _ in range(2)] == [True, True]


# --- events ---------------------------------------------------------------------------------


def test_pieces_become_text_and_an_end() -> None:
    service = FakeService(replies=script("a", "b", finish="length"))
    exchange = completion(service, "A")
    assert heard(exchange) == [Said(text="a"), Said(text="b"), Ended(reason="length", timings=TIMINGS)]
    assert exchange.spent == Spent(input=1, cached=3, output=3)
    assert exchange.next(0) is None


def test_a_stop_string_is_told() -> None:
    last = Piece(text="a", tokens=(1,), finish="stop", stopped_by="x")
    assert heard(completion(FakeService(replies=[last]), "A")) == [
        Said(text="a"),
        Ended(reason="stop", stopped_by="x"),
    ]


def test_an_echo_comes_before_everything_else() -> None:
    service = FakeService(replies=script("b"))
    exchange = completion(service, "AB", (67, 68), echo=True, choices=2)
    found = heard(exchange)
    assert found[:4] == [Said(text=text, choice=at) for at, text in enumerate(["AB", "AB", "CD", "CD"])]
    assert [event for event in found[4:] if isinstance(event, Said)] == [Said(text="b", choice=at) for at in range(4)]


SCORED = [
    Piece(text="", prompt_logprobs=(TokenLogprob(65, None), B)),
    Piece(text="c", tokens=(67,), logprobs=(A,)),
    Piece(text="", tokens=(2,), logprobs=(END,), finish="stop"),
]


def test_an_echo_with_logprobs_has_those_of_the_prompt() -> None:
    found = heard(completion(FakeService(replies=SCORED), "AB", echo=True, top_logprobs=0))
    assert found == [
        Said(text="AB", logprobs=(TokenLogprob(65, None), B)),
        Said(text="c", logprobs=(A,)),
        Said(text="", logprobs=(END,)),
        Ended(reason="stop"),
    ]


def test_a_prompt_may_be_scored_without_an_answer() -> None:
    replies = [SCORED[0], Piece(text="", finish="length")]
    service = FakeService(replies=replies)
    assert heard(completion(service, (65, 66), echo=True, top_logprobs=0, max_tokens=0)) == [
        Said(text="AB", logprobs=(TokenLogprob(65, None), B)),
        Ended(reason="length"),
    ]
    exchange = completion(FakeService(replies=replies), "AB", echo=True, max_tokens=0)
    assert heard(exchange) == [Said(text="AB"), Ended(reason="length")]
    assert exchange.spent == Spent(input=2)


def test_a_prompt_counts_once_however_many_choices_it_has() -> None:
    exchange = completion(FakeService(replies=script("a")), "AB", "C", choices=3)
    heard(exchange)
    assert (exchange.spent.input, exchange.spent.output) == (3, 12)


def test_who_cancels_gets_no_more() -> None:
    service = FakeService()
    exchange = completion(service, "A")
    exchange.cancel()
    assert exchange.ended
    assert exchange.next(0) is None
    assert service.answers.get(timeout=1).cancelled.is_set()


def test_an_answer_that_the_agent_ended_is_no_success() -> None:
    exchange = completion(FakeService(replies=script("a", finish="cancelled")), "A")
    assert exchange.next(1) == Said(text="a")
    with pytest.raises(ShuttingDown):
        exchange.next(1)
