"""Questions that are worked on before they are answered: the phases of edgekit/strategies.py, on a reader.

As the agent does it, but greedily, and `auto` weighs the names by their likelihood instead of writing one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgekit import strategies as rules
from edgekit.chat import Message
from edgekit.errors import TemplateError
from edgekit.strategies import Strategies, Strategy
from export.evaluate.prompts import Prompts
from export.evaluate.questions import Question
from export.evaluate.reader import Reader
from export.evaluate.writing import likelihoods, write


@dataclass(frozen=True)
class Prepared:
    """The prompt behind which the answer comes, how many tokens were written for it, and by which strategy."""

    prompt: str
    tokens: int
    strategy: str


@dataclass(frozen=True, kw_only=True)
class Way:
    """A strategy by its name, "auto" included. Reasoning has `most_tokens` at most, and those that it allows itself."""

    name: str
    strategies: Strategies
    most_tokens: int | None = None

    def prepare(
        self, reader: Reader, prompts: Prompts, question: Question, shots: Sequence[Question], *, answer_tokens: int
    ) -> Prepared:
        """Reason, and leave room for `answer_tokens`. Raises TemplateError."""
        name, late = self.name, False
        asked = prompts.conversation(question, shots)
        if name == rules.AUTO:
            name, late = self._chosen(reader, prompts, asked), True
        strategy = self.strategies.named[name]
        try:
            return self._prepared(reader, prompts, asked, name, late=late, answer_tokens=answer_tokens)
        except TemplateError:
            if late or not strategy.system:
                raise
        return self._prepared(reader, prompts, asked, name, late=True, answer_tokens=answer_tokens)

    def _chosen(self, reader: Reader, prompts: Prompts, asked: Sequence[Message]) -> str:
        """The likeliest name; the first one where there is no room to ask."""
        names = list(self.strategies.named)
        choosing = prompts.rendered(rules.choosing_messages(asked, self.strategies))
        if max(len(prompts.ids(choosing + name)) for name in names) > reader.context_tokens:
            return self.strategies.chosen("")
        found = likelihoods(reader, prompts, choosing, names)
        return max(zip(found, names, strict=True), key=lambda each: each[0].sum)[1]

    def _prepared(
        self,
        reader: Reader,
        prompts: Prompts,
        asked: Sequence[Message],
        name: str,
        *,
        late: bool,
        answer_tokens: int,
    ) -> Prepared:
        strategy = self.strategies.named[name]
        reasoning, tokens = "", 0
        answer = partial(rules.answer_messages, asked, strategy, late=late)
        if limit := self._affordable(reader, prompts, strategy, prompts.rendered(answer(".")), answer_tokens):
            first = prompts.rendered(rules.reasoning_messages(asked, strategy, late=late))
            reasoning, tokens = write(reader, prompts, first, limit=limit, ended=_never)
        if not reasoning.strip():
            return Prepared(prompts.rendered(rules.only_messages(asked, strategy, late=late)), tokens, name)
        return Prepared(prompts.rendered(answer(reasoning)), tokens, name)

    def _affordable(
        self, reader: Reader, prompts: Prompts, strategy: Strategy, longest: str, answer_tokens: int
    ) -> int:
        if not strategy.reasons:
            return 0
        room = reader.context_tokens - len(prompts.ids(longest)) - answer_tokens
        most = strategy.limit if self.most_tokens is None else min(strategy.limit, self.most_tokens)
        return max(0, min(room, most))


def _never(_: str) -> bool:
    """Reasoning ends with its turn."""
    return False
