from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from device_agent.conversation.converse import start
from device_agent.conversation.records import (
    ChatRequest,
    Spent,
    Thought,
)
from device_agent.engine.records import Generation, Grammar, Sampling
from edgekit import strategies as rules
from edgekit.chat import Message, Tool
from edgekit.errors import (
    ContextOverflow,
    InvalidRequest,
    ShuttingDown,
    TemplateError,
)
from edgekit.strategies import Strategy
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
from tests.fakes import FakeAnswer, FakeService, script

SCHEMA = Grammar("json_schema", '{"type":"object"}')
THINKING = "{{ messages }}<think>"
STEPS = rules.packaged().named["step-by-step"]


def strategic(name: str, **changes: object) -> ChatRequest:
    return replace(REQUEST, strategy=name, **changes)  # type: ignore[arg-type]  # fields of the record


# --- strategies ---


def test_a_strategy_reasons_first_and_answers_with_the_reasoning_in_the_conversation() -> None:
    service = FakeService(scripts=[script("2 and 2", " are 4."), script("Four")], context_tokens=LONG)
    request = strategic("step-by-step", grammar=SCHEMA, stop=("x",), top_logprobs=1, max_tokens=100)
    exchange = start(service, request)
    found = events(exchange)
    assert (thought(found), said(found), reasons(found)) == ("2 and 2 are 4.", "Four", {0: "stop"})
    assert service.conversations[-1] == rules.answer_messages((USER,), STEPS, "2 and 2 are 4.")
    first, second = service.generations
    assert service.text_of(first.prompt) == "\n".join(m.content for m in rules.reasoning_messages((USER,), STEPS))
    assert second.prompt[: len(first.prompt)] == first.prompt
    assert (first.grammar, first.stop, first.top_logprobs, first.max_tokens) == (None, (), None, 70)
    assert (second.grammar, second.stop, second.top_logprobs, second.max_tokens) == (SCHEMA, ("x",), 1, 97)
    assert exchange.spent == Spent(input=len(first.prompt), cached=3, output=5, reasoning=3)


def test_direct_is_one_phase_with_nothing_added() -> None:
    service = FakeService(replies=script("Four"))
    found = events(start(service, strategic("direct")))
    assert (thought(found), said(found)) == ("", "Four")
    assert prompts(service) == ["2 + 2?"]


def test_direct_keeps_a_model_from_its_own_reasoning() -> None:
    service = FakeService(template=THINKING, replies=script("Four"))
    assert said(events(start(service, strategic("direct")))) == "Four"
    assert prompts(service) == ["2 + 2?<think>\n\n</think>\n\n"]


def test_a_strategy_takes_the_place_of_a_models_own_reasoning() -> None:
    service = FakeService(template=THINKING, scripts=[script("two"), script("Four")], context_tokens=LONG)
    events(start(service, strategic("step-by-step")))
    assert [prompt.endswith("<think>\n\n</think>\n\n") for prompt in prompts(service)] == [True, True]


def test_each_choice_has_its_own_reasoning() -> None:
    scripts = [script("r0"), script("r1"), script("a0"), script("a1")]
    service = FakeService(scripts=scripts, context_tokens=LONG)
    request = strategic("recall-then-answer", choices=2, sampling=Sampling(seed=3))
    exchange = start(service, request)
    found = events(exchange)
    assert {choice: (thought(found, choice), said(found, choice)) for choice in (0, 1)} == {
        0: ("r0", "a0"),
        1: ("r1", "a1"),
    }
    assert [generation.sampling.seed for generation in service.generations] == [3, 4, 3, 4]
    assert exchange.spent == Spent(input=len(service.generations[0].prompt), cached=3, output=8, reasoning=4)


def test_the_answer_gets_at_least_one_token() -> None:
    service = FakeService(scripts=[script("r", finish="length"), script("F", finish="length")], context_tokens=LONG)
    found = events(start(service, strategic("step-by-step", max_tokens=2)))
    assert [generation.max_tokens for generation in service.generations] == [1, 1]
    assert reasons(found) == {0: "length"}


def test_without_room_for_reasoning_the_answer_comes_at_once() -> None:
    service = FakeService(replies=script("F"), context_tokens=LONG)
    events(start(service, strategic("step-by-step", max_tokens=1)))
    assert service.conversations[-1] == rules.only_messages((USER,), STEPS)
    assert [generation.max_tokens for generation in service.generations] == [1]


def test_the_context_bounds_the_reasoning() -> None:
    longest = len("\n".join(message.content for message in rules.answer_messages((USER,), STEPS, ".")))
    service = FakeService(scripts=[script("r"), script("F")], context_tokens=longest + 100)
    events(start(service, strategic("step-by-step")))
    assert [generation.max_tokens for generation in service.generations] == [70, None]
    with pytest.raises(ContextOverflow):
        start(FakeService(context_tokens=longest), strategic("step-by-step"))


def test_if_nothing_was_reasoned_the_answer_comes_without_it() -> None:
    service = FakeService(scripts=[script(" "), script("F")], context_tokens=LONG)
    assert said(events(start(service, strategic("step-by-step")))) == "F"
    assert service.conversations[-1] == rules.only_messages((USER,), STEPS)


class NoSystem(FakeService):
    """A model whose template refuses system prompts, as Gemma's does."""

    def chat_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), opening: str = ""
    ) -> tuple[int, ...]:
        if messages[0].role == "system":
            raise TemplateError("System role not supported")
        return super().chat_prompt(messages, tools=tools, opening=opening)


def test_where_the_template_takes_no_system_prompt_it_follows_the_question() -> None:
    service = NoSystem(scripts=[script("r"), script("F")], context_tokens=LONG)
    assert said(events(start(service, strategic("step-by-step")))) == "F"
    assert service.conversations[-1] == rules.answer_messages((USER,), STEPS, "r", late=True)


def test_a_system_prompt_of_the_users_own_is_refused_as_ever() -> None:
    request = strategic("step-by-step", messages=(Message(role="system", content="x"), USER))
    with pytest.raises(TemplateError):
        start(NoSystem(context_tokens=LONG), request)


def test_an_unknown_strategy_is_refused_before_anything_runs() -> None:
    service = FakeService()
    with pytest.raises(InvalidRequest) as error:
        start(service, strategic("guess"))
    assert error.value.param == "edgekit.strategy"
    assert not service.generations


def test_strategies_of_the_users_own_are_known() -> None:
    mine = rules.Strategies({"mine": Strategy(description="d", system="Rhyme.")}, rules.packaged().auto)
    service = FakeService(replies=script("F"))
    events(start(service, strategic("mine"), strategies=mine))
    assert prompts(service) == ["Rhyme.\n2 + 2?"]
    events(start(service, strategic("auto"), strategies=mine))  # nothing to choose from
    assert prompts(service)[1:] == ["2 + 2?\n\nRhyme."]


def test_cancelling_between_the_phases_leaves_the_second_out() -> None:
    service = FakeService(scripts=[script("r")], context_tokens=LONG)
    exchange = start(service, strategic("step-by-step"))
    assert exchange.next(WAIT_S) == Thought(text="r")
    exchange.cancel()
    assert exchange.next(WAIT_S) is None
    assert exchange.ended
    assert len(service.generations) == 1
    assert exchange.spent.output == 2


def test_a_second_phase_waits_for_a_seat() -> None:
    service = Seats(1, scripts=[script("r"), script("F")])
    exchange = start(service, strategic("step-by-step"))
    assert exchange.next(WAIT_S) == Thought(text="r")
    assert said(events(exchange)) == "F"
    assert service.offered == 3


def test_a_second_phase_that_waits_for_a_seat_can_be_cancelled() -> None:
    service = Seats(*range(1, 1_000), scripts=[script("r")])
    exchange = start(service, strategic("step-by-step"))
    assert exchange.next(WAIT_S) == Thought(text="r")
    assert exchange.next(0) is None
    assert not exchange.ended
    exchange.cancel()
    assert events(exchange) == []


def test_a_second_phase_that_is_refused_fails_the_exchange() -> None:
    class Closing(FakeService):
        def submit(self, generation: Generation, *, on_piece: Callable[[], None] | None = None) -> FakeAnswer:
            if len(self.generations) == 2:
                raise ShuttingDown("bye")
            return super().submit(generation, on_piece=on_piece)

    service = Closing(scripts=[script("r"), []], context_tokens=LONG)
    exchange = start(service, strategic("step-by-step", choices=2))
    with pytest.raises(ShuttingDown):
        events(exchange)
    assert exchange.ended
    assert [service.answers.get(timeout=WAIT_S) for _ in range(2)][1].cancelled.is_set()


# --- auto ---


def test_auto_has_the_model_choose_and_then_reads_on_from_the_same_conversation() -> None:
    scripts = [script("step-", "by-step"), script("r"), script("Four")]
    service = FakeService(scripts=scripts, context_tokens=LONG)
    exchange = start(service, strategic("auto", max_tokens=100))
    found = events(exchange)
    assert (thought(found), said(found)) == ("r", "Four")
    choosing, reasoning, answer = service.generations
    assert choosing.grammar == Grammar("regex", rules.choosing_pattern(rules.packaged()))
    assert (choosing.sampling.temperature, choosing.max_tokens) == (0.0, rules.MAX_CHOOSING_TOKENS)
    assert service.conversations[-1] == rules.answer_messages((USER,), STEPS, "r", late=True)
    assert all(prompt.startswith("2 + 2?\n\n") for prompt in prompts(service))
    assert (reasoning.max_tokens, answer.max_tokens) == (67, 100 - 3 - 2)
    assert exchange.spent == Spent(input=len(choosing.prompt), cached=3, output=7, reasoning=5)


def test_auto_may_choose_to_answer_at_once() -> None:
    service = FakeService(scripts=[script("direct"), script("a"), script("b")], context_tokens=LONG)
    found = events(start(service, strategic("auto", choices=2)))
    assert [said(found, choice) for choice in (0, 1)] == ["a", "b"]
    assert prompts(service)[1:] == ["2 + 2?", "2 + 2?"]


def test_auto_answers_at_once_where_a_single_token_is_wanted() -> None:
    service = FakeService(replies=script("a", finish="length"), context_tokens=LONG)
    events(start(service, strategic("auto", max_tokens=1)))
    assert [generation.max_tokens for generation in service.generations] == [1]


def test_auto_answers_at_once_where_the_question_which_does_not_fit() -> None:
    longest = len(rules.choosing_messages((USER,), rules.packaged())[0].content) + rules.MAX_CHOOSING_TOKENS
    for context, grammars in {longest: [True, False], longest - 1: [False]}.items():
        service = FakeService(scripts=[script("direct"), script("a")], context_tokens=context)
        events(start(service, strategic("auto")))
        assert [generation.grammar is not None for generation in service.generations] == grammars
