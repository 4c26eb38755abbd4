"""Prompts of a request's phases: tools, marks of reasoning, and what an answer is made to begin with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from device_agent.conversation import tools
from device_agent.conversation.records import ChatRequest
from device_agent.conversation.thinking import marks_of
from device_agent.engine.records import ModelService
from edgekit.chat import Message
from edgekit.errors import ContextOverflow, TemplateError

Ids = tuple[int, ...]
_SEEN_TOKENS = 16
"""At the end of a prompt: enough for a mark, however it was cut into tokens, and the end of its line."""


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
        named = (self.marks.opening, self.marks.closing) if self.marks else ()
        ids = {mark: model.token_id(mark) for mark in named}
        self._special = {mark: each for mark, each in ids.items() if each is not None}
        self.marks_shown = frozenset(self._special.values())

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
        """With what the answer begins with; marks in it that are special tokens become those, and not text."""
        if not self._special:
            return self._begun(asked, opening)
        first, *parts = re.split(f"({'|'.join(map(re.escape, self._special))})", opening)
        ids = self._begun(asked, first)
        for part in parts:
            ids += (self._special[part],) if part in self._special else self._text(part)
        return ids

    def _begun(self, asked: Asked, text: str) -> Ids:
        if not text:
            return asked.bare
        return self._model.chat_prompt(asked.plan.messages, tools=asked.plan.template_tools, opening=text)

    def _text(self, text: str) -> Ids:
        """Ids of text that begins nothing."""
        return self._model.text_prompt(text)[len(self._model.text_prompt("")) :]

    def tail(self, asked: Asked, opening: str) -> Ids:
        """The ids of an opening alone."""
        return behind(asked.bare, self.prompt(asked, opening))

    def fits(self, tokens: int) -> bool:
        """Whether the context holds so many."""
        return tokens <= self._model.context_tokens

    def room(self, prompt_tokens: int) -> int:
        """Tokens that fit behind a prompt. Raises ContextOverflow if none does."""
        room = self._model.context_tokens - prompt_tokens
        if room < 1:
            raise ContextOverflow(prompt_tokens, self._model.context_tokens)
        return room

    # --- marks ---

    def opened(self, asked: Asked) -> bool:
        """Whether the template has opened the reasoning. Without one, the user's words end the prompt."""
        return self.marks is not None and self._model.template is not None and self.marks.opened(self._end(asked))

    def skipping(self, asked: Asked) -> str:
        """An opening after which the model does not reason by itself; "" if it would not."""
        if self.marks is None or self._model.template is None:
            return ""
        return self.marks.skipping(self._end(asked), template=self._model.template)

    def _end(self, asked: Asked) -> str:
        return self._model.text_of(asked.bare[-_SEEN_TOKENS:])


def behind(start: Ids, whole: Ids) -> Ids:
    """What follows `start` in `whole`, from where they differ: text that is added may change the last token."""
    same = next((at for at, (one, other) in enumerate(zip(start, whole, strict=False)) if one != other), len(start))
    return whole[same:]
