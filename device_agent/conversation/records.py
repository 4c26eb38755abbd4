"""What crosses the room's border: a request as every dialect means it, and the events that answer it."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from device_agent.engine.records import Grammar, Sampling, Timings, TokenLogprob
from edgekit.chat import Message, Tool

ToolMode = Literal["none", "auto", "required", "named"]
Reason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools may ("auto"), must ("required") or must not be called; `name` is the one of "named"."""

    mode: ToolMode = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A checked conversation and what is wanted of the answer.

    `grammar` is the answer's form, free text if None. `choices` answers are written side by side. `top_logprobs` is
    as in `Generation`. `strategy` names a way of reasoning (edgekit/strategies.py), None is the model's own.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_calls: bool = True
    grammar: Grammar | None = None
    choices: int = 1
    top_logprobs: int | None = None
    strategy: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Text of the answer. With logprobs asked for, `logprobs` are those of the tokens that brought it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """Text of the reasoning, which comes before the answer."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A tool call begins; `call` counts from 0 within its choice, `id` is unique."""

    call: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Argued:
    """A part of a call's arguments: all parts of a call together are a JSON object's text."""

    call: int
    fragment: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A choice is complete. `stopped_by` is the stop string that ended it."""

    reason: Reason
    timings: Timings | None = None
    stopped_by: str | None = None
    choice: int = 0


Event = Said | Thought | Called | Argued | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Tokens of an exchange so far. The prompt counts once, however many choices it has; `cached` are a part of it.

    `reasoning` tokens are a part of `output`.
    """

    input: int
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class Exchange(Protocol):
    """A running conversation's answer, with all its choices. One reader; `cancel` from any thread."""

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event; None if none came within `timeout_s`, or after the last `Ended`.

        Raises EdgekitError if it failed, and ShuttingDown if it was cancelled from within the agent.
        """

    @property
    def ended(self) -> bool:
        """Whether every choice has ended."""

    @property
    def spent(self) -> Spent:
        """Tokens so far; final once it has ended, and right also if it was cancelled."""

    def cancel(self) -> None:
        """Stop within one token. Harmless when it has ended."""
