"""An answer as a row of blocks: reasoning, text, tool calls, each opened, grown and closed in its turn. Pure.

OpenAI's responses and Anthropic's messages both write answers this way, whole and streamed; only the names differ.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from device_agent.conversation.records import Argued, Called, Ended, Event, Reason, Said, Thought
from device_agent.engine.records import TokenLogprob

Kind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Block:
    """A part of an answer, the `index`-th; `text` is a call's arguments, `id` and `name` are a call's."""

    index: int
    kind: Kind
    id: str = ""
    name: str = ""
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Opened:
    """A block begins; it is empty."""

    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """`piece` was added to a block, and `logprobs` of its tokens."""

    block: Block
    piece: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    """A block is complete."""

    block: Block


Step = Opened | Grown | Closed


class Blocks:
    """Events of an answer with one choice, folded into blocks."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self.reason: Reason | None = None
        self.stopped_by: str | None = None
        self._open: Block | None = None

    def push(self, event: Event) -> Iterator[Step]:
        """What this event does to the blocks."""
        match event:
            case Said(text=text, logprobs=logprobs):
                yield from self._within("text")
                yield from self._grow(text, logprobs)
            case Thought(text=text):
                yield from self._within("reasoning")
                yield from self._grow(text)
            case Called(id=name_of_call, name=name):
                yield from self._close()
                yield from self._begin("call", name_of_call, name)
            case Argued(fragment=fragment):
                yield from self._grow(fragment)
            case Ended(reason=reason, stopped_by=stopped_by):
                self.reason, self.stopped_by = reason, stopped_by
                yield from self._close()

    def _within(self, kind: Kind) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._close()
            yield from self._begin(kind)

    def _begin(self, kind: Kind, id_: str = "", name: str = "") -> Iterator[Step]:
        self._open = Block(len(self.all), kind, id_, name)
        self.all.append(self._open)
        yield Opened(self._open)

    def _grow(self, piece: str, logprobs: tuple[TokenLogprob, ...] = ()) -> Iterator[Step]:
        if self._open is not None and (piece or logprobs):
            self._open.text += piece
            self._open.logprobs += logprobs
            yield Grown(self._open, piece, logprobs)

    def _close(self) -> Iterator[Step]:
        if self._open is not None:
            closed, self._open = self._open, None
            yield Closed(closed)
