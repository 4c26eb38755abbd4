import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from device_agent.conversation import tools
from device_agent.conversation.converse import start
from device_agent.conversation.records import (
    Argued,
    Called,
    ChatRequest,
    Ended,
    Event,
    Said,
    Spent,
)
from device_agent.conversation.tools.records import Found
from device_agent.engine.records import Generation, Grammar, Piece, Sampling, TokenLogprob
from edgekit.chat import Message, Tool
from edgekit.errors import (
    ContextOverflow,
    CorruptBundle,
    EdgekitError,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
)
from tests.device_agent.conversation.heard import (
    LONG,
    REQUEST,
    USER,
    WAIT_S,
    Seats,
    events,
    prompts,
    reasons,
    said,
    thought,
)
from tests.fakes import TIMINGS, FakeService, script

SCHEMA = Grammar("json_schema", '{"type":"object"}')
THINKING = "{{ messages }}<think>"


# --- one phase ---


def test_pieces_become_text_and_an_end() -> None:
    exchange = start(FakeService(replies=script("Fo", "ur")), REQUEST)
    assert events(exchange) == [
        Said(text="Fo"),
        Said(text="ur"),
        Ended(reason="stop", timings=TIMINGS),
    ]
    assert exchange.spent == Spent(input=6, cached=3, output=3)


def test_the_engine_gets_what_was_asked_for() -> None:
    service = FakeService(replies=script("a"))
    sampling = Sampling(temperature=0.5, logit_bias={3: 1.0})
    start(
        service,
        ChatRequest(
            messages=(USER,),
            sampling=sampling,
            max_tokens=5,
            stop=("x",),
            grammar=SCHEMA,
            top_logprobs=2,
            adapter="fine",
        ),
    )
    assert service.generations == [
        Generation(
            prompt=tuple(map(ord, "2 + 2?")),
            sampling=sampling,
            max_tokens=5,
            stop=("x",),
            grammar=SCHEMA,
            top_logprobs=2,
            adapter="fine",
        )
    ]


def test_the_end_says_why() -> None:
    for finish in ("stop", "length"):
        last = Piece(text="", finish=finish, stopped_by="x" if finish == "stop" else None)
        (found,) = events(start(FakeService(replies=[last]), REQUEST))
        assert found == Ended(reason=finish, stopped_by=last.stopped_by)


def test_logprobs_go_with_the_text_that_they_brought() -> None:
    one, two = TokenLogprob(1, -0.5), TokenLogprob(2, -0.25)
    pieces = [
        Piece(text="", tokens=(1,), logprobs=(one,)),
        Piece(text="a", tokens=(2,), logprobs=(two,), finish="stop"),
    ]
    found = events(start(FakeService(replies=pieces), replace(REQUEST, top_logprobs=0)))
    assert found[:-1] == [Said(text="a", logprobs=(one, two))]


def test_choices_are_written_side_by_side_each_with_its_own_seed() -> None:
    service = FakeService(scripts=[script("a"), script("b"), script("c", finish="length")])
    request = replace(REQUEST, choices=3, sampling=Sampling(seed=7))
    exchange = start(service, request)
    found = events(exchange)
    assert [said(found, choice) for choice in range(3)] == ["a", "b", "c"]
    assert reasons(found) == {0: "stop", 1: "stop", 2: "length"}
    assert [generation.sampling.seed for generation in service.generations] == [7, 8, 9]
    assert exchange.spent == Spent(input=6, cached=TIMINGS.cached_tokens, output=6)  # the prompt once


def test_without_a_seed_none_is_made_up() -> None:
    service = FakeService(replies=script("a"))
    start(service, replace(REQUEST, choices=2))
    assert [generation.sampling.seed for generation in service.generations] == [None, None]


# --- what goes wrong ---


def test_a_failed_choice_fails_the_exchange_and_cancels_the_others() -> None:
    service = FakeService()
    exchange = start(service, replace(REQUEST, choices=2))
    one, two = service.answers.get(timeout=WAIT_S), service.answers.get(timeout=WAIT_S)
    one.push(CorruptBundle("x", "broken"))
    with pytest.raises(CorruptBundle):
        exchange.next(WAIT_S)
    assert two.cancelled.is_set()


def test_an_answer_that_the_agent_cancels_is_no_end() -> None:
    exchange = start(FakeService(replies=script("a", finish="cancelled")), REQUEST)
    assert exchange.next(WAIT_S) == Said(text="a")
    with pytest.raises(ShuttingDown):
        exchange.next(WAIT_S)


def test_if_one_choice_finds_no_seat_none_runs() -> None:
    service = Seats(2)
    with pytest.raises(Overloaded):
        start(service, replace(REQUEST, choices=3))
    assert all(service.answers.get(timeout=WAIT_S).cancelled.is_set() for _ in range(2))


@pytest.mark.parametrize("problem", [ContextOverflow(300, 200), InvalidRequest("no grammar"), ShuttingDown("bye")])
def test_what_the_engine_refuses_is_raised_at_once(problem: EdgekitError) -> None:
    with pytest.raises(type(problem)):
        start(FakeService(refusal=problem), REQUEST)


@pytest.mark.parametrize(("own", "param"), [(None, "tools"), (SCHEMA, "grammar")])
def test_a_grammar_that_was_made_of_the_tools_is_refused_as_theirs(own: Grammar | None, param: str) -> None:
    service = FakeService(refusal=InvalidRequest("too complex", param="grammar"))
    with pytest.raises(InvalidRequest) as refused:
        start(service, replace(REQUEST, tools=(Tool(name="F"),), grammar=own))
    assert refused.value.param == param


def test_none_comes_in_time() -> None:
    service = FakeService()
    exchange = start(service, REQUEST)
    assert exchange.next(0) is None
    assert exchange.next(0.001) is None
    assert not exchange.ended


def test_cancelling_stops_all_and_wakes_the_reader() -> None:
    service = FakeService()
    exchange = start(service, replace(REQUEST, choices=2))
    answers = [service.answers.get(timeout=WAIT_S) for _ in range(2)]
    answers[0].push(Piece(text="a", tokens=(1,)))
    assert exchange.next(WAIT_S) == Said(text="a")
    found: list[Event | None] = []
    reader = threading.Thread(target=lambda: found.append(exchange.next()))
    reader.start()
    exchange.cancel()
    reader.join(WAIT_S)
    assert found == [None]
    assert exchange.ended
    assert all(answer.cancelled.is_set() for answer in answers)
    assert exchange.spent == Spent(input=6, output=1)


# --- tools ---


@dataclass
class Calls:
    """A reader that takes what is in capitals for a call."""

    count: int = 0

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Sequence[Found]:
        if not text.isupper():
            return [Said(text=text)]
        self.count += 1
        return [Called(call=self.count - 1, id="call_1", name=text), Argued(call=self.count - 1, fragment="{")]

    def finish(self) -> tuple[Sequence[Found], bool]:
        return [Argued(call=0, fragment="}")] if self.count else [], self.count > 0


@pytest.fixture
def calling(monkeypatch: pytest.MonkeyPatch) -> list[ChatRequest]:
    planned: list[ChatRequest] = []

    def plan(request: ChatRequest, **_: object) -> tools.ToolPlan:
        planned.append(request)
        return tools.ToolPlan(
            messages=(Message(role="system", content="TOOLS:"), *request.messages),
            template_tools=request.tools,
            grammar=Grammar("lark", "start: /.*/"),
            shown=frozenset({9}),
            opening="<call>",
            reader=Calls,
        )

    monkeypatch.setattr(tools, "plan", plan)
    return planned


@pytest.mark.usefixtures("calling")
def test_tool_calls_become_events_of_their_choice() -> None:
    service = FakeService(scripts=[script("hm ", "F"), script("no")])
    request = replace(REQUEST, tools=(Tool(name="F"),), choices=2)
    found = events(start(service, request))
    assert [event for event in found if event.choice == 0] == [
        Said(text="hm "),
        Called(call=0, id="call_1", name="F"),
        Argued(call=0, fragment="{"),
        Argued(call=0, fragment="}"),
        Ended(reason="tool_calls", timings=TIMINGS),
    ]
    assert reasons(found) == {0: "tool_calls", 1: "stop"}
    assert [event.choice for event in found].count(1) == 2
    assert prompts(service) == ["TOOLS:\n2 + 2?<call>"] * 2
    assert service.toolboxes[0] == request.tools
    assert service.generations[0].shown == {9}
    assert service.generations[0].grammar == Grammar("lark", "start: /.*/")


@pytest.mark.usefixtures("calling")
def test_a_call_that_was_cut_short_is_no_call() -> None:
    found = events(start(FakeService(replies=script("F", finish="length")), REQUEST))
    assert reasons(found) == {0: "length"}


# --- a model's own reasoning ---


def test_reasoning_between_marks_is_told_apart() -> None:
    exchange = start(
        FakeService(template=THINKING, replies=script("<think>", "a", "b</think>", "\n\n", "four")), REQUEST
    )
    found = events(exchange)
    assert (thought(found), said(found)) == ("ab", "four")
    assert exchange.spent == Spent(input=6, cached=3, output=6, reasoning=4)


def test_an_answer_without_reasoning_has_none() -> None:
    exchange = start(FakeService(template=THINKING, replies=script("<", "four")), REQUEST)
    assert said(events(exchange)) == "<four"
    assert exchange.spent.reasoning == 0


def test_reasoning_that_the_template_opens_is_reasoning_from_the_start() -> None:
    asked = replace(
        REQUEST, messages=(Message(role="user", content="2?<think>\n"),)
    )  # the fake's template adds nothing
    found = events(start(FakeService(template=THINKING, replies=script("a</th", "ink>", "b")), asked))
    assert (thought(found), said(found)) == ("a", "b")


def test_words_of_a_user_do_not_open_the_reasoning_where_there_is_no_template() -> None:
    asked = replace(REQUEST, messages=(Message(role="user", content="<think>"),))
    service = FakeService(template=None, specials={"<think>": 5, "</think>": 6}, replies=script("a"))
    assert said(events(start(service, asked))) == "a"


def test_reasoning_brings_no_logprobs() -> None:
    pieces = [
        Piece(text=text, tokens=(at,), logprobs=(TokenLogprob(at, -1.0),))
        for at, text in enumerate(("<think>", "a", "</think>", "four", "!"))
    ]
    pieces.append(Piece(text="", finish="stop"))
    found = events(start(FakeService(template=THINKING, replies=pieces), replace(REQUEST, top_logprobs=0)))
    assert [event.logprobs for event in found if isinstance(event, Said)] == [
        (TokenLogprob(3, -1.0),),
        (TokenLogprob(4, -1.0),),
    ]


def test_logprobs_of_text_that_only_looked_like_a_mark_are_not_lost() -> None:
    pieces = [Piece(text=text, tokens=(at,), logprobs=(TokenLogprob(at, -1.0),)) for at, text in enumerate(("<", "b"))]
    pieces.append(Piece(text="", finish="stop"))
    found = events(start(FakeService(template=THINKING, replies=pieces), replace(REQUEST, top_logprobs=0)))
    assert found[0] == Said(text="<b", logprobs=(TokenLogprob(0, -1.0), TokenLogprob(1, -1.0)))


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def written(text: str, **changes: object) -> list[Piece]:
    """One piece of a character a token; its text may leave out some that `changes` have as tokens."""
    return [replace(Piece(text=text, tokens=ids(text), finish="stop"), **changes)]  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"grammar": SCHEMA}, {"stop": ("x",)}], ids=["grammar", "stop"])
def test_a_given_form_holds_for_the_answer_and_not_for_the_reasoning(change: dict[str, object]) -> None:
    reasoning = written("why\n", tokens=ids("why\n</think>"), stopped_by="</think>")
    service = FakeService(template=THINKING, scripts=[reasoning, script("{}")], context_tokens=LONG)
    sampling = Sampling(seed=1, logit_bias={5: 1.0})
    request = replace(REQUEST, sampling=sampling, max_tokens=100, top_logprobs=1, **change)  # type: ignore[arg-type]
    exchange = start(service, request)
    found = events(exchange)
    assert (thought(found), said(found), reasons(found)) == ("why", "{}", {0: "stop"})
    first, second = service.generations
    assert prompts(service) == ["2 + 2?<think>\n", "2 + 2?<think>\nwhy\n</think>\n\n"]
    assert (first.grammar, first.stop, first.top_logprobs) == (None, ("</think>",), None)
    assert (second.grammar, second.stop, second.top_logprobs) == (request.grammar, request.stop, 1)
    assert (dict(first.sampling.logit_bias), dict(second.sampling.logit_bias)) == ({}, {5: 1.0})
    assert (first.max_tokens, second.max_tokens) == (75, 100 - len("why\n</think>"))
    assert exchange.spent == Spent(input=len("2 + 2?<think>\n"), output=12 + 2, reasoning=12)


@pytest.mark.parametrize(
    ("piece", "follows"),
    [
        (written("wh", finish="length"), "wh</think>\n\n"),
        (written("wh", tokens=(*ids("wh"), 2)), "wh</think>\n\n"),
        (written("wh", tokens=ids("wh</think>."), stopped_by="</think>"), "wh</think>.\n\n"),
    ],
    ids=["used up", "ended its turn", "mark in other tokens"],
)
def test_reasoning_is_closed_for_a_model_that_does_not(piece: list[Piece], follows: str) -> None:
    service = FakeService(template=THINKING, scripts=[piece, script("{}")], context_tokens=LONG)
    events(start(service, replace(REQUEST, grammar=SCHEMA)))
    assert prompts(service)[1] == f"2 + 2?<think>\n{follows}"


@pytest.mark.usefixtures("calling")
def test_a_call_that_must_come_comes_after_the_reasoning() -> None:
    reasoning = written("w", tokens=ids("w</think>"), stopped_by="</think>")
    service = FakeService(template=THINKING, scripts=[reasoning, script("F")], context_tokens=LONG)
    found = events(start(service, REQUEST))
    assert reasons(found) == {0: "tool_calls"}
    assert prompts(service)[1] == "TOOLS:\n2 + 2?<think>\nw</think>\n\n<call>"


def test_without_room_for_reasoning_it_is_skipped() -> None:
    service = FakeService(template=THINKING, replies=script("{}"), context_tokens=LONG)
    events(start(service, replace(REQUEST, grammar=SCHEMA, max_tokens=1)))
    assert prompts(service) == ["2 + 2?<think>\n\n</think>\n\n"]


def test_marks_that_are_special_tokens_are_written_as_such() -> None:
    class Beginning(FakeService):
        """Begins every text with a token of its own."""

        def text_prompt(self, text: str) -> tuple[int, ...]:
            return (1, *super().text_prompt(text))

    scripts = [written("why", tokens=(*ids("why"), 299), stopped_by="[/THINK]"), script("{}"), script("a")]
    specials = {"[THINK]": 298, "[/THINK]": 299}
    service = Beginning(template="[THINK]", specials=specials, scripts=scripts, context_tokens=LONG)
    events(start(service, replace(REQUEST, grammar=SCHEMA)))
    events(start(service, replace(REQUEST, strategy="direct")))
    asked = (1, *ids("2 + 2?"))
    assert [generation.prompt for generation in service.generations] == [
        (*asked, 298, *ids("\n")),
        (*asked, 298, *ids("\nwhy"), 299, *ids("\n\n")),
        (*asked, 298, *ids("\n\n"), 299, *ids("\n\n")),
    ]


def test_marks_that_are_special_tokens_are_shown_to_be_seen() -> None:
    service = FakeService(specials={"[THINK]": 5, "[/THINK]": 6}, replies=script("[THINK]a[/THINK]b"))
    found = events(start(service, REQUEST))
    assert (thought(found), said(found)) == ("a", "b")
    assert service.generations[0].shown == {5, 6}
