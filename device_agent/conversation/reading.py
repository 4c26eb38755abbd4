"""What a model writes, piece by piece, to events: reasoning, text, tool calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from device_agent.conversation.records import Ended, Event, Reason, Thought
from device_agent.conversation.thinking import Thinking
from device_agent.conversation.tools import ToolReader
from device_agent.engine.records import Piece, TokenLogprob


class PhaseReader(Protocol):
    """Reads one generation of one choice."""

    reasoning_tokens: int
    """How many of its tokens were none of the answer."""

    def push(self, piece: Piece) -> Sequence[Event]:
        """Events of a piece; of the last one, which has `finish`, also those of what was held back."""


class ReasoningReader:
    """Everything is reasoning, whatever marks it has. Without `thinking`, nobody is told of it."""

    def __init__(self, choice: int, thinking: Thinking | None) -> None:
        self._choice = choice
        self._thinking = thinking
        self.reasoning_tokens = 0

    def push(self, piece: Piece) -> Sequence[Event]:
        """As `PhaseReader`."""
        self.reasoning_tokens += len(piece.tokens)
        if self._thinking is None:
            return ()
        text = "".join(self._thinking.push(piece.text))
        if piece.finish:
            text += "".join(self._thinking.finish())
        return (Thought(text=text, choice=self._choice),) if text else ()


class AnswerReader:
    """The last phase of a choice: perhaps some reasoning, then text and calls, then the end."""

    def __init__(self, choice: int, thinking: Thinking, tools: ToolReader) -> None:
        self._choice = choice
        self._thinking = thinking
        self._tools = tools
        self._logprobs: list[TokenLogprob] = []
        self._unsure_tokens = 0
        self.reasoning_tokens = 0

    def push(self, piece: Piece) -> Sequence[Event]:
        """As `PhaseReader`."""
        thought, said = self._thinking.push(piece.text)
        if piece.finish:
            rest_thought, rest_said = self._thinking.finish()
            thought, said = thought + rest_thought, said + rest_said
        found = [*self._thought(thought, piece, said=bool(said)), *self._said(said)]
        return [*found, *self._ended(piece)] if piece.finish else found

    def _thought(self, thought: str, piece: Piece, *, said: bool) -> list[Event]:
        """Reasoning; its tokens are counted, and their logprobs are nobody's. So are those of the marks."""
        self._logprobs += piece.logprobs
        self._unsure_tokens += len(piece.tokens)
        if self._thinking.answering or said:
            self._unsure_tokens = 0
        elif self._thinking.inside or thought:
            self.reasoning_tokens += self._unsure_tokens
            self._unsure_tokens = 0
            self._logprobs = []
        return [Thought(text=thought, choice=self._choice)] if thought else []

    def _said(self, text: str) -> list[Event]:
        if not self._thinking.answering and not text:
            return []
        logprobs, self._logprobs = self._logprobs, []
        events = self._tools.push(text, logprobs) if text or logprobs else ()
        return [replace(event, choice=self._choice) for event in events]

    def _ended(self, last: Piece) -> list[Event]:
        events, called = self._tools.finish()
        reason: Reason = "length" if last.finish == "length" else "tool_calls" if called else "stop"
        return [
            *(replace(event, choice=self._choice) for event in events),
            Ended(reason=reason, timings=last.timings, stopped_by=last.stopped_by, choice=self._choice),
        ]
