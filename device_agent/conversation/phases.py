"""Which generations answer a request, one after the other: choosing a strategy, reasoning, answering.

    a plain model, or free text            answer
    its own reasoning, then a given form   reasoning between its marks, then the answer behind them
    a strategy that reasons                reasoning, then the answer with the reasoning in the conversation
    "auto"                                 a name out of all strategies, then as above

Grammar, tools, stop strings, logit bias and logprobs are those of the answer: a grammar that held for the reasoning
too would forbid it. So where a model reasons by itself and the answer's form is given, its reasoning is a phase of its
own that ends at the closing mark, and the answer goes on from the very same tokens.
Nothing here submits or waits: a phase says what comes after it, given what was written in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from device_agent.conversation.asking import Asked, Asker, Ids
from device_agent.conversation.reading import AnswerReader, PhaseReader, ReasoningReader
from device_agent.conversation.records import ChatRequest
from device_agent.conversation.thinking import Thinking
from device_agent.engine.records import GREEDY, FinishReason, Generation, Grammar, ModelService, Sampling
from edgekit import strategies as rules
from edgekit.marks import Marks
from edgekit.strategies import Strategies, Strategy

OWN_SHARE = 0.75
"""Of the tokens, for reasoning that a model does by itself, where the answer's form is given. Then the mark is closed
for it, and it answers with what it has (Muennighoff et al. 2025, "s1: Simple test-time scaling")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came out of a phase. `marked`: it ended at a stop string."""

    text: str
    ids: Ids
    finish: FinishReason
    marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One generation, who reads it, and what comes after it: nothing after an answer."""

    generation: Generation
    reader: PhaseReader
    after: Callable[[Written], Sequence["Phase"]]


def first_phases(model: ModelService, request: ChatRequest, strategies: Strategies) -> Sequence[Phase]:
    """Those that begin: one for each choice, or the one that chooses a strategy for all.

    Raises InvalidRequest for an unknown strategy or for tools that cannot be, TemplateError, and ContextOverflow if
    what a strategy adds leaves no room.
    """
    if request.strategy is None:
        return _own(_Request(request, Asker(model, request, late=False)), request.max_tokens)
    strategies.check(request.strategy)
    # What is read in order to choose begins the phases that follow; a system prompt in front would be in the way.
    late = request.strategy == rules.AUTO
    asking = _Request(request, Asker(model, request, late=late))
    if not late:
        return _by_strategy(asking, strategies.named[request.strategy], request.max_tokens)
    return _choosing(asking, strategies, request.max_tokens)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is wanted, and how prompts of it are made."""

    wanted: ChatRequest
    asker: Asker

    def sampling(self, choice: int, *, biased: bool) -> Sampling:
        """Choices differ by their seed; a bias is for the answer."""
        sampling = self.wanted.sampling
        seed = None if sampling.seed is None else sampling.seed + choice
        return replace(sampling, seed=seed) if biased else replace(sampling, seed=seed, logit_bias={})

    def reasoning(self, prompt: Ids, *, choice: int, tokens: int) -> Generation:
        """A generation that is none of the answer."""
        sampling, adapter = self.sampling(choice, biased=False), self.wanted.adapter
        return Generation(
            prompt=prompt, sampling=sampling, max_tokens=tokens, shown=self.asker.marks_shown, adapter=adapter
        )


# --- a strategy -----------------------------------------------------------------------------


def _choosing(asking: _Request, strategies: Strategies, left: int | None) -> Sequence[Phase]:
    """A name, greedily: a few tokens, and the conversation stays read. Without room for that, the first strategy."""

    def after(written: Written) -> Sequence[Phase]:
        return _by_strategy(asking, strategies.named[strategies.chosen(written.text)], _rest(left, written))

    asked = asking.asker.ask(rules.choosing_messages(asking.wanted.messages, strategies))
    prompt = asking.asker.prompt(asked, asking.asker.skipping(asked))
    if left == 1 or len(strategies.named) == 1 or not asking.asker.fits(len(prompt) + rules.MAX_CHOOSING_TOKENS):
        return _by_strategy(asking, strategies.named[strategies.chosen("")], left)
    most = rules.MAX_CHOOSING_TOKENS if left is None else min(rules.MAX_CHOOSING_TOKENS, left - 1)
    generation = Generation(
        prompt=prompt,
        sampling=GREEDY,
        max_tokens=most,
        grammar=Grammar("regex", rules.choosing_pattern(strategies)),
        adapter=asking.wanted.adapter,
    )
    return (Phase(generation=generation, reader=ReasoningReader(0, None), after=after),)


def _by_strategy(asking: _Request, strategy: Strategy, left: int | None) -> Sequence[Phase]:
    """The choices' first phases, which share their prompt."""
    choices = range(asking.wanted.choices)
    if strategy.reasons and (tokens := _affordable(asking, strategy, left)):
        asked = asking.asker.ask_as(partial(rules.reasoning_messages, asking.wanted.messages, strategy))
        prompt = asking.asker.prompt(asked, asking.asker.skipping(asked))
        return [
            Phase(
                generation=asking.reasoning(prompt, choice=choice, tokens=tokens),
                reader=ReasoningReader(choice, Thinking(asking.asker.marks)),
                after=partial(_concluded, asking, strategy, choice, left),
            )
            for choice in choices
        ]
    asked = asking.asker.ask_as(partial(rules.only_messages, asking.wanted.messages, strategy))
    return _answers(asking, asked, asking.asker.skipping(asked), left)


def _affordable(asking: _Request, strategy: Strategy, left: int | None) -> int:
    """Tokens of reasoning for which there is room, so that the second prompt fits as well. Raises ContextOverflow."""
    asked = asking.asker.ask_as(partial(rules.answer_messages, asking.wanted.messages, strategy, "."))
    room = asking.asker.room(len(asking.asker.prompt(asked, asking.asker.skipping(asked) + asked.plan.opening)))
    return rules.reasoning_tokens(strategy, room if left is None else min(room, left))


def _concluded(
    asking: _Request, strategy: Strategy, choice: int, left: int | None, written: Written
) -> Sequence[Phase]:
    """The answer that follows the reasoning."""
    messages = asking.wanted.messages
    if written.text.strip():
        asked = asking.asker.ask_as(partial(rules.answer_messages, messages, strategy, written.text))
    else:  # nothing was reasoned
        asked = asking.asker.ask_as(partial(rules.only_messages, messages, strategy))
    skipping = asking.asker.skipping(asked)
    prompt = asking.asker.prompt(asked, skipping + asked.plan.opening)
    thinking = Thinking(None if skipping else asking.asker.marks)
    return (_answer(asking, asked, prompt, thinking, choice=choice, left=_rest(left, written)),)


# --- the model's own way --------------------------------------------------------------------


def _own(asking: _Request, left: int | None) -> Sequence[Phase]:
    asked = asking.asker.ask(asking.wanted.messages)
    formed = asked.plan.grammar is not None or bool(asked.plan.opening) or bool(asking.wanted.stop)
    marks = asking.asker.marks
    if marks is None or not formed or not asking.asker.skipping(asked):
        return _answers(asking, asked, "", left)
    return _marked(asking, asked, marks, left)


def _marked(asking: _Request, asked: Asked, marks: Marks, left: int | None) -> Sequence[Phase]:
    """Reasoning between the marks as a phase of its own, if there is room for some."""
    asker = asking.asker
    prompt = asker.prompt(asked, "" if asker.opened(asked) else f"{marks.opening}\n")
    ends = asker.tail(asked, marks.closing), asker.tail(asked, f"{marks.closing}\n\n{asked.plan.opening}")
    room = asker.room(len(prompt) + len(ends[1]))
    total = room if left is None else min(room, left)
    tokens = min(int(total * OWN_SHARE), total - 1)
    if tokens < 1:
        return _answers(asking, asked, asker.skipping(asked), left)

    def after(choice: int, written: Written) -> Sequence[Phase]:
        follows = prompt + continued(written, *ends)
        return (_answer(asking, asked, follows, Thinking(None), choice=choice, left=_rest(left, written)),)

    return [
        Phase(
            generation=replace(asking.reasoning(prompt, choice=choice, tokens=tokens), stop=(marks.closing,)),
            reader=ReasoningReader(choice, Thinking(marks, inside=True)),
            after=partial(after, choice),
        )
        for choice in range(asking.wanted.choices)
    ]


def continued(written: Written, closing: Ids, tail: Ids) -> Ids:
    """What was reasoned, in its own tokens, and `tail`, which begins with the tokens of the mark, `closing`."""
    if not written.marked:  # the tokens were used up, or it ended its turn, whose mark has no place inside of one
        return (written.ids[:-1] if written.finish == "stop" else written.ids) + tail
    if written.ids[-len(closing) :] == closing:
        return written.ids[: -len(closing)] + tail
    return written.ids + (tail[len(closing) :] if tail[: len(closing)] == closing else tail)


# --- the answer -----------------------------------------------------------------------------


def _answers(asking: _Request, asked: Asked, skipping: str, left: int | None) -> Sequence[Phase]:
    """Of all choices; `skipping` opens each so that the model does not reason."""
    prompt = asking.asker.prompt(asked, skipping + asked.plan.opening)
    marks = None if skipping else asking.asker.marks
    inside = not skipping and asking.asker.opened(asked)
    return [
        _answer(asking, asked, prompt, Thinking(marks, inside=inside), choice=choice, left=left)
        for choice in range(asking.wanted.choices)
    ]


def _answer(asking: _Request, asked: Asked, prompt: Ids, thinking: Thinking, *, choice: int, left: int | None) -> Phase:
    wanted = asking.wanted
    generation = Generation(
        prompt=prompt,
        sampling=asking.sampling(choice, biased=True),
        max_tokens=left,
        stop=wanted.stop,
        grammar=asked.plan.grammar,
        top_logprobs=wanted.top_logprobs,
        shown=asked.plan.shown | asking.asker.marks_shown,
        adapter=wanted.adapter,
    )
    reader = AnswerReader(choice, thinking, asked.plan.reader())
    return Phase(generation=generation, reader=reader, after=_nothing)


def _nothing(_: Written) -> Sequence[Phase]:
    """After an answer comes nothing."""
    return ()


def _rest(left: int | None, written: Written) -> int | None:
    """Tokens that are left of those asked for: one at least."""
    return None if left is None else max(1, left - len(written.ids))
