"""What the room hands out, and how a family of models writes its calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.conversation.records import Argued, Called, Said
from device_agent.engine.records import Grammar, TokenLogprob
from edgekit.chat import Message, Tool

Found = Said | Called | Argued
TokenId = Callable[[str], int | None]
"""The id of the special token with this name, None if there is none (ModelService.token_id)."""


class ToolReader(Protocol):
    """Takes an answer's text apart, piece by piece. One for each choice; events have `choice` 0."""

    def push(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Sequence[Found]:
        """What has become certain with this piece. Text that may be the beginning of a call is held back."""

    def finish(self) -> tuple[Sequence[Found], bool]:
        """What was held back, at the answer's end; and whether any tool was called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPlan:
    """How a request with tools is asked and its answer read.

    `messages` and `template_tools` are for `ModelService.chat_prompt`, with `opening`: text that the answer is made to
    begin with, and that the reader does not see. `grammar` (None: free text) and `shown` are for `Generation`.
    `reader` makes one for a choice.
    """

    messages: tuple[Message, ...]
    template_tools: tuple[Tool, ...]
    grammar: Grammar | None
    shown: frozenset[int]
    opening: str
    reader: Callable[[], ToolReader]


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """How calls are written, as data.

    An answer that calls is some text, and then

        opening call (separator call)* closing                        if the calls are `listed` together
        opening call closing (separator opening call closing)*        if each has marks of its own

    where a call is `head name middle arguments tail`. Where `opening` is empty, only an answer that begins with a call
    is one, and has no other; `silent` is a special token that may come before it and that nobody sees. `tokens` are
    the parts of all these that may be special tokens of the model. With `with_id` a call may end with an id of nine
    letters and digits, and those of earlier calls must be such ids.

    `marks` are what the family's templates contain, all of them, and nothing of `unless`. `system` is the system
    message without which a template does not describe its tools.
    """

    name: str
    marks: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    opening: str
    head: str
    middle: str
    tail: str
    closing: str
    separator: str
    tokens: tuple[str, ...] = ()
    silent: str = ""
    listed: bool = False
    with_id: bool = False
    system: str = ""
