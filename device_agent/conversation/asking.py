"""Prompts of a request's phases: tools, marks of reasoning, and what an answer is made to begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from device_agent.conversation import tools
from device_agent.conversation.records import ChatRequest
from device_agent.conversation.thinking import closed, marks_of, opened, reasons_by_itself
from device_agent.engine.records import ModelService
from edgekit.chat import Message
from edgekit.errors import ContextOverflow, TemplateError

Ids = tuple[int, ...]


class Build(Protocol):
    """Makes the messages of a strategy's phase; see edgekit/strategies.py for `late`."""

    def __call__(self, *, late: bool) -> tuple[Message, ...]:
        """The messages."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation as the model reads it: the tools' plan for it, and the ids of the prompt without any opening."""

    plan: tools.ToolPlan
    bare: Ids


class Asker:
    """Makes the prompts of one request. `late` puts strategies' system prompts behind the question from the start."""

    def __init__(self, model: ModelService, request: ChatRequest, *, late: bool) -> None:
        self._model = model
        self._request = request
        self._late = late
        self.marks = marks_of(model)
        ids = [model.token_id(mark) for mark in (self.marks.opening, self.marks.closing)] if self.marks else []
        self.marks_shown = frozenset(each for each in ids if each is not None)

    def ask(self, messages: Sequence[Message]) -> Asked:
        """Raises TemplateError, and InvalidRequest for tools that cannot be."""
        request = replace(self._request, messages=tuple(messages))
        plan = tools.plan(request, template=self._model.template, token_id=self._model.token_id)
        return Asked(plan, self._model.chat_prompt(plan.messages, tools=plan.template_tools))

    def ask_as(self, build: Build) -> Asked:
        """The messages of a strategy. If the template refuses its system prompt, that comes behind the question.

        Raises as `ask`.
        """
        messages = build(late=self._late)
        try:
            return self.ask(messages)
        except TemplateError:
            self._late, otherwise = True, build(late=True)
            if messages == otherwise:
                raise
        return self.ask(otherwise)

    def prompt(self, asked: Asked, opening: str) -> Ids:
        """With what the answer begins with."""
        if not opening:
            return asked.bare
        return self._model.chat_prompt(asked.plan.messages, tools=asked.plan.template_tools, opening=opening)

    def tail(self, asked: Asked, opening: str) -> Ids:
        """The ids of an opening alone."""
        return behind(asked.bare, self.prompt(asked, opening))

    def room(self, prompt_tokens: int) -> int:
        """Tokens that fit behind a prompt. Raises ContextOverflow if none does."""
        room = self._model.context_tokens - prompt_tokens
        if room < 1:
            raise ContextOverflow(prompt_tokens, self._model.context_tokens)
        return room

    # --- marks ---

    def opened(self, asked: Asked) -> bool:
        """Whether the template has opened the reasoning."""
        return self.marks is not None and opened(self._model, asked.bare, self.marks)

    def reasons(self, asked: Asked) -> bool:
        """Whether the model would reason by itself."""
        if self.marks is None or closed(self._model, asked.bare, self.marks):
            return False
        return reasons_by_itself(self._model, self.marks) or self.opened(asked)

    def skipping(self, asked: Asked) -> str:
        """An opening after which the model does not reason by itself: because a strategy says how, or that it not."""
        if self.marks is None or not self.reasons(asked):
            return ""
        return f"{self.marks.closing}\n\n" if self.opened(asked) else self.marks.nothing


def behind(start: Ids, whole: Ids) -> Ids:
    """What follows `start` in `whole`, from where they differ: text that is added may change the last token."""
    same = next((at for at, (one, other) in enumerate(zip(start, whole, strict=False)) if one != other), len(start))
    return whole[same:]
